# Copyright (c) 2026, The nemo_speechllm authors.  All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Classification by answering: which label a free answer names, and how often it is the right one.

The matcher, in full. Answer and labels are normalised by the basic normaliser (case, punctuation and what stands in
brackets go) and split into words, Chinese, Thai and the like into characters. A label is named where all of its words
follow one another in the answer; a place inside one where a longer label is named does not count ("sarcastic" in "not
sarcastic"). An answer that names exactly one label has chosen it; one that names none or several has chosen nothing
and is wrong. Synonyms are not guessed and "not happy" names "happy": labels that are negations of each other must be
given as such.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nemo_speechllm.metrics.error_rate import words_of
from nemo_speechllm.metrics.significance import mean_interval


@dataclass(frozen=True, slots=True)
class ClassificationFigures:
    """Figures of some answers.

    Attributes:
        answers: how many.
        accuracy: and its 95 % bootstrap interval ``ci``, [low, high].
        undecided: share without a choice.
        chance: accuracy of a blind guess.
        above_chance: whether the whole interval is above it.
    """

    answers: int
    accuracy: float
    ci: list[float]
    undecided: float
    chance: float
    above_chance: bool


@dataclass(frozen=True, slots=True)
class ClassificationReport:
    """Figures of ``all`` answers, and by category and task."""

    all: ClassificationFigures
    categories: dict[str, ClassificationFigures]
    tasks: dict[str, ClassificationFigures]


def choose_label(answer: str, labels: Sequence[str]) -> str | None:
    """Return the one label that an answer names, or None where it names none or several.

    Raises:
        ValueError: a label has no words, or two have the same ones.
    """
    words, places = words_of(answer), {}
    for label, label_words in _label_words(labels).items():
        spans = [(start, start + len(label_words)) for start in range(len(words) - len(label_words) + 1)]
        places[label] = [(start, end) for start, end in spans if words[start:end] == label_words]
    named = [label for label in labels if any(_is_outermost(place, places.values()) for place in places[label])]
    return named[0] if len(named) == 1 else None


def _is_outermost(place: tuple[int, int], of_labels: Any) -> bool:
    return not any(
        start <= place[0] and place[1] <= end and (start, end) != place for of in of_labels for start, end in of
    )


def _label_words(labels: Sequence[str]) -> dict[str, list[str]]:
    words = {label: words_of(label) for label in labels}
    if not all(words.values()) or len(set(map(tuple, words.values()))) < len(labels):
        raise ValueError(f"labels {list(labels)}: each needs words of its own, case and punctuation aside")
    return words


def classification_report(answers: list[dict[str, Any]]) -> ClassificationReport:
    """Return figures of all answers, by ``category`` and by ``task``.

    Args:
        answers: each with ``label``, ``labels`` (what there was to choose from), ``choice`` (see `choose_label`),
            ``category`` and ``task``.
    """
    return ClassificationReport(_figures(answers), _by(answers, "category"), _by(answers, "task"))


def _figures(answers: list[dict[str, Any]]) -> ClassificationFigures:
    right = [float(answer["choice"] == answer["label"]) for answer in answers]
    interval = mean_interval(right)
    assert interval is not None  # there are answers
    chance = float(np.mean([1 / len(answer["labels"]) for answer in answers]))
    return ClassificationFigures(
        answers=len(answers),
        accuracy=float(np.mean(right)),
        ci=interval,
        undecided=float(np.mean([answer["choice"] is None for answer in answers])),
        chance=chance,
        above_chance=interval[0] > chance,
    )


def _by(answers: list[dict[str, Any]], key: str) -> dict[str, ClassificationFigures]:
    values = sorted({answer[key] for answer in answers})
    return {value: _figures([answer for answer in answers if answer[key] == value]) for value in values}

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

"""Classification by answering: which label an answer names, or is likeliest to be, and how often it is the right one.

The matcher of free answers, in full. Answer and labels are normalised by the basic normaliser (case, punctuation and
what stands in brackets go) and split into words, Chinese, Thai and the like into characters. A label is named where
all of its words follow one another in the answer; a place inside one where a longer label is named does not count
("sarcastic" in "not sarcastic"). An answer that names exactly one label has chosen it; one that names none or several
has chosen nothing and is wrong. Synonyms are not guessed and "not happy" names "happy": labels that are negations of
each other must be given as such.

Closed-set scoring, in full. Each label is scored as the whole answer to the question: its text as the manifest writes
it, the one wording that it has, and the end token, without which a label that another begins with would always be the
likelier of the two. Its score is the mean of the natural log-probabilities of these tokens; the label of the highest
score is chosen, so no answer is undecided. The mean is there because a sum of more terms is lower whatever they are
(``acc_norm`` of lm-evaluation-harness divides by characters for that reason; here it is by what was summed, as
`SpeechLM.answer_losses` has it). What the sums alone would have chosen stands beside it (its ``acc``).

An LLM prefers some words whatever it hears. Batch calibration (Zhou et al., 2309.17249, section 3) takes that away
without knowing a right answer: the probability of each label, the softmax of the sums, is divided by its mean over all
answers of the task with these labels. What is chosen then tells what was heard, as AUC does, and what a model can
choose whose own preferences are known; where the labels are not about equally frequent it chooses the rare ones too
often, and of a handful of answers it says nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from torchmetrics.functional.classification import binary_auroc, binary_calibration_error

from nemo_speechllm.metrics.error_rate import words_of
from nemo_speechllm.metrics.significance import mean_interval

CALIBRATION_BINS = 15  # as in 1706.04599


@dataclass(frozen=True, slots=True)
class LikelihoodFigures:
    """What closed-set scoring says beside which label was chosen.

    Attributes:
        accuracy_unnormalised: of the label that is the likeliest as a whole answer.
        accuracy_calibrated: after batch calibration (see the top), and its interval ``ci_calibrated``.
        auc: area under the ROC curve of one label against the rest, by the softmax of the scores: the mean over those
            labels of a task that some questions have as the right one and some as a wrong one (of two labels, either
            one's), and of tasks their mean; None where there are none. A blind guess has 0.5. A word that is preferred
            whatever is heard costs accuracy, and of two labels no AUC.
        calibration_error: expected calibration error: how far the probability of the likeliest label is from how often
            it is right, in ``bins`` of equal width, weighted by their answers. Probabilities are the softmax of the
            sums: what the decoder gives each label if it says one of them. Means would be no probabilities: those of
            labels of one token and an end are the square roots of the odds. Of few answers it is too high.
        bins: of the calibration error.
    """

    accuracy_unnormalised: float
    accuracy_calibrated: float
    ci_calibrated: list[float]
    auc: float | None
    calibration_error: float
    bins: int = CALIBRATION_BINS


@dataclass(frozen=True, slots=True)
class ClassificationFigures:
    """Figures of some answers.

    Attributes:
        answers: how many.
        accuracy: and its 95 % bootstrap interval ``ci``, [low, high].
        undecided: share without a choice.
        chance: accuracy of a blind guess.
        above_chance: whether the whole interval is above it.
        likelihood: of answers that are scored labels.
    """

    answers: int
    accuracy: float
    ci: list[float]
    undecided: float
    chance: float
    above_chance: bool
    likelihood: LikelihoodFigures | None = None


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


def choose_likeliest(log_probs: Mapping[str, float], tokens: Mapping[str, int]) -> str:
    """Return the label with the highest log-probability per token; of equal ones the first by name.

    Raises:
        ValueError: a log-probability is no number.
    """
    if not all(np.isfinite([*log_probs.values()])):
        raise ValueError(
            f"log-probabilities {dict(log_probs)}: the model's output is not finite; give one whose weights and dtype "
            "(model.llm.dtype) are sound"
        )
    return max(sorted(log_probs), key=lambda label: log_probs[label] / tokens[label])


def classification_report(answers: list[dict[str, Any]]) -> ClassificationReport:
    """Return figures of all answers, by ``category`` and by ``task``.

    Args:
        answers: each with ``label``, ``labels`` (what there was to choose from), ``choice`` (see `choose_label` and
            `choose_likeliest`), ``category`` and ``task``; of closed-set scoring also ``label_log_probs`` and
            ``label_tokens`` by label.
    """
    return ClassificationReport(_figures(answers), _by(answers, "category"), _by(answers, "task"))


def _figures(answers: list[dict[str, Any]]) -> ClassificationFigures:
    right = [float(answer["choice"] == answer["label"]) for answer in answers]
    accuracy, interval = _with_interval(right)
    chance = float(np.mean([1 / len(answer["labels"]) for answer in answers]))
    return ClassificationFigures(
        answers=len(answers),
        accuracy=accuracy,
        ci=interval,
        undecided=float(np.mean([answer["choice"] is None for answer in answers])),
        chance=chance,
        above_chance=interval[0] > chance,
        likelihood=_likelihood_figures(answers) if all("label_log_probs" in answer for answer in answers) else None,
    )


def _with_interval(right: list[float]) -> tuple[float, list[float]]:
    interval = mean_interval(right)
    assert interval is not None  # there are answers
    return float(np.mean(right)), interval


def _likelihood_figures(answers: list[dict[str, Any]]) -> LikelihoodFigures:
    sums = [answer["label_log_probs"] for answer in answers]
    likeliest = [max(sorted(of_labels), key=of_labels.__getitem__) for of_labels in sums]
    right = [choice == answer["label"] for choice, answer in zip(likeliest, answers, strict=True)]
    confidences = [_softmax(of_labels)[choice] for of_labels, choice in zip(sums, likeliest, strict=True)]
    error = binary_calibration_error(  # of any classes: how sure, and whether right
        torch.tensor(confidences, dtype=torch.float64), torch.tensor(right).long(), n_bins=CALIBRATION_BINS, norm="l1"
    )
    tasks = sorted({answer["task"] for answer in answers})
    areas = [_task_auc([answer for answer in answers if answer["task"] == task]) for task in tasks]
    calibrated = [float(choice == answer["label"]) for answer, choice in _calibrated_choices(answers)]
    accuracy_calibrated, ci_calibrated = _with_interval(calibrated)
    return LikelihoodFigures(
        accuracy_unnormalised=float(np.mean(right)),
        accuracy_calibrated=accuracy_calibrated,
        ci_calibrated=ci_calibrated,
        auc=_mean_of_known(areas),
        calibration_error=float(error),
    )


def _calibrated_choices(answers: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield each answer with the label that batch calibration chooses, answers to the same question together."""
    alike: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for answer in answers:
        alike.setdefault((answer["task"], *sorted(answer["label_log_probs"])), []).append(answer)
    for (_, *labels), group in alike.items():
        probabilities = softmax([[answer["label_log_probs"][label] for label in labels] for answer in group], axis=1)
        best = (probabilities / probabilities.mean(0)).argmax(1)
        yield from zip(group, (labels[index] for index in best), strict=True)


def _task_auc(answers: list[dict[str, Any]]) -> float | None:
    probabilities = [
        _softmax({label: value / answer["label_tokens"][label] for label, value in answer["label_log_probs"].items()})
        for answer in answers
    ]
    areas: list[float | None] = []
    for label in sorted({label for of_labels in probabilities for label in of_labels}):
        asked = [pair for pair in zip(probabilities, answers, strict=True) if label in pair[0]]
        truth = [answer["label"] == label for _, answer in asked]
        values = torch.tensor([of_labels[label] for of_labels, _ in asked], dtype=torch.float64)
        areas.append(float(binary_auroc(values, torch.tensor(truth).long())) if len(set(truth)) == 2 else None)
    return _mean_of_known(areas)


def _softmax(of_labels: Mapping[str, float]) -> dict[str, float]:
    return dict(zip(of_labels, softmax([*of_labels.values()]).tolist(), strict=True))


def _mean_of_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _by(answers: list[dict[str, Any]], key: str) -> dict[str, ClassificationFigures]:
    values = sorted({answer[key] for answer in answers})
    return {value: _figures([answer for answer in answers if answer[key] == value]) for value in values}

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

"""Does a model do what it is told? Accuracy by skill, against what was said and against what the model itself hears.

A model that mishears a word fails a word-for-word comparison however well it understood the instruction. So each
figure comes twice: *strict*, against the target made of the true transcript, and *given the model's own transcript*,
against the target made of what the model answers when it is asked to transcribe. Only the first says how good the
model is; the second says whether recognition or obedience is missing.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import regex
from rapidfuzz.distance import Levenshtein

from nemo_speechllm.metrics.error_rate import ErrorCounts, count_errors_each, normalizer
from nemo_speechllm.metrics.significance import mean_interval

CASED = "upper_case"  # the skill whose targets differ from a transcript by case alone
UNKNOWN = "⁇"  # what SentencePiece writes for a character it does not know; normalisers drop it
UNLIKE_ANY = "none"  # an output that resembles no skill's target
MIN_SIMILARITY = 0.5
MIXES = ("concatenated", "overlapped")  # of two speakers

T = TypeVar("T")

Target = tuple[str, str]  # skill and text


@dataclass(frozen=True, slots=True)
class Score:
    """Scores of one answer.

    Attributes:
        exact: it is one of the targets.
        within_wer: that, or its word error rate is low enough.
        errors, words: against the nearest target.
        own_exact, own_within_wer: the same given the model's own transcript.
        copying: whether the plain transcript is right too.
        did: the nearest skill.
    """

    exact: bool
    within_wer: bool
    errors: int
    words: int
    own_exact: bool
    own_within_wer: bool
    copying: bool
    did: str


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Shares of answers (0 to 1) that are right, and that are so up to a word error rate."""

    accuracy: float
    within_wer: float


@dataclass(frozen=True, slots=True, kw_only=True)
class InstructionFigures:
    """Shares (0 to 1) over some answers.

    Attributes:
        answers: how many.
        accuracy, within_wer: see `Accuracy`.
        accuracy_ci: 95 % bootstrap interval, [low, high].
        wer: None where no target has a word.
        given_own_transcript: against targets made of what the model itself transcribes.
        copying: what plain transcription would get.
    """

    answers: int
    accuracy: float
    accuracy_ci: list[float] | None
    within_wer: float
    wer: float | None
    given_own_transcript: Accuracy
    copying: float


BySplit = dict[str, InstructionFigures]


@dataclass(frozen=True, slots=True, kw_only=True)
class InstructionReport:
    """Figures of scored answers.

    Attributes:
        rule, written: skills whose targets a rule computes, and the others; by split.
        complexity, skills: each of them, by split.
        adversarial: by category, and ``all``.
        confusion: split → skill → what was done → count.
        concatenated, overlapped: of two speakers; None where there are none.
    """

    rule: BySplit
    written: BySplit
    complexity: dict[str, BySplit]
    skills: dict[str, BySplit]
    adversarial: dict[str, InstructionFigures]
    confusion: dict[str, dict[str, dict[str, int]]]
    concatenated: InstructionFigures | None
    overlapped: InstructionFigures | None


def matches(output: str, target: Target, normalize: str = "basic") -> bool:
    """Tell whether an output is the target, text normalised; capital letters count where they are what was asked for.

    Where nothing is to be said, punctuation is something. A character that the model's tokenizer lacks is never right.
    """
    skill, text = target
    if not text.strip():
        return not output.strip()
    clean = normalizer(normalize)
    return (
        UNKNOWN not in output
        and clean(output).strip() == clean(text).strip()
        and (skill != CASED or output == output.upper())
    )


def target_errors(output: str, targets: list[Target], normalize: str = "basic") -> ErrorCounts:
    """Return word errors of an output against the target closest to it; without capitals asked for, all are wrong."""
    counts = count_errors_each(
        [output.replace(UNKNOWN, " unknown ")] * len(targets), [text for _, text in targets], "word", normalize
    )
    for index, (skill, _) in enumerate(targets):
        if skill == CASED and output != output.upper():
            words = counts[index].reference
            counts[index] = ErrorCounts(substitutions=words, reference=words)
    return min(counts, key=lambda counted: counted.rate)


def nearest_skill(output: str, candidates: dict[str, str], asked: Iterable[str]) -> str:
    """Return what was done instead: the skill whose target an output is most similar to.

    Args:
        output: of the model.
        candidates: each skill's target.
        asked: what was asked for; these win where several are equally near.

    Returns:
        a skill, or ``none`` where no target is similar by half.
    """
    asked = set(asked)

    def nearness(skill: str) -> tuple[float, float, bool]:
        done, wanted = _words(output), _words(candidates[skill])
        whatever_case = Levenshtein.normalized_similarity(done.casefold(), wanted.casefold())
        return round(whatever_case, 6), round(Levenshtein.normalized_similarity(done, wanted), 6), skill in asked

    best = max(candidates, key=nearness)
    return best if nearness(best)[0] >= MIN_SIMILARITY else UNLIKE_ANY


def _words(text: str) -> str:
    return " ".join(regex.sub(r"[^\w\s]|_", " ", text).split())  # a mark is \w, as it is not to re


def score(item: dict[str, Any], output: str, wer_threshold: float = 0.1, normalize: str = "basic") -> Score:
    """Return the scores of one answer.

    Args:
        item: ``targets`` and ``own_targets`` (pairs of skill and text; any of them is right), ``candidates`` (skill →
            target) and ``transcript``.
        output: of the model.
        wer_threshold: word error rate up to which an answer still counts as ``within_wer``.
        normalize: name of the text `normalizer`.
    """
    targets, own_targets = [[tuple(target) for target in item[key]] for key in ("targets", "own_targets")]
    errors, own_errors = target_errors(output, targets, normalize), target_errors(output, own_targets, normalize)
    exact = any(matches(output, target, normalize) for target in targets)
    own_exact = any(matches(output, target, normalize) for target in own_targets)
    return Score(
        exact=exact,
        within_wer=exact or errors.rate <= wer_threshold,
        errors=errors.errors,
        words=errors.reference,
        own_exact=own_exact,
        own_within_wer=own_exact or own_errors.rate <= wer_threshold,
        copying=any(matches(item["transcript"], target, normalize) for target in targets),
        did=nearest_skill(output, item["candidates"], {skill for skill, _ in targets}),
    )


def instruction_report(scored: list[dict[str, Any]]) -> InstructionReport:
    """Return the figures of scored answers.

    Args:
        scored: `score` of each answer with ``group``, ``name`` (skill or category), ``split``, ``complexity`` and
            ``rule`` (whether a rule computes the target).
    """
    skills = [item for item in scored if item["group"] == "skills"]
    traps = [item for item in scored if item["group"] == "adversarial"]
    concatenated, overlapped = ([item for item in scored if item["group"] == mix] for mix in MIXES)
    return InstructionReport(
        rule=_by([item for item in skills if item["rule"]], "split"),
        written=_by([item for item in skills if not item["rule"]], "split"),
        complexity=_nested(skills, "complexity"),
        skills=_nested(skills, "name"),
        adversarial=_by(traps, "name") | ({"all": _figures(traps)} if traps else {}),
        confusion={
            split: _groups(members, "name", lambda answers: dict(Counter(item["did"] for item in answers)))
            for split, members in _groups(skills, "split", list).items()
        },
        concatenated=_figures(concatenated) if concatenated else None,
        overlapped=_figures(overlapped) if overlapped else None,
    )


def _figures(answers: list[dict[str, Any]]) -> InstructionFigures:

    def share(key: str) -> float:
        return sum(item[key] for item in answers) / len(answers)

    words = sum(item["words"] for item in answers)
    exact = [item["exact"] for item in answers]
    return InstructionFigures(
        answers=len(answers),
        accuracy=share("exact"),
        accuracy_ci=mean_interval(exact),
        within_wer=share("within_wer"),
        wer=sum(item["errors"] for item in answers) / words if words else None,
        given_own_transcript=Accuracy(share("own_exact"), share("own_within_wer")),
        copying=share("copying"),
    )


def _groups(items: list[dict[str, Any]], key: str, of: Callable[[list], T]) -> dict[str, T]:
    """Return ``of`` the items of each value of a key, in order of appearance."""
    return {value: of([i for i in items if i[key] == value]) for value in dict.fromkeys(i[key] for i in items)}


def _by(items: list[dict[str, Any]], key: str) -> dict[str, InstructionFigures]:
    return _groups(items, key, _figures)


def _nested(items: list[dict[str, Any]], key: str) -> dict[str, BySplit]:
    return _groups(items, key, lambda members: _by(members, "split"))


def instruction_rows(report: InstructionReport) -> list[dict[str, Any]]:
    """Return a report's figures as rows of a table: ``group``, ``name``, ``split`` and the figures."""
    rows = [_row("all rule skills", "", split, figures) for split, figures in report.rule.items()]
    rows += [_row("written skills", "", split, figures) for split, figures in report.written.items()]
    for group, by_name in (("complexity", report.complexity), ("skills", report.skills)):
        for name, splits in by_name.items():
            rows += [_row(group, name, split, figures) for split, figures in splits.items()]
    rows += [_row("adversarial", name, "", figures) for name, figures in report.adversarial.items()]
    for mix, mixed in zip(MIXES, (report.concatenated, report.overlapped), strict=True):
        rows += [_row("two speakers", mix, "seen", mixed)] if mixed else []
    return rows


def _row(group: str, name: str, split: str, figures: InstructionFigures) -> dict[str, Any]:
    low, high = figures.accuracy_ci or (None, None)
    return {
        "group": group,
        "name": name,
        "split": split,
        "answers": figures.answers,
        "accuracy": figures.accuracy,
        "within_wer": figures.within_wer,
        "wer": figures.wer,
        "copying": figures.copying,
        "accuracy_low": low,
        "accuracy_high": high,
        "accuracy_given_own_transcript": figures.given_own_transcript.accuracy,
        "within_wer_given_own_transcript": figures.given_own_transcript.within_wer,
    }

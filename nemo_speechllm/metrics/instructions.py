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
from typing import Any

import regex
from rapidfuzz.distance import Levenshtein

from nemo_speechllm.metrics.error_rate import ErrorCounts, count_errors_each, normalizer
from nemo_speechllm.metrics.significance import percentile_interval, resampled_rates

CASED = "upper_case"  # the skill whose targets differ from a transcript by case alone
UNKNOWN = "⁇"  # what SentencePiece writes for a character it does not know; normalisers drop it
UNLIKE_ANY = "none"  # an output that resembles no skill's target
MIN_SIMILARITY = 0.5

Target = tuple[str, str]  # skill and text


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
    found = count_errors_each(
        [output.replace(UNKNOWN, " unknown ")] * len(targets), [text for _, text in targets], "word", normalize
    )
    for index, (skill, _) in enumerate(targets):
        if skill == CASED and output != output.upper():
            found[index] = ErrorCounts(substitutions=found[index].reference, reference=found[index].reference)
    return min(found, key=lambda counts: counts.rate)


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


def score(item: dict[str, Any], output: str, wer_threshold: float = 0.1, normalize: str = "basic") -> dict[str, Any]:
    """Return the scores of one answer.

    Args:
        item: ``targets`` and ``own_targets`` (pairs of skill and text; any of them is right), ``candidates`` (skill →
            target) and ``transcript``.
        output: of the model.
        wer_threshold: word error rate up to which an answer still counts as ``within_wer``.
        normalize: name of the text `normalizer`.

    Returns:
        ``exact``, ``within_wer``, ``errors``, ``words``; ``own_exact``, ``own_within_wer``, the same given the model's
        own transcript; ``copying``: whether the plain transcript is right too; ``did``: the nearest skill.
    """
    targets, own = [[tuple(target) for target in item[key]] for key in ("targets", "own_targets")]
    errors, own_errors = target_errors(output, targets, normalize), target_errors(output, own, normalize)
    exact = any(matches(output, target, normalize) for target in targets)
    own_exact = any(matches(output, target, normalize) for target in own)
    return {
        "exact": exact,
        "within_wer": exact or errors.rate <= wer_threshold,
        "errors": errors.errors,
        "words": errors.reference,
        "own_exact": own_exact,
        "own_within_wer": own_exact or own_errors.rate <= wer_threshold,
        "copying": any(matches(item["transcript"], target, normalize) for target in targets),
        "did": nearest_skill(output, item["candidates"], {skill for skill, _ in targets}),
    }


def instruction_report(scored: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of scored answers.

    Args:
        scored: `score` of each answer with ``group``, ``name`` (skill or category), ``split``, ``complexity`` and
            ``rule`` (whether a rule computes the target).

    Returns:
        by split, ``rule`` (all skills that rules compute), ``written`` (the others), ``complexity`` and ``skills``;
        ``adversarial`` by category, ``concatenated`` and ``overlapped``; ``confusion``: split → skill → what was done
        → count.
    """
    skills = [item for item in scored if item["group"] == "skills"]
    traps = [item for item in scored if item["group"] == "adversarial"]
    report: dict[str, Any] = {
        "rule": _by([item for item in skills if item["rule"]], "split"),
        "written": _by([item for item in skills if not item["rule"]], "split"),
        "complexity": _nested(skills, "complexity"),
        "skills": _nested(skills, "name"),
        "adversarial": _by(traps, "name") | ({"all": figures(traps)} if traps else {}),
        "confusion": {
            split: _groups(members, "name", lambda answers: dict(Counter(item["did"] for item in answers)))
            for split, members in _groups(skills, "split", list).items()
        },
    }
    for mix in ("concatenated", "overlapped"):
        pairs = [item for item in scored if item["group"] == mix]
        report[mix] = figures(pairs) if pairs else None
    return report


def figures(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """Return shares (0 to 1) over some answers.

    Returns:
        ``accuracy`` with its 95 % interval, ``within_wer``, ``given_own_transcript`` the same two, ``copying`` (what
        plain transcription would get), and ``wer`` (None where no target has a word).
    """

    def share(key: str) -> float:
        return sum(item[key] for item in answers) / len(answers)

    words = sum(item["words"] for item in answers)
    exact = [item["exact"] for item in answers]
    return {
        "answers": len(answers),
        "accuracy": share("exact"),
        "accuracy_ci": percentile_interval(resampled_rates(exact, [1] * len(exact))),
        "within_wer": share("within_wer"),
        "wer": sum(item["errors"] for item in answers) / words if words else None,
        "given_own_transcript": {"accuracy": share("own_exact"), "within_wer": share("own_within_wer")},
        "copying": share("copying"),
    }


def _groups(items: list[dict[str, Any]], key: str, of: Callable[[list], Any]) -> dict[str, Any]:
    """Return ``of`` the items of each value of a key, in order of appearance."""
    return {value: of([i for i in items if i[key] == value]) for value in dict.fromkeys(i[key] for i in items)}


def _by(items: list[dict[str, Any]], key: str) -> dict[str, Any]:
    return _groups(items, key, figures)


def _nested(items: list[dict[str, Any]], key: str) -> dict[str, Any]:
    return _groups(items, key, lambda members: _by(members, "split"))


def instruction_rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return an `instruction_report`'s figures as flat rows: ``group``, ``name``, ``split`` and the figures."""
    rows = []
    for split in report["rule"]:
        rows.append({"group": "all rule skills", "name": "", "split": split} | _flat(report["rule"][split]))
    for split in report["written"]:
        rows.append({"group": "written skills", "name": "", "split": split} | _flat(report["written"][split]))
    for group in ("complexity", "skills"):
        for name, splits in report[group].items():
            rows += [{"group": group, "name": name, "split": split} | _flat(f) for split, f in splits.items()]
    for name, found in report["adversarial"].items():
        rows.append({"group": "adversarial", "name": name, "split": ""} | _flat(found))
    for mix in ("concatenated", "overlapped"):
        if report[mix]:
            rows.append({"group": "two speakers", "name": mix, "split": "seen"} | _flat(report[mix]))
    return rows


def _flat(found: dict[str, Any]) -> dict[str, Any]:
    low, high = found["accuracy_ci"]
    own = {f"{name}_given_own_transcript": value for name, value in found["given_own_transcript"].items()}
    kept = ("answers", "accuracy", "within_wer", "wer", "copying")
    return {name: found[name] for name in kept} | {"accuracy_low": low, "accuracy_high": high} | own

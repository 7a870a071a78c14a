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

"""Free answers rated by an LLM beside a reference, after AIR-Bench-Chat (2402.07729).

The judge reads the question, what is known of the recording and two answers, the reference and the model's, and rates
both from 1 to 10. It is asked twice, with the answers in either order, because judges prefer a place; the two ratings
of an answer are averaged. The prompt is ``judge_prompt.txt`` beside this file.
"""

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nemo_speechllm.metrics.significance import mean_interval

PROMPT = Path(__file__).with_name("judge_prompt.txt")
SLOTS = ("description", "question", "first", "second")
ORDERS = ("reference_first", "answer_first")
NO_DESCRIPTION = "(Nothing but what the question says.)"
_SLOT = re.compile("|".join(f"{{{slot}}}" for slot in SLOTS))
_NUMBER = r"(10(?:\.0+)?|[1-9](?:\.\d+)?)"
_SCORES = re.compile(rf"{_NUMBER}\s*[\s,;]\s*{_NUMBER}")


@dataclass(frozen=True, slots=True)
class JudgeFigures:
    """Figures of some judgements.

    Attributes:
        questions: how many.
        scored: those with scores in both orders, which the means are of.
        score: of the model's answers, from 1 to 10, with its 95 % bootstrap interval ``ci``; None where nothing is
            scored, as ``reference_score``.
        reference_score: of the references.
        order_difference: by how much the model's answers are rated higher where they stand first.
        parse_failures: share of judgements without scores.
    """

    questions: int
    scored: int
    score: float | None
    ci: list[float] | None
    reference_score: float | None
    order_difference: float | None
    parse_failures: float


@dataclass(frozen=True, slots=True)
class JudgeReport:
    """Figures of ``all`` judgements, and by category."""

    all: JudgeFigures
    categories: dict[str, JudgeFigures]


def read_prompt(path: str | Path = PROMPT) -> str:
    """Read a judge's prompt.

    Raises:
        ValueError: a slot of ``SLOTS`` is missing.
    """
    prompt = Path(path).read_text(encoding="utf-8")
    missing = [f"{{{slot}}}" for slot in SLOTS if f"{{{slot}}}" not in prompt]
    if missing:
        raise ValueError(f"{path}: a judge's prompt needs {', '.join(missing)}; see {PROMPT}")
    return prompt


def judge_message(prompt: str, row: dict[str, Any], order: str) -> str:
    """Return what the judge reads.

    Args:
        prompt: with ``SLOTS``.
        row: ``instruction``, ``answer`` (the reference), ``pred_text`` (the model's) and, if known, the recording's
            ``description``.
        order: one of ``ORDERS``.
    """
    answers = (row["answer"], row["pred_text"])
    first, second = answers if order == "reference_first" else answers[::-1]
    texts = {"description": row.get("description") or NO_DESCRIPTION, "question": row["instruction"]}
    texts |= {"first": first, "second": second}
    return _SLOT.sub(lambda match: texts[match[0][1:-1]], prompt)


def read_scores(text: str, order: str) -> dict[str, float] | None:
    """Read the scores of ``reference`` and ``answer``, or None where the judge gave none.

    They are the first line that holds nothing but two numbers from 1 to 10, with white space, a comma or a semicolon
    between them.
    """
    for line in text.splitlines():
        if match := _SCORES.fullmatch(line.strip()):
            scores = [float(number) for number in match.groups()]
            names = ("reference", "answer") if order == "reference_first" else ("answer", "reference")
            return dict(zip(names, scores, strict=True))
    return None


def judge_report(judgements: list[dict[str, Any]]) -> JudgeReport:
    """Return figures of all judgements and by category.

    Args:
        judgements: two for each question, each with ``index`` of the question, ``category``, ``order`` and ``scores``
            (see `read_scores`).
    """
    names = sorted({judgement["category"] for judgement in judgements})
    by_category = {name: _figures([j for j in judgements if j["category"] == name]) for name in names}
    return JudgeReport(_figures(judgements), by_category)


def _figures(judgements: list[dict[str, Any]]) -> JudgeFigures:
    by_question: dict[int, dict[str, dict[str, float] | None]] = defaultdict(dict)
    for judgement in judgements:
        by_question[judgement["index"]][judgement["order"]] = judgement["scores"]
    in_both = [[scores[order] for order in ORDERS] for scores in by_question.values()]
    scored = [(first, second) for first, second in in_both if first and second]
    answers = [float(np.mean([scores["answer"] for scores in pair])) for pair in scored]
    references = [float(np.mean([scores["reference"] for scores in pair])) for pair in scored]
    differences = [second["answer"] - first["answer"] for first, second in scored]
    return JudgeFigures(
        questions=len(by_question),
        scored=len(scored),
        score=_mean(answers),
        ci=mean_interval(answers),
        reference_score=_mean(references),
        order_difference=_mean(differences),
        parse_failures=float(np.mean([judgement["scores"] is None for judgement in judgements])),
    )


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None

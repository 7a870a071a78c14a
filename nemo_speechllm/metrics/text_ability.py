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

"""Whether a speech LM with a frozen LLM answers text as that LLM does, token for token (2409.20007, section 2.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

QUESTIONS = Path(__file__).with_name("text_questions.txt")


@dataclass(frozen=True, slots=True)
class TextAbilityReport:
    """By how much a model's answers differ from those of its LLM.

    Attributes:
        questions: how many.
        tokens: of the LLM's answers.
        differing_tokens: see `differing_tokens`, summed over the answers.
        differing_answers: how many have one.
        identical: whether none has.
    """

    questions: int
    tokens: int
    differing_tokens: int
    differing_answers: int
    identical: bool


def read_questions(path: str | Path = QUESTIONS) -> list[str]:
    """Read the questions of a file, a line each; by default those that come with the package.

    Raises:
        ValueError: there is none.
    """
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    questions = [line.strip() for line in lines if line.strip()]
    if not questions:
        raise ValueError(f"{path} has no question; write one a line")
    return questions


def differing_tokens(ids: Sequence[int], others: Sequence[int]) -> int:
    """Count the places at which two answers differ; those that only one of them has count."""
    return sum(a != b for a, b in zip_longest(ids, others))


def text_ability_report(answers: list[dict[str, Any]]) -> TextAbilityReport:
    """Return by how much a model's answers differ from those of its LLM.

    Args:
        answers: each with ``llm_ids``, the token ids of the LLM's answer, and how many ``differing_tokens`` the
            model's has.
    """
    differing = [answer["differing_tokens"] for answer in answers]
    return TextAbilityReport(
        questions=len(answers),
        tokens=sum(len(answer["llm_ids"]) for answer in answers),
        differing_tokens=sum(differing),
        differing_answers=sum(map(bool, differing)),
        identical=not any(differing),
    )

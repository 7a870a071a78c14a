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

"""Whether an answer has the form that was asked for, and whether what is computed step by step comes out right.

Each check is a rule that needs no judgement (2409.20007, demonstrations of format following and chain of thought):

- ``upper``, ``lower``: there are letters with a case, and none of the other case.
- ``json``: the answer is a JSON object with the argument as its only key; a Markdown fence around it is allowed.
- ``numbered_list``: as many lines as the argument says, blank ones aside, numbered from 1 on as ``1.`` or ``1)``.
- ``one_word``: one word; punctuation around it is allowed.
- ``digits``: a number in digits; a full stop behind it is allowed.
- ``ends_with``: the argument stands at the end; punctuation behind it is allowed.
- ``quoted``: straight or curly double quotation marks at both ends.
- ``words_per_second``: the last number is the words of the transcript over the seconds of the recording, give or take
  the argument's share of it: a listener knows the seconds roughly.
- ``number_of_words``: the last number is that of the words of the transcript.

Words are those that Whisper's basic normaliser leaves. A number written out in letters is not read.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import regex
import yaml

from nemo_speechllm.metrics.error_rate import words_of
from nemo_speechllm.metrics.significance import mean_interval

PROBES = Path(__file__).with_name("probes.yaml")
_KEYS = {"name", "category", "check", "instruction"}
_NUMBER = re.compile(r"(?<![\w.,])\d+(?:[.,]\d+)?(?![\w])")
_ONE_WORD = regex.compile(r"\W*[^\W\d_]+(?:['’-][^\W\d_]+)*\W*")  # whose letters have marks
_FENCE = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL)

# An answer, the probe's argument, and the manifest's row (``text``, ``duration`` in seconds) → whether it passes.
Check = Callable[[str, Any, dict[str, Any]], bool]


@dataclass(frozen=True, slots=True)
class ProbeFigures:
    """How many answers there are, the share that ``passed`` and its 95 % bootstrap interval ``ci``, [low, high]."""

    answers: int
    passed: float
    ci: list[float] | None


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """Figures of ``all`` answers, and by category and probe."""

    all: ProbeFigures
    categories: dict[str, ProbeFigures]
    probes: dict[str, ProbeFigures]


def _is_json(answer: str, key: str, row: dict) -> bool:
    fenced = _FENCE.fullmatch(answer.strip())
    try:
        found = json.loads(fenced[1] if fenced else answer)
    except ValueError:  # what is no JSON does not pass
        return False
    return isinstance(found, dict) and list(found) == [key]


def _is_numbered_list(answer: str, items: int, row: dict) -> bool:
    lines = [line.strip() for line in answer.splitlines() if line.strip()]
    return len(lines) == items and all(re.match(rf"{number}[.)]\s*\S", line) for number, line in enumerate(lines, 1))


def _last_number(answer: str) -> float | None:
    numbers = _NUMBER.findall(answer)
    return float(numbers[-1].replace(",", ".")) if numbers else None


def _words(row: dict) -> int:
    return len(words_of(row["text"]))


def _is_rate(answer: str, tolerance: float, row: dict) -> bool:
    number, rate = _last_number(answer), _words(row) / row["duration"]
    return number is not None and abs(number - rate) <= tolerance * rate


CHECKS: dict[str, Check] = {
    "upper": lambda answer, _, row: answer.isupper(),
    "lower": lambda answer, _, row: answer.islower(),
    "json": _is_json,
    "numbered_list": _is_numbered_list,
    "one_word": lambda answer, _, row: _ONE_WORD.fullmatch(answer) is not None,
    "digits": lambda answer, _, row: re.fullmatch(r"\s*\d+\s*\.?\s*", answer) is not None,
    "ends_with": lambda answer, end, row: regex.sub(r"\W+$", "", answer).endswith(end),
    "quoted": lambda answer, _, row: re.fullmatch(r'\s*["“].+["”]\s*', answer, re.DOTALL) is not None,
    "words_per_second": _is_rate,
    "number_of_words": lambda answer, _, row: _last_number(answer) == _words(row),
}


def read_probes(path: str | Path = PROBES) -> list[dict[str, Any]]:
    """Read probes, each with ``name``, ``category``, ``check``, ``instruction`` and maybe ``argument``.

    Raises:
        ValueError: the file is no list of probes, a key is missing, a check is unknown, or two probes have one name.
    """
    try:
        probes = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {error}; quote texts with : or ? in them") from error
    if not isinstance(probes, list) or not probes or not all(isinstance(probe, dict) for probe in probes):
        raise ValueError(f"{path}: no list of probes; write it like {PROBES}")
    for number, probe in enumerate(probes, 1):
        missing = sorted(_KEYS - set(probe))
        if missing:
            raise ValueError(f"{path}: probe {number}: {missing} missing; add them")
        if probe["check"] not in CHECKS:
            raise ValueError(f"{path}: probe {number}: check {probe['check']!r}: there are {', '.join(CHECKS)}")
    names = [probe["name"] for probe in probes]
    if len(set(names)) < len(names):
        raise ValueError(f"{path}: two probes have one name; there are {names}")
    return probes


def passes(answer: str, probe: dict[str, Any], row: dict[str, Any]) -> bool:
    """Tell whether an answer does what a probe asks for.

    Args:
        answer: the model's.
        probe: see `read_probes`.
        row: ``text`` and ``duration`` of the recording.
    """
    return CHECKS[probe["check"]](answer.strip(), probe.get("argument"), row)


def probe_report(answers: list[dict[str, Any]]) -> ProbeReport:
    """Return how many answers pass, of all and by category and probe.

    Args:
        answers: each with ``probe``, ``category`` and whether it ``passed``.
    """
    return ProbeReport(_figures(answers), _by(answers, "category"), _by(answers, "probe"))


def _figures(answers: list[dict[str, Any]]) -> ProbeFigures:
    passed = [float(answer["passed"]) for answer in answers]
    return ProbeFigures(len(answers), float(np.mean(passed)), mean_interval(passed))


def _by(answers: list[dict[str, Any]], key: str) -> dict[str, ProbeFigures]:
    values = dict.fromkeys(answer[key] for answer in answers)
    return {value: _figures([answer for answer in answers if answer[key] == value]) for value in values}

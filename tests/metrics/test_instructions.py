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

"""Scores of answers to instructions."""

import pytest

from nemo_speechllm.evaluation.plot import plot_instructions
from nemo_speechllm.evaluation.tables import format_instruction_table
from nemo_speechllm.files import as_object
from nemo_speechllm.metrics.instructions import (
    InstructionReport,
    instruction_report,
    instruction_rows,
    matches,
    nearest_skill,
    score,
    target_errors,
)

CANDIDATES = {
    "transcribe": "One two three four.",
    "reverse": "four. three two One",
    "upper_case": "ONE TWO THREE FOUR.",
    "first_half": "One two",
    "delete_word": "One two three four.",
    "ignore": "",
}


def item(skill: str = "reverse", **changes) -> dict:
    targets = [[skill, CANDIDATES[skill]]]
    defaults = {
        "targets": targets,
        "own_targets": targets,
        "candidates": CANDIDATES,
        "transcript": "One two three four.",
    }
    return defaults | changes


@pytest.mark.parametrize(
    "output, skill, found",
    [
        ("four three two one", "reverse", True),
        ("four, three, TWO one!", "reverse", True),
        ("four three two", "reverse", False),
        ("four ⁇ three ⁇ two ⁇ one", "reverse", False),
        ("ONE TWO THREE FOUR", "upper_case", True),
        ("one two three four", "upper_case", False),
        ("ONE TWO THREE FOUR", "transcribe", True),
        ("", "ignore", True),
        (" ", "ignore", True),
        ("::: ''", "ignore", False),  # where nothing is to be said, punctuation is something
        ("one", "ignore", False),
    ],
)
def test_an_answer_matches_but_for_case_and_punctuation(output, skill, found):
    assert matches(output, (skill, CANDIDATES[skill])) == found
    assert score(item(skill), output).exact == found


def test_errors_are_those_against_the_nearest_target():
    targets = [("first_half", "one two"), ("last_half", "three four five")]
    assert target_errors("three four six", targets).counts == (1, 0, 0, 3)
    assert target_errors("one two three four", [("upper_case", "ONE TWO THREE FOUR")]).rate == 1.0


@pytest.mark.parametrize(
    "output, asked, did",
    [
        ("one two three four", "reverse", "transcribe"),
        ("four tree two one", "transcribe", "reverse"),
        ("one two three four", "delete_word", "delete_word"),  # not to be told apart: the word was not said
        ("ONE TWO THREE FOUR", "transcribe", "upper_case"),
        ("one two", "transcribe", "first_half"),
        ("", "transcribe", "ignore"),
        ("I am a language model and cannot listen", "transcribe", "none"),
    ],
)
def test_what_was_done_instead(output, asked, did):
    assert nearest_skill(output, CANDIDATES, [asked]) == did


def test_an_answer_is_scored_against_what_was_said_and_against_what_was_heard():
    heard = item(own_targets=[["reverse", "four tree two one"]])
    misheard = score(heard, "four tree two one", wer_threshold=0.25)
    assert (misheard.exact, misheard.within_wer) == (False, True)
    assert (misheard.own_exact, misheard.own_within_wer) == (True, True)
    assert (misheard.errors, misheard.words, misheard.did) == (1, 4, "reverse")
    assert score(heard, "four tree two one", wer_threshold=0.2).within_wer is False
    assert score(heard, "one two three four").copying is False
    assert score(item("delete_word"), "something").copying is True


def answer(name: str, split: str | None, output: str, group: str = "skills") -> dict:
    what = {"group": group, "name": name, "split": split, "complexity": "word", "rule": True}
    return what | as_object(score(item("reverse"), output))


@pytest.fixture
def report() -> InstructionReport:
    right, wrong = "four three two one", "one two three four"
    return instruction_report(
        [
            *(answer("reverse", "seen", output) for output in (right, right, right, wrong)),
            *(answer("reverse", "unseen", output) for output in (right, wrong)),
            answer("odd", None, right, "adversarial"),
            answer("nested", None, wrong, "adversarial"),
            answer("reverse", "seen", wrong, "overlapped"),
        ]
    )


def test_figures_by_group(report):
    seen = report.skills["reverse"]["seen"]
    assert (seen.answers, seen.accuracy, seen.given_own_transcript.accuracy) == (4, 0.75, 0.75)
    assert seen.accuracy_ci[0] < 0.75 < seen.accuracy_ci[1]
    assert report.rule["unseen"].accuracy == report.complexity["word"]["unseen"].accuracy == 0.5
    assert report.written == {} and report.concatenated is None
    assert {name: figures.accuracy for name, figures in report.adversarial.items()} == {
        "odd": 1,
        "nested": 0,
        "all": 0.5,
    }
    assert report.overlapped.accuracy == 0
    assert report.confusion == {
        "seen": {"reverse": {"reverse": 3, "transcribe": 1}},
        "unseen": {"reverse": {"reverse": 1, "transcribe": 1}},
    }


def test_the_table_and_the_plot_show_every_group(report, tmp_path):
    names = {(row["group"], row["name"], row["split"]) for row in instruction_rows(report)}
    assert ("skills", "reverse", "unseen") in names and ("two speakers", "overlapped", "seen") in names
    table = format_instruction_table(report)
    assert len(table.splitlines()) == 2 + len(names) and "| reverse | seen | 4 | 75.0 (" in table
    plot_instructions(tmp_path / "a.png", report)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")

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

"""What passes a probe."""

import pytest

from nemo_speechllm.evaluation.tables import format_probe_table
from nemo_speechllm.metrics.probes import CHECKS, passes, probe_report, read_probes

ROW = {"text": "Please hold the line, thanks.", "duration": 2.0}  # 5 words, 2.5 a second


@pytest.mark.parametrize(
    "check, argument, good, bad",
    [
        ("upper", None, ["PLEASE HOLD 2!", "ПРИВЕТ"], ["Please", "123", ""]),
        ("lower", None, ["please hold."], ["Please hold.", "1", ""]),
        (
            "json",
            "text",
            ['{"text": "Hello"}', '```json\n{"text": 1}\n```', ' {"text": null}\n'],
            ['{"Text": "a"}', '{"text": 1, "b": 2}', 'Here: {"text": 1}', "[1]", "{'text': 1}", '"text"', ""],
        ),
        (
            "numbered_list",
            2,
            ["1. a\n2. b", "1) a\n\n 2) b\n"],
            ["1. a", "1. a\n3. b", "A list:\n1. a\n2. b", "1. a\n2. b\n3. c", "1.\n2. b", "10. a\n20. b"],
        ),
        ("one_word", None, ["Calm.", "happy", '"Low-key"', "спокойно", "शान्ति।"], ["very calm", "", "5", "..."]),
        ("digits", None, ["5", "12."], ["five", "5 words", "5.5", ""]),
        (
            "ends_with",
            "THE END",
            ["A voice. THE END", "THE END!", "so: “THE END”"],
            ["THE END is near", "The end", ""],
        ),
        ("quoted", None, ['"Hold."', "“Hold.”"], ['He says "Hold."', '"Hold', '""', ""]),
        (
            "words_per_second",
            0.1,
            ["5 words / 2 seconds = 2.5", "It is 2,4 words per second.", "2.75"],
            ["2.5 from 5 words in 2 seconds", "3", "two and a half", ""],
        ),
        ("number_of_words", None, ["Please, hold, the, line, thanks: 5", "5."], ["5 of 6", "five", "15", "5.5"]),
    ],
)
def test_checks(check, argument, good, bad):
    probe = {"check": check, "argument": argument}
    assert [answer for answer in good if not passes(answer, probe, ROW)] == []
    assert [answer for answer in bad if passes(answer, probe, ROW)] == []


def test_the_package_s_probes_use_every_check():
    probes = read_probes()
    assert {probe["check"] for probe in probes} == set(CHECKS)
    assert {probe["category"] for probe in probes} == {"format", "chain_of_thought"}
    assert not any(passes("", probe, ROW) for probe in probes)


@pytest.mark.parametrize(
    "text, message",
    [
        ("- {name: a, instruction: Why?}", "probes.yaml: not YAML: "),
        ("name: a", "probes.yaml: no list of probes"),
        ("- {name: a, check: upper}", r"probe 1: \['category', 'instruction'\] missing"),
        ("- {name: a, category: b, check: rhyme, instruction: c}", "probe 1: check 'rhyme': there are upper, "),
        (
            "[{name: a, category: b, check: upper, instruction: c}, "
            "{name: a, category: b, check: upper, instruction: d}]",
            "one name",
        ),
    ],
)
def test_refuses(tmp_path, text, message):
    (tmp_path / "probes.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_probes(tmp_path / "probes.yaml")


def test_shares_are_given_by_probe_and_category():
    answers = [
        {"probe": name, "category": "format", "passed": ok} for name, ok in (("a", True), ("a", False), ("b", True))
    ]
    report = probe_report(answers)
    assert report.probes["a"].passed == 0.5 and report.probes["b"].ci == [1.0, 1.0]
    assert report.categories["format"] == report.all and report.all.answers == 3
    assert format_probe_table(report).splitlines()[1].startswith("a") and "66.7" in format_probe_table(report)

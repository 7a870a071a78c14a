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

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nemo_speechllm.manifests.check import check_manifest
from nemo_speechllm.manifests.manifest import read_manifest, write_manifest

ROOT = Path(__file__).parents[2]
RATE = 16000


@pytest.fixture
def folder(tmp_path):
    """A folder with one second of noise: good.flac, and good.wav at 8 kHz."""
    noise = np.random.default_rng(0).normal(0, 0.1, RATE)
    soundfile.write(tmp_path / "good.flac", noise, RATE)
    soundfile.write(tmp_path / "slow.wav", noise[: RATE // 2], RATE // 2)
    return tmp_path


def row(**changes):
    good = {"audio_filepath": "good.flac", "duration": 1.0, "text": "hello"}
    return {key: value for key, value in {**good, **changes}.items() if value is not ...}


def issues_of(folder, *rows, **options):
    write_manifest(folder / "m.jsonl", rows)
    clean, issues = check_manifest(folder / "m.jsonl", **options)
    assert len(clean) + len({issue.line for issue in issues}) == len(rows)
    return issues


def test_good_rows_are_clean(folder):
    rows = [
        row(),
        row(duration=1.04),
        row(text="", answer="hallo", instruction="Translate to German."),
        row(text="", instruction="Write what is said."),
        row(answer="", instruction="Say nothing."),
        row(offset=0.25, duration=0.5, text=..., answer="yes", instruction="Is it?"),
        row(audio_filepath=str(folder / "slow.wav")),
    ]
    assert issues_of(folder, *rows) == []


@pytest.mark.parametrize(
    "changes, key, kind",
    [
        ({"audio_filepath": ...}, "audio_filepath", "missing key"),
        ({"duration": ...}, "duration", "missing key"),
        ({"audio_filepath": 3}, "audio_filepath", "wrong type"),
        ({"duration": "1.0"}, "duration", "wrong type"),
        ({"duration": None}, "duration", "missing key"),
        ({"offset": True}, "offset", "wrong type"),
        ({"text": None}, "text", "empty text"),
        ({"lang": 1}, "lang", "wrong type"),
        ({"audio_filepath": "none.wav"}, "audio_filepath", "missing file"),
        ({"audio_filepath": "."}, "audio_filepath", "missing file"),
        ({"duration": 0}, "duration", "zero length"),
        ({"duration": float("nan")}, "duration", "missing key"),
        ({"duration": 1.06}, "duration", "wrong duration"),
        ({"duration": 0.5}, "duration", "wrong duration"),
        ({"offset": 0.6, "duration": 0.5}, "duration", "wrong duration"),
        ({"offset": -0.5, "duration": 0.4}, "offset", "wrong duration"),
        ({"offset": 0.001, "duration": 1e-9}, "duration", "wrong duration"),
        ({"offset": 1 - 1e-9, "duration": 0.01}, "duration", "wrong duration"),
        ({"transcription": 5}, "transcription", "wrong type"),
        ({"transcription": ["a", 5]}, "transcription", "wrong type"),
        ({"text": "  "}, "text", "empty text"),
        ({"text": ...}, "text", "empty text"),
        ({"audio_filepath": "slow.wav"}, "audio_filepath", "wrong rate"),
    ],
)
def test_each_defect_is_reported_once(folder, changes, key, kind):
    (issue,) = issues_of(folder, row(offset=0, duration=0.3), row(**changes), sample_rate=RATE)[-1:]
    assert (issue.file, issue.line, issue.key, issue.kind) == (str(folder / "m.jsonl"), 2, key, kind)
    assert str(issue) == f"{folder / 'm.jsonl'}:2: {key}: {issue.problem} → {issue.remedy}"


def test_audio_is_decoded_to_its_end(folder):
    flac = (folder / "good.flac").read_bytes()
    (folder / "cut.flac").write_bytes(flac[: len(flac) // 2])
    (folder / "damaged.flac").write_bytes(flac[: len(flac) // 2] + bytes(len(flac) // 4) + flac[len(flac) * 3 // 4 :])
    (folder / "text.wav").write_text("this is not audio")
    (folder / "empty.wav").touch()
    soundfile.write(folder / "silent.wav", np.zeros(0), RATE)
    names = ["cut.flac", "damaged.flac", "text.wav", "empty.wav", "silent.wav"]
    issues = issues_of(folder, *(row(audio_filepath=name) for name in names), workers=2)
    assert [issue.line for issue in issues] == [1, 2, 3, 4, 5]
    assert [issue.kind for issue in issues] == ["unreadable audio"] * 4 + ["zero length"]


def test_a_cut_wav_is_shorter_than_its_header_says(folder):
    soundfile.write(folder / "cut.wav", np.zeros(RATE), RATE)
    content = (folder / "cut.wav").read_bytes()
    (folder / "cut.wav").write_bytes(content[: len(content) // 2])
    (issue,) = issues_of(folder, row(audio_filepath="cut.wav"))
    assert issue.kind == "unreadable audio" and "0.50 s of the 1.00 s" in issue.problem


def test_what_a_training_leaves_out_is_not_checked_but_not_all_may_be(folder):
    left_out = row(audio_filepath="none.wav", text=None, _skipme=True)
    assert issues_of(folder, row(), left_out, row(_skipme=1)) == []
    issues = issues_of(folder, left_out, left_out)
    assert len(issues) == 2 and "every line is left out by its `_skipme`" in str(issues[0])


@pytest.mark.parametrize("value", ["false", "no", 2, ["x"]])
def test_what_does_not_say_whether_a_line_is_left_out_is_named(folder, value):
    (issue,) = issues_of(folder, row(), row(offset=0.5, duration=0.5, _skipme=value))
    assert (issue.line, issue.key) == (2, "_skipme") and "expected true or false" in issue.problem


def test_duplicates_name_the_first_line(folder):
    rows = [row(), row(text="other"), row(audio_filepath="./good.flac", offset=0.0), row(offset=0.5, duration=0.5)]
    issues = issues_of(folder, *rows)
    assert [(issue.line, issue.kind) for issue in issues] == [(2, "duplicate"), (3, "duplicate")]
    assert all(issue.problem.endswith("line 1") for issue in issues)


def test_duration_limits(folder):
    rows = [row(offset=0, duration=0.1), row(offset=0, duration=0.9), row(offset=0, duration=0.5)]
    issues = issues_of(folder, *rows, min_duration=0.2, max_duration=0.8)
    assert [(issue.line, issue.kind) for issue in issues] == [(1, "too short"), (2, "too long")]


def run_check(*arguments, cwd):
    command = [sys.executable, str(ROOT / "examples/data/check_manifest.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)


def test_cli_reports_and_writes_the_clean_rest(folder):
    write_manifest(folder / "m.jsonl", [row(), row(audio_filepath="none.wav"), row(audio_filepath="slow.wav")])
    before = (folder / "m.jsonl").read_bytes()
    done = run_check("m.jsonl", "--sample-rate", RATE, "--write-clean", "sub/clean.jsonl", cwd=folder)
    assert done.returncode == 1
    assert "m.jsonl:2: audio_filepath: no such file: none.wav → " in done.stdout
    assert "m.jsonl:3: audio_filepath: sampled at 8000 Hz, expected 16000 Hz → " in done.stdout
    assert "1 clean lines, 2 issues" in done.stdout
    assert (folder / "m.jsonl").read_bytes() == before
    assert read_manifest(folder / "sub/clean.jsonl") == [row(audio_filepath="../good.flac")]
    again = run_check("sub/clean.jsonl", cwd=folder)
    assert again.returncode == 0, again.stdout + again.stderr


def test_cli_refuses_to_overwrite_or_to_read_nothing(folder):
    write_manifest(folder / "m.jsonl", [row()])
    overwrite = run_check("m.jsonl", "--write-clean", "./m.jsonl", cwd=folder)
    assert overwrite.returncode == 2 and "give another name" in overwrite.stderr
    missing = run_check("none.jsonl", cwd=folder)
    assert missing.returncode == 1 and "none.jsonl" in missing.stderr and "Traceback" not in missing.stderr


@pytest.mark.parametrize(
    "samples, kind",
    [
        (np.zeros((1600, 2), np.float32), "several channels"),
        (np.full(1600, np.nan, np.float32), "unreadable audio"),
    ],
)
def test_audio_that_training_would_refuse_is_an_issue(tmp_path, samples, kind):
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    manifest = tmp_path / "m.jsonl"
    manifest.write_text(json.dumps({"audio_filepath": "a.wav", "duration": 0.1, "text": "hello"}) + "\n")
    assert [issue.kind for issue in check_manifest(manifest)[1]] == [kind]


def test_several_channels_are_no_issue_where_one_is_selected(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros((1600, 2), np.float32), 16000)
    write_manifest(tmp_path / "m.jsonl", [row(audio_filepath="a.wav", duration=0.1)])
    assert not check_manifest(tmp_path / "m.jsonl", channel_selector=1)[1]
    for selector in (-1, "left", True, 1.0):
        (issue,) = check_manifest(tmp_path / "m.jsonl", channel_selector=selector)[1]
        assert f"channel_selector is {selector!r}" in issue.problem


@pytest.mark.parametrize(("channels", "selector"), [(1, 1), (1, 3), (2, 2)])
def test_a_channel_that_is_not_there_is_named_as_nemo_s_dataloader_would(tmp_path, channels, selector):
    soundfile.write(tmp_path / "a.wav", np.zeros((1600, channels), np.float32), 16000)
    write_manifest(tmp_path / "m.jsonl", [row(audio_filepath="a.wav", duration=0.1)])
    (issue,) = check_manifest(tmp_path / "m.jsonl", channel_selector=selector)[1]
    assert f"has {channels} channels, and channel_selector is {selector}" in issue.problem

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

"""``examples/report.py`` on an evaluation of a tiny SALM."""

import base64
import io
import json
import re
import sys

import pytest
import soundfile
from omegaconf import OmegaConf

from nemo_speechllm.command_line import exit_status


@pytest.fixture
def report(load_script, monkeypatch, capsys):
    """``report(folder)`` → status, error output."""

    def run(folder):
        monkeypatch.setattr(sys, "argv", ["report.py", str(folder)])
        return exit_status(load_script("report").main), capsys.readouterr().err

    return run


def test_the_page_of_an_evaluation_has_its_recordings(
    load_script, report, tiny_nemo, make_manifest, tmp_path, monkeypatch
):
    rows = [{"snr": 3}, {"offset": 0.25, "duration": 0.5}, {}]
    manifest, output = make_manifest((1.0, 1.0, 0.6), rows=rows), tmp_path / "evaluation"
    evaluate = load_script("evaluate")
    arguments = dict(model=tiny_nemo, manifest=str(manifest), output_dir=str(output), max_new_tokens=2)
    evaluate.main(OmegaConf.merge(OmegaConf.structured(evaluate.EvaluateArguments), arguments))
    assert list(json.loads((output / "metrics.json").read_text())["buckets"]["snr"]) == ["0–5 dB"]
    assert report(output)[0] == 0
    page = (output / "report.html").read_text()
    recordings = [base64.b64decode(found) for found in re.findall('data:audio/flac;base64,([^"]+)', page)]
    assert sorted(soundfile.info(io.BytesIO(found)).duration for found in recordings) == [0.5, 0.6, 1.0]

    (tmp_path / "manifest-2.flac").unlink()
    (output / "report.html").unlink()
    status, error = report(output)
    assert status == 1 and "manifest-2.flac does not exist" in error and not (output / "report.html").exists()


@pytest.mark.parametrize(("seconds", "kind", "suffix"), [(30, "audio/flac", "flac"), (31, "audio/mpeg", "mp3")])
def test_a_recording_of_any_usual_length_is_in_the_page(load_script, make_manifest, tmp_path, seconds, kind, suffix):
    """A server shows the page and nothing beside it: what is linked could not be heard there."""
    manifest = make_manifest((seconds,))
    prediction = {"audio_filepath": "manifest-0.flac", "duration": seconds}
    address = load_script("report").audio_address(prediction, str(manifest), tmp_path, None)
    head, _, content = address.partition(";base64,")
    (tmp_path / f"a.{suffix}").write_bytes(base64.b64decode(content))
    assert head == f"data:{kind}"
    assert soundfile.info(tmp_path / f"a.{suffix}").duration == pytest.approx(seconds, abs=0.1)
    assert len(address) < 2_000_000


def test_a_recording_of_hours_is_linked(load_script, tmp_path):
    prediction = {"audio_filepath": "a b.wav", "offset": 1.5, "duration": 2000.0}
    address = load_script("report").audio_address(prediction, str(tmp_path / "test.jsonl"), tmp_path / "out", None)
    assert address == "../a%20b.wav#t=1.5,2001.5"


@pytest.mark.parametrize("conditions", [["correct"], ["mixed_10", "correct", "empty"]])
def test_a_folder_above_evaluations_is_refused_with_their_place(report, tmp_path, conditions):
    """As evaluate_keywords.py, evaluate_robustness.py and sweep.py leave them."""
    for condition in conditions:
        (tmp_path / condition / "evaluation").mkdir(parents=True)
        (tmp_path / condition / "evaluation" / "metrics.json").touch()
    for folder in (tmp_path / conditions[-1], tmp_path):
        status, error = report(folder)
        assert status == 1 and f"{folder} holds no evaluation itself; give {folder}" in error
        assert error.rstrip().endswith(
            "/evaluation" if folder != tmp_path or not conditions[1:] else "2 others beneath it"
        )


def test_a_folder_that_is_not_there_is_called_so(report, tmp_path):
    status, error = report(tmp_path / "none")
    assert status == 1 and f"there is no folder {tmp_path}/none" in error


def test_an_evaluation_that_has_not_ended_is_refused(report, tmp_path):
    status, error = report(tmp_path)
    assert status == 1 and "metrics.json" in error and "finish the evaluation" in error

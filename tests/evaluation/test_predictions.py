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

"""The log of predictions that survives a kill."""

import json

import pytest

from nemo_speechllm.evaluation.predictions import PredictionLog


def test_takes_up_what_is_on_disk_and_drops_a_half_written_line(tmp_path):
    log = PredictionLog(tmp_path / "run", {"model": "x"})
    log.append([{"index": 0, "text": "a\u2028b"}, {"index": 1}])
    with open(log.path, "ab") as output:
        output.write(b'{"index": 2, "te')
    again = PredictionLog(tmp_path / "run", {"model": "x"})
    assert again.predictions == [{"index": 0, "text": "a\u2028b"}, {"index": 1}]
    again.append([{"index": 2}])
    assert [json.loads(line)["index"] for line in log.path.read_bytes().split(b"\n")[:-1]] == [0, 1, 2]


def test_refuses_predictions_of_another_run(tmp_path):
    PredictionLog(tmp_path, {"model": "z"})  # left nothing: its place is free
    PredictionLog(tmp_path, {"model": "x", "beam": 1}).append([{"index": 0}])
    with pytest.raises(ValueError, match="model was 'x', is 'y'.*another output_dir"):
        PredictionLog(tmp_path, {"model": "y", "beam": 1})


def test_refuses_predictions_of_unknown_origin_and_damaged_lines(tmp_path):
    (tmp_path / "predictions.jsonl").write_text("oops\n")
    with pytest.raises(ValueError, match="exists without run.json"):
        PredictionLog(tmp_path, {})
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ValueError, match="predictions.jsonl:1: not a prediction"):
        PredictionLog(tmp_path, {})

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

"""Figures of an evaluation."""

import json

import pytest

from nemo_speechllm.metrics.report import error_report, format_table, write_json


def prediction(text: str, pred_text: str, lang: str | None = "en", truncated: bool = False) -> dict:
    return {
        "text": text,
        "pred_text": pred_text,
        "lang": lang,
        "truncated": truncated,
        "duration": 2.0,
        "seconds": 0.5,
    }


def test_counts_rates_and_speed():
    report = error_report([prediction("a b c d", "a x c d e", truncated=True), prediction("One.", "one")])
    assert report["words"] == {"substitutions": 1, "deletions": 0, "insertions": 1, "reference": 5}
    assert report["wer"] == pytest.approx(2 / 5)
    assert (report["utterances"], report["truncated"], report["normalizer"]) == (2, 1, "english")
    assert (report["audio_seconds"], report["wall_seconds"], report["rtfx"]) == (4.0, 1.0, 4.0)
    assert "languages" not in report


def test_languages_are_told_apart():
    predictions = [prediction("a", "a"), prediction("x", "y", "fr"), prediction("un deux", "un", "fr")]
    report = error_report(predictions, "basic")
    assert report["languages"]["en"]["wer"] == 0 and report["languages"]["fr"]["wer"] == pytest.approx(2 / 3)
    assert [line.split()[0] for line in format_table(report).splitlines()[1:]] == ["en", "fr", "all"]


def test_no_reference_words_is_no_number():
    report = error_report([prediction("!", "word")])
    assert report["wer"] is None and json.dumps(report, allow_nan=False)
    assert "-" in format_table(report)


def test_write_json_replaces_the_whole_file(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1} and list(tmp_path.iterdir()) == [path]

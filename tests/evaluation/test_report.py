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

"""``metrics.json``: what is in it, and that it is read again as it was written."""

import json

import pytest

from nemo_speechllm.evaluation.report import evaluation_report, format_evaluation, read_report
from nemo_speechllm.files import write_json

RATES = ["wer", "wer_ci", "cer"]
COUNTS = ["substitutions", "deletions", "insertions", "reference"]
SHARE = ["count", "of", "rate", "ci"]
CONVENTIONS = ["normalizer", "normalizers", "unspaced"]
FIGURES = ["utterances", *RATES, "words", "characters", "truncated", "audio_seconds", "wall_seconds", "rtfx"]
LOSS = ["lm_loss", "lm_loss_ci"]
KEYWORDS = ["utterances", "hits", "misses", "false_alarms", "leaked", "precision", "precision_ci", "recall"]
KEYWORDS += ["recall_ci", "f", "f_ci", "leakage", "leakage_ci"]
TRANSLATION = ["utterances", "truncated", "signatures", "bleu", "bleu_ci", "chrf", "chrf_ci"]


def prediction(text: str, pred_text: str, lang: str | None = "en", **fields) -> dict:
    told = {"text": text, "pred_text": pred_text, "lang": lang, "duration": 1.5, "seconds": 0.5, "truncated": False}
    return told | fields


EVERYTHING = [
    prediction("press one", "press two", snr=3, keywords=["press"], lm_loss=0.5),
    prediction("un deux", "un", "fr", lm_loss=0.25),
    prediction("the house", "la casa", target_lang="es"),
]


@pytest.mark.parametrize("predictions", [EVERYTHING, EVERYTHING[:1], EVERYTHING[2:], []])
def test_what_is_written_is_read_again(predictions, tmp_path):
    report = evaluation_report(predictions, "basic")
    write_json(tmp_path / "metrics.json", {"report": report})
    written = json.loads((tmp_path / "metrics.json").read_text())["report"]
    (tmp_path / "metrics.json").write_text(json.dumps(written | {"model": "x.nemo", "manifest": "test.jsonl"}))
    again = read_report(tmp_path / "metrics.json")
    assert again == report and format_evaluation(again) == format_evaluation(report)


def test_the_keys_are_those_that_others_rely_on(tmp_path):
    write_json(tmp_path / "x.json", {"report": evaluation_report(EVERYTHING, "basic")})
    report = json.loads((tmp_path / "x.json").read_text())["report"]
    sections = ["languages", "macro", "buckets", "translation", "hallucination", "keywords"]
    assert list(report) == [*CONVENTIONS, *FIGURES, *LOSS, *sections]
    assert list(report["words"]) == list(report["characters"]) == COUNTS
    assert list(report["languages"]["fr"]) == [*FIGURES, *LOSS] and list(report["macro"]) == [*RATES, *LOSS]
    assert list(report["buckets"]["snr"]["0–5 dB"]) == [*CONVENTIONS, *FIGURES, *LOSS, "language"]
    assert list(report["translation"]["en>es"]) == TRANSLATION and list(report["keywords"]) == KEYWORDS
    *shares, speed = report["hallucination"].items()
    assert [name for name, _ in shares] == ["loops", "chatter", "too_long", "deleted", "silence_answered"]
    assert all(list(share) == SHARE for _, share in shares) and speed[0] == "characters_per_second"


def test_what_is_not_known_is_left_out_and_what_there_is_none_of_is_null(tmp_path):
    write_json(tmp_path / "x.json", {"report": evaluation_report([], "basic")})
    report = json.loads((tmp_path / "x.json").read_text())["report"]
    assert list(report) == [*CONVENTIONS, *FIGURES, "buckets", "hallucination"]
    assert report["wer"] is report["wer_ci"] is report["rtfx"] is report["hallucination"]["loops"]["rate"] is None


def test_a_file_of_another_script_is_refused(tmp_path):
    (tmp_path / "metrics.json").write_text('{"all": {"answers": 3}}')
    with pytest.raises(ValueError, match="is no metrics.json of evaluate.py: normalizer: Field required"):
        read_report(tmp_path / "metrics.json")

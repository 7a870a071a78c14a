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

from nemo_speechllm.evaluation.tables import format_conventions, format_table
from nemo_speechllm.files import as_object, write_csv, write_json
from nemo_speechllm.metrics.error_rate import ErrorCounts
from nemo_speechllm.metrics.report import bucketed_reports, error_report, figure_rows, report_rows


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
    assert report.words == ErrorCounts(substitutions=1, deletions=0, insertions=1, reference=5)
    assert report.wer == pytest.approx(2 / 5)
    assert (report.utterances, report.truncated, report.normalizer) == (2, 1, "auto")
    assert (report.audio_seconds, report.wall_seconds, report.rtfx) == (4.0, 1.0, 4.0)
    assert report.languages is None and "languages" not in as_object(report)


def test_languages_are_told_apart():
    predictions = [prediction("a", "a"), prediction("x", "y", "fr"), prediction("un deux", "un", "fr")]
    report = error_report(predictions, "basic")
    assert report.languages["en"].wer == 0 and report.languages["fr"].wer == pytest.approx(2 / 3)
    assert report.macro.wer == pytest.approx((0 + 2 / 3) / 2) and report.wer == pytest.approx(2 / 4)
    assert report.macro.cer == pytest.approx(sum(r.cer for r in report.languages.values()) / 2)
    assert [name for name, _ in report_rows(report)] == ["en", "fr", "macro", "all"]
    assert [line.split()[0] for line in format_table(report).splitlines()[1:]] == ["en", "fr", "macro", "all"]
    assert "33.33" in format_table(report).splitlines()[3]


def test_intervals_cover_what_they_should_and_are_the_same_each_time():
    predictions = [prediction("a b", "a b" if i % 2 else "a x", "en" if i % 3 else "fr") for i in range(60)]
    report = error_report(predictions)
    for figures in (report, report.macro, *report.languages.values()):
        low, high = figures.wer_ci
        assert 0.1 < low < figures.wer < high < 0.4
    low, high = report.wer_ci
    assert report.languages["fr"].wer_ci[1] - report.languages["fr"].wer_ci[0] > high - low
    assert error_report(predictions) == report


def test_losses_are_averaged_over_utterances_and_over_languages():
    known = [("en", 1.0), ("en", 3.0), ("fr", 5.0)]
    predictions = [prediction("a", "a", lang) | {"lm_loss": loss} for lang, loss in known]
    report = error_report(predictions, "basic")
    assert report.lm_loss == pytest.approx(3.0) and report.macro.lm_loss == pytest.approx((2.0 + 5.0) / 2)
    assert report.languages["en"].lm_loss_ci == [1.0, 3.0] and report.macro.lm_loss_ci == [3.0, 4.0]
    assert [row["lm_loss"] for row in figure_rows(report)] == [2.0, 5.0, 3.5, 3.0]
    without = figure_rows(error_report([prediction("a", "a")]))
    assert without[0]["lm_loss"] is None and without[0]["lm_loss_low"] is None


def test_a_language_without_words_does_not_enter_the_macro_average():
    report = error_report([prediction("a b", "a x"), prediction("?", "y", "fr")], "basic")
    assert report.languages["fr"].wer is None and report.languages["fr"].wer_ci is None
    assert report.macro.wer == 0.5 and json.dumps(report, allow_nan=False, default=as_object)


def test_no_reference_words_is_no_number():
    report = error_report([prediction("!", "word")])
    assert report.wer is None and report.wer_ci is None and json.dumps(report, allow_nan=False, default=as_object)
    assert "-" in format_table(report)


def test_nothing_to_report_on_is_no_number():
    report = error_report([])
    assert (report.utterances, report.wer, report.wer_ci, report.rtfx) == (0, None, None, None)
    assert bucketed_reports([]) == {}


def test_groups_of_duration_and_noise_hold_every_utterance_that_has_one():
    seconds, ratios = (1.9, 2.0, 4.0, 40.0), (None, -3.0, 20.0, 12.5)
    predictions = [prediction("a b", "a") | {"duration": d, "snr": r} for d, r in zip(seconds, ratios, strict=True)]
    reports = bucketed_reports(predictions)
    assert {name: report.utterances for name, report in reports["duration"].items()} == {
        "< 2 s": 1,
        "2–5 s": 2,
        "≥ 30 s": 1,
    }
    assert list(reports["snr"]) == ["< 0 dB", "10–15 dB", "≥ 20 dB"]
    assert reports["snr"]["< 0 dB"].wer == 0.5
    assert list(bucketed_reports([prediction("a", "a")])) == ["duration"]


def test_write_json_replaces_the_whole_file(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1} and list(tmp_path.iterdir()) == [path]


def test_write_csv_quotes_what_needs_it(tmp_path):
    write_csv(tmp_path / "x.csv", [{"row": "a,b", "wer": 0.5}, {"row": "c", "wer": None}])
    assert (tmp_path / "x.csv").read_text() == 'row,wer\n"a,b",0.5\nc,\n'


def test_each_language_is_counted_by_its_own_rules_and_these_are_told():
    predictions = [
        prediction("I'm fine, um, Tom", "i am fine tom", "en-GB"),
        prediction("um acht", "acht", "de"),
        prediction("今日は", "今日", "ja"),
        prediction("twenty one", "21", None),
        prediction("да", "да", None),
    ]
    report = error_report(predictions)
    assert {name: figures.words.reference for name, figures in report.languages.items()} == {
        "None": 2,
        "de": 2,
        "en-GB": 4,
        "ja": 3,
    }
    assert {name: figures.wer for name, figures in report.languages.items()} == {
        "None": 0,
        "de": 1 / 2,
        "en-GB": 0,
        "ja": pytest.approx(1 / 3),
    }
    assert report.normalizers == {"basic": ["None", "de", "ja"], "english": ["None", "en-GB"]}
    told = format_conventions(report)
    assert "basic for lines without lang, de, ja; english for lines without lang, en-GB" in told
    assert "english where these are in Latin letters" in told and "words of ja: each character" in told
    told = format_conventions(error_report(predictions[:2], "english"))
    assert told == "text normalizer: english for de, en-GB"

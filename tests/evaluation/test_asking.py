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

"""What scripts do that ask a model about recordings: each once, in order, and again from where they stopped."""

import json

import pytest

from nemo_speechllm.data.conversation import Audio
from nemo_speechllm.evaluation.asking import AskingArguments, ask, asking_record, question_about, write_report
from nemo_speechllm.evaluation.predictions import PredictionLog
from nemo_speechllm.metrics.probes import ProbeFigures
from nemo_speechllm.models import load_model
from nemo_speechllm.models.answers import Answer


@pytest.fixture
def model(tiny_nemo):
    return load_model(tiny_nemo)


@pytest.fixture
def rows(make_manifest, tmp_path) -> list[dict]:
    make_manifest((0.5, 0.7, 0.6))
    return [
        {"audio_filepath": str(tmp_path / f"manifest-{i}.flac"), "instruction": f"Question {i}?", "lang": "en"}
        for i in range(3)
    ]


def arguments(tmp_path, **changes) -> AskingArguments:
    return AskingArguments("m.nemo", "m.jsonl", str(tmp_path / "out"), max_new_tokens=3, **changes)


def test_a_row_is_a_question_about_its_recordings(model, rows):
    audios = [Audio.from_file(row["audio_filepath"]) for row in rows[:2]]
    conversation = question_about(audios, rows[0] | {"text": "not to be read", "transcription": None}, model)
    assert conversation.audios == audios and conversation.answer is None
    assert conversation.rendered("")[0].text == "Question 0?"
    assert not {"text", "transcription"} & set(conversation.metadata)


def test_what_was_answered_is_not_asked_again_and_answers_are_the_same(model, rows, tmp_path):
    cfg, asked = arguments(tmp_path, batch_size=2), []

    def question(row):
        asked.append(row["instruction"])
        return question_about([Audio.from_file(row["audio_filepath"])], row, model)

    def prediction(row, answer):
        return {"instruction": row["instruction"], "pred_text": answer.text}

    record = asking_record(cfg, model, "digest")
    log = PredictionLog(cfg.output_dir, record)
    ask(cfg, model, rows[:1], question, prediction, log)
    log = PredictionLog(cfg.output_dir, record)
    ask(cfg, model, rows, question, prediction, log)
    assert asked == [row["instruction"] for row in rows] == [line["instruction"] for line in log.predictions]
    alone = [model.generate([question(row)], max_new_tokens=3)[0].text for row in rows]
    assert [line["pred_text"] for line in log.predictions] == alone


@pytest.mark.parametrize("limit", [3, None])
def test_answers_that_were_cut_are_marked_and_counted_in_a_warning(
    model, rows, tmp_path, monkeypatch, nemo_log, limit
):
    cuts = iter([True, False, True])
    monkeypatch.setattr(model, "generate", lambda *_: [Answer("Based on the", [5], next(cuts))])
    cfg = AskingArguments("m.nemo", "m.jsonl", str(tmp_path / "out"), batch_size=1, max_new_tokens=limit)
    log = PredictionLog(cfg.output_dir, asking_record(cfg, model, "digest"))
    log.append([{"instruction": "of a log of before"}])
    ask(cfg, model, [{}, *rows], lambda row: row, lambda row, answer: {"pred_text": answer.text}, log)
    assert [line.get("truncated") for line in log.predictions] == [None, True, False, True]
    shown = limit or model.cfg.generation.max_new_tokens
    assert f"2 of 4 answers were cut at max_new_tokens={shown}" in nemo_log.text


def test_another_question_is_another_record(model, tmp_path):
    records = [
        asking_record(cfg, model, digest)
        for cfg, digest in (
            (arguments(tmp_path), "one"),
            (arguments(tmp_path), "other"),
            (arguments(tmp_path, channel_selector=1), "one"),
            (arguments(tmp_path, beam_size=2), "one"),
        )
    ]
    assert all(one != other for i, one in enumerate(records) for other in records[:i])
    assert asking_record(arguments(tmp_path, batch_size=1), model, "one") == records[0]


def test_a_report_is_a_file_of_figures_and_a_table_on_stdout(tmp_path, capsys):
    cfg = arguments(tmp_path)
    (tmp_path / "out").mkdir()
    write_report(cfg, ProbeFigures(2, 0.5, None), "passed\n50 %")
    figures = json.loads((tmp_path / "out/metrics.json").read_text())
    assert figures == {"model": "m.nemo", "manifest": "m.jsonl", "answers": 2, "passed": 0.5, "ci": None}
    assert (tmp_path / "out/results.md").read_text() == "```\npassed\n50 %\n```\n"
    assert capsys.readouterr().out == "passed\n50 %\n"

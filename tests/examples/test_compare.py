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

"""``examples/compare.py`` on two files of predictions."""

import json
import re
import sys

import pytest

from nemo_speechllm.command_line import exit_status


@pytest.fixture
def compare(load_script, monkeypatch, tmp_path, capsys):
    """``compare(a, b)`` with rows of (errors, words), or of a translation's keys → status, output, error output."""

    def line(index: int, row: tuple[int, int] | dict) -> str:
        figures = row if isinstance(row, dict) else {"errors": row[0], "words": row[1]}
        return json.dumps({"index": index, "text": "x"} | figures)

    def run(*tables: list[tuple[int, int] | dict]):
        paths = [tmp_path / f"{name}.jsonl" for name in "ab"]
        for path, table in zip(paths, tables, strict=False):
            lines = [line(index, row) for index, row in enumerate(table)]
            path.write_text("".join(f"{line}\n" for line in lines))
        monkeypatch.setattr(sys, "argv", ["compare.py", *map(str, paths)])
        status = exit_status(load_script("compare").main)
        return status, *capsys.readouterr()

    return run


def test_prints_both_rates_their_difference_and_p(compare):
    status, out, _ = compare([(2, 10)] * 30 + [(4, 10)] * 30, [(1, 10)] * 60)
    assert status == 0
    lines = out.splitlines()
    assert lines[0].split()[0] == "30.00" and lines[1].split()[0] == "10.00"
    assert lines[2].split()[0] == "-20.00" and "p = 0.0010" in lines[2] and "60 utterances" in lines[2]


def test_translations_are_compared_by_direction_and_apart_from_transcripts(compare):
    def translations(texts: list[str], lang: str) -> list[dict]:
        return [{"text": "la casa es grande", "pred_text": t, "lang": lang, "target_lang": "es"} for t in texts]

    good, poor = ["la casa es grande"] * 20, ["la casa es grande"] * 10 + ["una puerta"] * 10
    status, out, _ = compare(
        [(1, 2), *translations(poor, "en"), *translations(good, "fr")],
        [(0, 2), *translations(good, "en"), *translations(good, "fr")],
    )
    assert status == 0
    lines = out.splitlines()
    assert "-50.00 points" in lines[2] and "1 utterances" in lines[2]
    assert [line.split()[:3] for line in lines[4::3]] == [
        [score, name, direction]
        for direction in ("en>es", "fr>es")
        for score, name in (("100.00", "BLEU"), ("100.00", "chrF"))
    ]
    assert "p = 0.0" in lines[5] and "20 utterances, nrefs:1" in lines[5] and "p = 1.0000" in lines[11]
    status, out, _ = compare(translations(poor, "en"), translations(good, "en"))
    assert status == 0 and "WER" not in out


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([(1, 2)], [(1, 2), (0, 3)], "1 utterances.*2, 1 of them in both"),
        ([(1, 2)], [(1, 3)], "utterance 0 has words 2 in .*a.jsonl and 3 in .*same normalizer"),
        ([(1, 0)], [(1, 0)], "no reference word"),
        ([(1, 2)], [{"pred_text": "x", "lang": "en", "target_lang": "es"}], "utterance 0 has words 2 in .* and None"),
    ],
)
def test_refuses_what_cannot_be_compared(compare, a, b, message):
    status, _, error = compare(a, b)
    assert status == 1
    assert re.search(message, error)


def test_refuses_what_was_counted_by_different_rules(load_script, tmp_path):
    compare = load_script("compare")
    row = {"index": 0, "errors": 0, "words": 1, "text": "x"}
    for name, line in {
        "english": row | {"normalizer": "english"},
        "basic": row | {"normalizer": "basic"},
        "old": row,
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "predictions.jsonl").write_text(json.dumps(line) + "\n")
    (tmp_path / "old" / "run.json").write_text('{"normalizer": "english"}')
    paths = {name: tmp_path / name / "predictions.jsonl" for name in ("english", "basic", "old")}
    tables = {name: compare.read_predictions(path) for name, path in paths.items()}
    compare.check_same_utterances([paths["english"], paths["old"]], tables["english"], tables["old"])
    for other in ("english", "old"):
        with pytest.raises(ValueError, match="has normalizer .*same normalizer"):
            compare.check_same_utterances([paths[other], paths["basic"]], tables[other], tables["basic"])


def test_losses_are_compared_where_both_have_them(load_script, monkeypatch, tmp_path, capsys):
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for path, loss in zip(paths, (2.0, 1.5), strict=False):
        rows = [{"index": i, "errors": 1, "words": 2, "text": "x", "lm_loss": loss + 0.01 * i} for i in range(40)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(sys, "argv", ["compare.py", *map(str, paths)])
    assert exit_status(load_script("compare").main) == 0
    assert "-0.500 nats per token (2.195, 1.695), 95 % interval -0.500 to -0.500" in capsys.readouterr().out


def test_names_the_line_that_is_no_prediction(load_script, tmp_path):
    (tmp_path / "x.jsonl").write_text('{"index": 0, "errors": 1, "words": 1, "text": "x"}\n{"index": 1}\n')
    with pytest.raises(ValueError, match="x.jsonl:2: not a prediction.*errors"):
        load_script("compare").read_predictions(tmp_path / "x.jsonl")

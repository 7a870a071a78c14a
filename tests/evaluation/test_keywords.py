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

"""Lists of keywords and their evaluation, on a tiny SALM."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from nemo_speechllm.evaluation.keywords import EvaluateKeywordsArguments, evaluate_keywords
from nemo_speechllm.manifests.manifest import read_manifest

TEXTS = ("call ada now", "please hold", "boston is near", "call me")


def run(**arguments) -> None:
    evaluate_keywords(OmegaConf.merge(OmegaConf.structured(EvaluateKeywordsArguments), arguments))


@pytest.fixture
def data(make_manifest, tmp_path):
    """Manifest, training manifest and vocabulary; rare are ada, boston and near."""
    rows = [{"text": text} for text in TEXTS]
    train = [{"text": "call now please"}, {"text": "hold me"}, {"text": "is"}, {"text": "now"}]
    (tmp_path / "words.txt").write_text("".join(f"word{i}\n" for i in range(20)))
    return {
        "manifest": str(make_manifest(rows=rows)),
        "train_manifest": str(make_manifest(name="train.jsonl", rows=train)),
        "vocabulary": str(tmp_path / "words.txt"),
        "max_count": 0,
    }


def test_conditions_have_their_lists_and_a_table(tiny_nemo, data, tmp_path):
    output = tmp_path / "out"
    arguments = data | dict(model=tiny_nemo, output_dir=str(output), sizes=[3, 6], evaluate=["max_new_tokens=2"])
    run(**arguments)
    lists = {
        path.name: [row["keywords"] for row in read_manifest(path / "manifest.jsonl", locate_audio=True)]
        for path in output.iterdir()
        if path.is_dir()
    }
    own = [{"ada"}, set(), {"boston", "near"}, set()]
    assert [set(words) for words in lists["correct"]] == own and lists["empty"] == [[]] * 4
    for size in (3, 6):
        for mixed, wrong, said in zip(lists[f"mixed_{size}"], lists[f"distractors_{size}"], own, strict=False):
            assert len(mixed) == len(set(mixed)) == len(wrong) == size
            assert said <= set(mixed) and not said & set(wrong)
    assert all(set(a) <= set(b) for a, b in zip(lists["distractors_3"], lists["distractors_6"], strict=False))

    results = json.loads((output / "results.json").read_text())["conditions"]
    names = [("empty", None), ("correct", None), ("distractors", 3), ("distractors", 6), ("mixed", 3), ("mixed", 6)]
    assert [(row["condition"], row["size"]) for row in results] == names
    assert {row["hits"] + row["misses"] for row in results} == {3}
    assert results[0]["p"] is None and results[0]["leakage"] is None and 0 < results[1]["p"] <= 1
    assert len((output / "results.md").read_text().splitlines()) == 2 + len(names)
    assert len((output / "results.csv").read_text().splitlines()) == 1 + len(names)
    assert (output / "results.png").read_bytes().startswith(b"\x89PNG")

    # killed in the last condition: what is there stays
    last = output / "mixed_6" / "evaluation"
    whole = (last / "predictions.jsonl").read_bytes()
    (last / "predictions.jsonl").write_bytes(whole.splitlines(keepends=True)[0])
    before = Path(output / "empty/evaluation/predictions.jsonl").stat().st_mtime_ns
    run(**arguments)
    assert len((last / "predictions.jsonl").read_bytes().splitlines()) == 4
    assert Path(output / "empty/evaluation/predictions.jsonl").stat().st_mtime_ns == before
    assert json.loads((output / "results.json").read_text())["conditions"][-1]["misses"] == results[-1]["misses"]
    with pytest.raises(ValueError, match="lists made of something else.*seed was 0, is 1"):
        run(**arguments | {"seed": 1})


@pytest.mark.parametrize("sizes", [[0], [5, 0], [-1, 5]])
def test_a_list_of_no_words_is_refused_with_the_condition_that_has_none(data, tmp_path, sizes):
    with pytest.raises(ValueError, match=r"sizes=.* 1 word or more; .* `empty`"):
        run(**data, model="gone.nemo", output_dir=str(tmp_path / "out"), sizes=sizes)
    assert not (tmp_path / "out").exists()


def test_keywords_of_translations_are_words_of_the_answer(tiny_nemo, data, make_manifest, tmp_path):
    rows = [
        {"text": text, "answer": answer, "target_lang": "es"} for text, answer in (("call", "llame"), ("is", "es"))
    ]
    manifest, output = str(make_manifest((0.4, 0.5), "es.jsonl", rows)), tmp_path / "out"
    run(
        **data | {"manifest": manifest},
        model=tiny_nemo,
        output_dir=str(output),
        sizes=[3],
        evaluate=["max_new_tokens=2"],
    )
    results = json.loads((output / "results.json").read_text())["conditions"]
    assert {row["misses"] for row in results} == {1} and {(row["wer"], row["p"]) for row in results} == {(None, None)}


def test_too_few_words_are_refused(data, tmp_path):
    arguments = data | dict(model="unread.nemo", output_dir=str(tmp_path / "out"))
    with pytest.raises(ValueError, match="distractors_50: 50 distractors are wanted and there are 2[0-9] rare words"):
        run(**arguments, sizes=[50])
    with pytest.raises(ValueError, match="no word of 9 letters or more"):
        run(**arguments, min_letters=9)


def test_a_language_without_spaces_is_refused(data, make_manifest, tmp_path):
    manifest = str(make_manifest((0.4,), "zh.jsonl", text="你好世界", lang="zh-CN"))
    with pytest.raises(ValueError, match="zh.jsonl:1: no words to draw keywords from"):
        run(**data | {"manifest": manifest}, model="unread.nemo", output_dir=str(tmp_path / "out"))

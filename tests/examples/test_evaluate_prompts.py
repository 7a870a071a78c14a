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

"""``examples/evaluate_prompts.py`` on a tiny SALM."""

import csv
import json

import pytest
from omegaconf import OmegaConf

from nemo_speechllm.manifests.manifest import read_manifest


@pytest.fixture
def run(run_with_evaluate):
    return run_with_evaluate("evaluate_prompts", "EvaluatePromptsArguments")


def test_prompts_vary_and_nothing_else_does(run, tiny_nemo, make_manifest, tmp_path):
    words = ["ada", "boston", "near", "line"]
    manifest, output = make_manifest((0.4, 0.5), rows=[{"keywords": words}, {}]), tmp_path / "prompts"
    arguments = dict(model=tiny_nemo, manifest=str(manifest), output_dir=str(output), evaluate=["max_new_tokens=2"])
    arguments |= dict(instructions=["Say.", "Write."], orders=2, lengths=[1])
    run(**arguments)
    lists = {
        path.name: read_manifest(path / "manifest.jsonl", locate_audio=True)
        for path in output.iterdir()
        if path.is_dir()
    }
    assert sorted(lists) == ["000_as_is", "001_wording", "002_wording", "003_order", "004_order", "005_length"]
    assert [row.get("instruction") for row in lists["002_wording"]] == ["Write."] * 2
    orders = [lists[f"{number:03d}_order"][0]["keywords"] for number in (3, 4)]
    assert orders[0] != orders[1] and all(sorted(order) == sorted(words) for order in orders)
    assert [row["keywords"] for row in lists["005_length"]] == [["ada"], []]
    assert {row["text"] for rows in lists.values() for row in rows} == {row["text"] for row in read_manifest(manifest)}

    spread = json.loads((output / "results.json").read_text())
    assert {kind: figures["conditions"] for kind, figures in spread.items()} == {
        "as_is": 1,
        "wording": 2,
        "order": 2,
        "length": 1,
    }
    with open(output / "results.csv") as lines:
        rates = [float(row["wer"]) for row in csv.DictReader(lines) if row["kind"] == "wording"]
    assert (spread["wording"]["lowest"], spread["wording"]["highest"]) == (min(rates), max(rates))
    with pytest.raises(ValueError, match="prompts made of something else.*seed was 0, is 1"):
        run(**arguments | {"seed": 1})


def test_without_keywords_only_the_wording_varies(load_script):
    script = load_script("evaluate_prompts")
    conditions = script.conditions_of(OmegaConf.structured(script.EvaluatePromptsArguments), has_keywords=False)
    assert [condition.kind for condition in conditions] == ["as_is"] + ["wording"] * 20


def test_spread_of_a_case_by_hand(load_script):
    spread = load_script("evaluate_prompts").spread_of([0.1, 0.2, 0.3])
    assert spread == pytest.approx({"conditions": 3, "lowest": 0.1, "mean": 0.2, "highest": 0.3, "deviation": 0.1})

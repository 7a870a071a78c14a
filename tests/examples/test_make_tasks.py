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

"""``examples/data/make_tasks.py`` on labelled manifests."""

import sys
from collections import Counter
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from nemo_speechllm.command_line import exit_status
from nemo_speechllm.manifests.manifest import read_manifest

CONF = Path(__file__).parents[2] / "conf" / "desta2"
ROWS = [
    {"gender": "male", "noise": "none"},
    {"gender": "male", "emotion": "anger"},
    {"gender": "female"},
    {"gender": "?"},
]


@pytest.fixture
def make_tasks(load_script, monkeypatch, tmp_path):
    """``make_tasks(*manifests and arguments)`` → status; it writes ``tmp_path / "tasks" / "tasks.jsonl"``."""

    def run(*arguments) -> int:
        out = str(tmp_path / "tasks" / "tasks.jsonl")
        monkeypatch.setattr(sys, "argv", ["make_tasks.py", *map(str, arguments), "--out", out])
        return exit_status(load_script("data/make_tasks").main)

    return run


def test_each_labelled_line_is_asked_about_and_evaluate_tasks_reads_it(
    make_tasks, make_manifest, load_script, tmp_path
):
    manifest = make_manifest((0.3,) * 4, rows=ROWS, text="Hello.")
    assert make_tasks(manifest) == 0
    asked = [item.row for item in load_script("evaluate_tasks").read_tasks(str(tmp_path / "tasks" / "tasks.jsonl"))]
    gender = [row for row in asked if row["task"] == "gender"]
    assert [row["label"] for row in gender] == ["male", "male", "female"]
    assert all(row["labels"] == ["male", "female"] and row["category"] == "paralinguistic" for row in gender)
    assert Counter(row["task"] for row in asked) == {"gender": 3, "emotion": 1, "noise": 1, "language": 4}
    assert all(row["text"] for row in asked if "text" in row) and not any("gender" in row for row in asked)


def test_of_more_lines_than_the_limit_each_label_has_its_share(make_tasks, make_manifest, tmp_path):
    rows = [{"gender": "male"}] * 6 + [{"gender": "female"}] * 2
    manifest = make_manifest((0.3,) * 8, rows=rows)
    assert make_tasks(manifest, "--only", "gender", "--limit", 4) == 0
    asked = read_manifest(tmp_path / "tasks" / "tasks.jsonl", locate_audio=True)
    assert Counter(row["label"] for row in asked) == {"male": 2, "female": 2}


def test_the_recipes_questions_are_in_no_recipe_of_descriptions(load_script):
    tasks = load_script("data/make_tasks").TASKS
    asked = {question for spec in OmegaConf.load(tasks).values() for question in spec.instructions}
    recipes = [OmegaConf.load(path) for path in CONF.glob("build*.yaml")]
    trained = {question for recipe in recipes for question in recipe.get("questions", [])}
    assert trained and not asked & trained


def test_refuses(make_tasks, make_manifest, tmp_path, capsys):
    manifest = make_manifest((0.3,), text="Hello.", lang=None, gender="unicorn")
    assert make_tasks(manifest) == 1
    assert "no line has a label" in (error := capsys.readouterr().err) and "'gender': ['unicorn']" in error
    assert make_tasks(manifest, "--only", "colour") == 1
    assert "there is no task ['colour']; there are ['emotion', 'gender'" in capsys.readouterr().err
    tasks = tmp_path / "own.yaml"
    OmegaConf.save({"mood": {"key": "emotion", "labels": {}}}, tasks)
    assert make_tasks(manifest, "--tasks", tasks) == 1
    assert "mood: ['category', 'instructions'] must be given" in capsys.readouterr().err
    assert not (tmp_path / "tasks").exists()

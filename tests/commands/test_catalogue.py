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

"""What is known of every command from its source alone."""

import subprocess
import sys
from pathlib import Path

import pytest

from nemo_speechllm.commands.catalogue import EXAMPLES, RECIPES, commands, recipes

ROOT = Path(__file__).resolve().parents[2]


def test_every_script_is_a_command_and_those_of_the_main_job_come_first():
    scripts = {path for folder in ("", "data") for path in (ROOT / "examples" / folder).glob("*.py")}
    assert {command.script for command in commands().values()} == scripts - {ROOT / "examples/demo.py"}
    assert list(commands())[:3] == ["train", "transcribe", "evaluate"]
    assert commands()["data check-manifest"].script == EXAMPLES / "data/check_manifest.py"


@pytest.mark.parametrize("name", commands())
def test_every_command_says_what_it_does_with_an_example_as_it_is_typed(name):
    command = commands()[name]
    assert command.summary and "examples/" not in command.description
    assert f"    nemo-speechllm {name} " in command.description


def test_settings_come_with_those_of_the_base_and_their_meaning():
    settings = commands()["evaluate"].settings
    assert settings[0] == "model: str = MISSING" and any(line.startswith("normalizer: ") for line in settings)
    assert "decoder: str | None = None  # llm, or ctc: the model's CTC head" in settings


def test_keys_are_those_of_a_recipe_or_the_options():
    train = commands()["train"]
    assert train.recipe == "salm/whisper_smollm2" and "model.train_ds.manifest_filepath" in train.keys()
    assert "model.target" in train.keys("instruct_las/digits")
    assert "--write-clean" in commands()["data check-manifest"].keys()
    assert not commands()["data check-manifest"].uses_hydra


def test_recipes_are_named_as_hydra_names_them():
    assert "salm/whisper_smollm2" in recipes()
    assert all((RECIPES / f"{name}.yaml").is_file() for name in recipes())
    assert (RECIPES / "trainer/ddp.yaml").is_file() and "trainer/ddp" not in recipes()  # a part of one


def test_nothing_heavy_is_imported():
    code = "import sys, nemo_speechllm.__main__ as m, nemo_speechllm.commands.help as h; h.overview()\n"
    code += "print({'torch', 'nemo', 'lightning'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"

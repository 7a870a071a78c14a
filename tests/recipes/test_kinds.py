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

"""What stands in the place of a recipe's number, or of its true or false."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from nemo_speechllm.recipes import SettingError
from nemo_speechllm.recipes.kinds import FREE, check_kinds

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
# a script that is as short as it can be: NeMo's imports would take most of a test's time
SCRIPT = """
import hydra, sys
from nemo_speechllm.command_line import run_command
from nemo_speechllm.recipes.kinds import check_kinds, written_recipe

@hydra.main(config_path=sys.argv.pop(1), config_name="salm/whisper_smollm2", version_base=None)
def main(cfg):
    check_kinds(written_recipe(), cfg)

run_command(main)
"""


def recipe(*changes: str) -> DictConfig:
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        return compose("salm/whisper_smollm2", list(changes))


def numbers_of(section: dict, above: str = "") -> dict[str, bool | int | float]:
    found: dict[str, bool | int | float] = {}
    for name, value in section.items():
        if isinstance(value, dict):
            found |= numbers_of(value, f"{above}{name}.")
        elif isinstance(value, bool | int | float):
            found[f"{above}{name}"] = value
    return found


def test_no_number_and_no_flag_of_a_recipe_can_be_a_word(written):
    numbers = numbers_of(OmegaConf.to_container(written))
    assert {"trainer.max_steps", "model.optim.lr", "model.train_ds.batch_size", "model.train_ds.shuffle"} <= set(
        numbers
    )
    for key, default in numbers.items():
        changed = written.copy()
        OmegaConf.update(changed, key, "eight")
        if key.rpartition(".")[2] in FREE:
            check_kinds(written, changed)
            continue
        wanted = "true or false" if isinstance(default, bool) else "a number"
        with pytest.raises(SettingError, match=f"^{key} is 'eight'; it must be {wanted}, as the recipe's"):
            check_kinds(written, changed)


@pytest.fixture(scope="module")
def written() -> DictConfig:
    return recipe()


@pytest.mark.parametrize(
    "change",
    [
        *("trainer.max_steps=7", "trainer.limit_val_batches=2", "trainer.val_check_interval=0.5", "model.optim.lr=1"),
        *("model.train_ds.shuffle=0", "model.train_ds.max_duration=null", "model.perception.adapter=null"),
        *("trainer.devices=auto", "trainer.devices=[0,1]", "model.train_ds.seed=trng", "trainer.max_steps=${seed}"),
        *("trainer.max_steps=???", "model.optim=null", "+trainer.fast_dev_run=true", "trainer=ddp"),
    ],
)
def test_what_may_stand_there_is_taken(written, change):
    check_kinds(written, recipe(change))


@pytest.mark.parametrize("change", ["trainer.max_steps=true", "model.optim.lr=[1]", "model.train_ds.shuffle=2"])
def test_what_is_of_another_kind_is_not(written, change):
    with pytest.raises(SettingError, match="it must be"):
        check_kinds(written, recipe(change))


@pytest.mark.parametrize(
    ("changes", "last_line"),
    [
        (["trainer.max_steps=5", "model.optim.lr=1e-3", "+init_from_nemo_model=x.nemo"], ""),
        (
            ["trainer.max_steps=abc"],
            "error: trainer.max_steps is 'abc'; it must be a number, as the recipe's 2000, or null",
        ),
        (
            ["trainer=ddp", "trainer.num_nodes=two"],
            "error: trainer.num_nodes is 'two'; it must be a number, as the recipe's 1, or null",
        ),
    ],
)
def test_a_script_knows_its_recipe_without_the_changes(changes, last_line, tmp_path):
    command = [sys.executable, "-c", SCRIPT, str(ROOT / "conf"), "hydra.run.dir=.", "hydra.output_subdir=null"]
    done = subprocess.run([*command, *changes], cwd=tmp_path, capture_output=True, text=True, env=ENVIRONMENT)
    assert (done.returncode, done.stderr.rstrip().rpartition("\n")[2]) == (int(bool(last_line)), last_line)

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

"""What a training refuses before it begins, and recipes with changes."""

import json
from pathlib import Path

import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf

from nemo_speechllm.recipes import SettingError
from nemo_speechllm.training.train import check_top_level, model_class, read_recipe, train

CONF = Path(__file__).parents[2] / "conf"


def test_train_names_every_setting_that_a_recipe_leaves_open():
    cfg = OmegaConf.create(
        {
            "model": {"tokenizer": {"dir": "???"}, "same": "${model.tokenizer.dir}", "sets": [{"manifest": "???"}]},
            "init_from_nemo_model": "???",
        }
    )
    message = r"give model.tokenizer.dir=\.\.\. model.sets.0.manifest=\.\.\. init_from_nemo_model=\.\.\.$"
    with pytest.raises(ValueError, match=message):
        train(cfg)


def test_a_misspelt_key_beside_a_recipes_sections_is_refused():
    """``+init_from_nemo_modle`` would train from scratch without a word."""
    check_top_level(OmegaConf.create({"name": "x", "model": {}, "trainer": {}, "init_from_nemo_model": "x.nemo"}))
    with pytest.raises(ValueError, match="no 'init_from_nemo_modle'.*did you mean 'init_from_nemo_model'"):
        check_top_level(OmegaConf.create({"name": "x", "init_from_nemo_modle": "x.nemo"}))


def test_only_classes_of_the_package_and_of_nemo_are_trained():
    with pytest.raises(ValueError, match="model.target is 'os.system'; a recipe trains classes of"):
        model_class("os.system")


def test_a_recipe_has_the_changes_that_a_command_line_would_make():
    changes = {"name": "a b", "trainer.max_steps": 3, "+init_from_nemo_model": None, "model.train_ds.text": ["ä", "b"]}
    with pytest.raises(HydraException, match="model.train_ds.text"):
        read_recipe([CONF], "salm/whisper_smollm2", changes)
    changes["model.train_ds.manifest_filepath"] = changes.pop("model.train_ds.text")
    with pytest.raises(SettingError, match="trainer.max_steps is 'abc'; it must be a number, as the recipe's 2000"):
        read_recipe([CONF], "salm/whisper_smollm2", changes | {"trainer.max_steps": "abc"})
    cfg = read_recipe([CONF], "salm/whisper_smollm2", changes)
    assert (cfg.name, cfg.trainer.max_steps, cfg.init_from_nemo_model) == ("a b", 3, None)
    assert json.dumps(OmegaConf.to_container(cfg.model.train_ds.manifest_filepath)) == json.dumps(["ä", "b"])


def test_a_recipe_of_ones_own_builds_upon_one_of_another_folder(tmp_path):
    (tmp_path / "mine.yaml").write_text("defaults: [salm/whisper_smollm2@_global_, _self_]\ntrainer: {max_steps: 7}\n")
    cfg = read_recipe([CONF, tmp_path], "mine", {"name": "x"})
    assert (cfg.name, cfg.trainer.max_steps, cfg.model.target) == ("x", 7, "nemo_speechllm.models.salm.SALM")
    with pytest.raises(HydraException, match="no_such"):
        read_recipe([CONF, tmp_path], "no_such", {})

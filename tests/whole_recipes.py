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

"""Recipes as they stand in conf/, with what they leave open filled in."""

from pathlib import Path

from hydra import compose, initialize_config_dir
from nemo.collections.asr.models import EncDecCTCModelBPE
from nemo.utils.model_utils import import_class_by_path
from omegaconf import DictConfig, OmegaConf

from nemo_speechllm.recipes.models import CTCRecipe

CONF = Path(__file__).resolve().parents[1] / "conf"


def model_section(recipe: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base=None):
        cfg = compose(recipe)
    for key in OmegaConf.missing_keys(cfg):
        OmegaConf.update(cfg, key, [] if key.endswith("input_cfg") else "given")
    OmegaConf.resolve(cfg)
    OmegaConf.set_struct(cfg, False)
    return cfg.model


def recipe_of(section: DictConfig) -> type:
    model = import_class_by_path(section.target)
    return CTCRecipe if model is EncDecCTCModelBPE else model.recipe

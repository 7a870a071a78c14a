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


"""The sections of each model: what is shipped is whole and known, what is misspelt anywhere is named."""

import copy
import tarfile
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from nemo_speechllm.checkpointing.checkpoint import CheckpointError
from nemo_speechllm.models.shipped import CHECKPOINT_FOLDER
from nemo_speechllm.models.speech_lm import SpeechLM
from nemo_speechllm.recipes import SettingError, complete
from tests.whole_recipes import CONF, model_section, recipe_of

NO_RECIPES = ("sweep", "build")
RECIPES = sorted(
    str(path.relative_to(CONF).with_suffix(""))
    for path in CONF.rglob("*.yaml")
    if not path.stem.startswith(NO_RECIPES) and path.parent.name != "trainer"
)
CHECKPOINTS = sorted(CHECKPOINT_FOLDER.glob("*.nemo"))


def saved_config(checkpoint: Path) -> DictConfig:
    with tarfile.open(checkpoint) as archive:
        (name,) = [name for name in archive.getnames() if name.endswith("model_config.yaml")]
        return OmegaConf.create(archive.extractfile(name).read().decode())


def holds(whole, given) -> bool:
    """Tell whether all that is given stands in the whole as it is."""
    if not isinstance(given, dict):
        return whole == given
    return all(key in whole and holds(whole[key], value) for key, value in given.items())


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_is_known_as_it_stands(recipe):
    section = model_section(recipe)
    whole, given = complete(recipe_of(section), section), OmegaConf.to_container(section)
    if given.get("perception", {}).get("encoder", {}).get("type") == "nemo":
        given["perception"]["encoder"].pop("trim", None)  # of the recipe that it is made of; says nothing here
    assert holds(OmegaConf.to_container(whole), given)


@pytest.mark.parametrize("checkpoint", CHECKPOINTS, ids=lambda path: path.stem)
def test_every_shipped_checkpoint_is_known_as_it_stands(checkpoint):
    saved = saved_config(checkpoint)
    whole = OmegaConf.to_container(complete(recipe_of(saved), saved))
    assert holds(whole, OmegaConf.to_container(saved))
    assert complete(recipe_of(saved), whole) == whole


def sections_of(section: dict, above: str = "") -> list[str]:
    """Return the keys of a section and of all below it in which a misspelt key is looked for."""
    free = ("instructions", "artifacts", "tags", "perception.encoder.config.model", "tokenizer", "decoding")
    found = [above] if above else []
    for key, value in section.items():
        name = f"{above}.{key}" if above else str(key)
        if isinstance(value, dict) and value and not name.endswith(free) and "feature_extractor" not in name:
            found += sections_of(value, name)
    return found


@pytest.mark.parametrize(
    "recipe",
    [
        "salm/whisper_smollm2_keywords",
        "ctc_prompted_llm/stage2_posterior",
        "desta2/whisper_base_qwen",
        "instruct_las/small",
        "ctc_prompted_llm/stage1_ctc_taught",
    ],
)
def test_a_misspelt_key_in_any_section_is_named(recipe):
    section = OmegaConf.to_container(model_section(recipe))
    where = ["", *sections_of(section)]
    assert len(where) > 10
    for name in where:
        changed = copy.deepcopy(section)
        holder = changed
        for part in filter(None, name.split(".")):
            holder = holder[part]
        known = max(holder, key=len)
        holder[f"{known}x"] = holder[known]
        with pytest.raises(SettingError) as error:
            complete(recipe_of(OmegaConf.create(section)), changed)
        key = ".".join(filter(None, ("model", name)))
        assert str(error.value) == f"{key} has no setting '{known}x'; did you mean '{known}'?"


def test_an_override_of_a_checkpoint_that_nothing_would_read_is_named():
    message = r"instruct_las_digits.nemo: model.generation has no setting 'beam_sise'; did you mean 'beam_size'\?$"
    with pytest.raises(CheckpointError, match=message):
        SpeechLM.from_pretrained("instruct_las_digits", override={"generation": {"beam_sise": 2}})

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
from hydra import compose, initialize_config_dir
from nemo.collections.asr.models import EncDecCTCModelBPE
from nemo.utils.model_utils import import_class_by_path
from omegaconf import DictConfig, OmegaConf

from nemo_speechllm.checkpointing.checkpoint import CheckpointError
from nemo_speechllm.models.shipped import CHECKPOINT_FOLDER
from nemo_speechllm.models.speech_lm import SpeechLM
from nemo_speechllm.recipes import SettingError, complete
from nemo_speechllm.recipes.models import CTCRecipe

CONF = Path(__file__).resolve().parents[2] / "conf"
NO_RECIPES = ("sweep", "build")
RECIPES = sorted(
    str(path.relative_to(CONF).with_suffix(""))
    for path in CONF.rglob("*.yaml")
    if not path.stem.startswith(NO_RECIPES)
)
CHECKPOINTS = sorted(CHECKPOINT_FOLDER.glob("*.nemo"))


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


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("lora.r", -1, "model.lora.r is -1; it must be a whole number, at least 0"),
        ("lora.dropout", 1.0, "model.lora.dropout is 1.0; it must be a number, at least 0 and below 1"),
        ("loss.lm_weight", float("inf"), "model.loss.lm_weight is inf; it must be a number, at least 0"),
        ("perception.stack", 0, "model.perception.stack is 0; it must be a whole number, at least 1"),
        ("perception.encoder.taps", ["1"], "model.perception.encoder.taps is"),
        ("generation.guards", "empty", "model.generation.guards is 'empty'; it must be a section"),
        ("generation.guards.loop", "beam", "guards.loop is 'beam'; it must be one of empty, retry, ctc, or null"),
        ("keyword_context.words", 5, "0.1 .positive_ratio. of 5 words is less than one"),
        ("keyword_context.probability", 1.5, "probability is 1.5; it must be a number, from 0 to 1"),
        ("keyword_context.max_count", 0, "max_count is 0; it must be a whole number, at least 1, or null"),
        ("instruction_sampling", {"split": "test"}, "split is 'test'; it must be one of seen, unseen"),
        ("instruction_sampling.targets", {"kind": "oracle"}, "targets.kind is 'oracle'; it must be one of extractive"),
        ("instruction_sampling.targets", {"kind": "endpoint"}, "targets.url is missing; kind=endpoint needs it"),
        ("freeze_params", "^llm", "model.freeze_params is '\\^llm'; it must be a list of values, each text, or null"),
        ("prompt", None, "model.prompt is None; it must be a section"),
        ("train_ds.skip_bad_audio", "yes", "model.train_ds.skip_bad_audio is 'yes'; it must be true or false"),
        ("normalizer", "german", "model.normalizer is 'german'; it must be one of auto, english, basic, none"),
    ],
)
def test_a_value_out_of_range_is_named(key, value, message):
    section = model_section("salm/whisper_smollm2_keywords")
    OmegaConf.update(section, key, value, merge=isinstance(value, dict), force_add=True)
    with pytest.raises(SettingError, match=message):
        complete(recipe_of(section), section)


def test_sizes_of_a_text_decoder_must_fit_its_heads():
    section = model_section("instruct_las/small")
    section.decoder.d_model = 30
    with pytest.raises(
        SettingError, match="decoder.d_model=30 must be even and a multiple of model.decoder.n_heads=4"
    ):
        complete(recipe_of(section), section)


@pytest.mark.parametrize(
    ("train_ds", "message"),
    [
        ({"input_cfg": [{"type": "nemo", "weigth": 1}]}, r"input_cfg\[0\] has no setting 'weigth'; .* 'weight'"),
        (
            {"input_cfg": [{"type": "group", "input_cfg": [{"manifest_filepth": "a"}]}]},
            r"input_cfg\[0\].input_cfg\[0\] has no setting 'manifest_filepth'; did you mean 'manifest_filepath'",
        ),
        ({"multi_config": True, "a": {"batch_sise": 2}}, "train_ds.a has no setting 'batch_sise'; did you mean"),
    ],
)
def test_a_misspelt_key_of_a_source_of_data_is_named(train_ds, message):
    section = model_section("salm/whisper_smollm2")
    section.train_ds = train_ds
    with pytest.raises(SettingError, match=message):
        complete(recipe_of(section), section)


def test_an_override_of_a_checkpoint_that_nothing_would_read_is_named():
    message = r"instruct_las_digits.nemo: model.generation has no setting 'beam_sise'; did you mean 'beam_size'\?$"
    with pytest.raises(CheckpointError, match=message):
        SpeechLM.from_pretrained("instruct_las_digits", override={"generation": {"beam_sise": 2}})


def test_a_plug_in_takes_its_own_settings_and_those_of_every_encoder():
    section = model_section("salm/whisper_smollm2")
    section.perception.encoder = {"type": "frames", "config": {"d_model": 64}, "width": 3}
    section.perception.adapter = {"type": "mean", "n": 4}
    perception = complete(recipe_of(section), section).perception
    assert (perception.encoder.width, perception.encoder.pretrained, perception.encoder.embed) == (3, None, False)
    assert perception.adapter == {"type": "mean", "n": 4}

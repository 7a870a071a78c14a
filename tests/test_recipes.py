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

"""Every YAML of conf/ composes, names a model class and leaves open only what a user must give."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from nemo.core.classes import ModelPT
from nemo.utils.model_utils import import_class_by_path
from omegaconf import OmegaConf

from nemo_speechllm.models.shipped import shipped_models
from nemo_speechllm.models.speech_lm import SpeechLM
from nemo_speechllm.recipes.generation import CTCHeadGeneration

CONF = Path(__file__).resolve().parents[1] / "conf"
# what a recipe takes from the one before it
EARLIER_STAGE = {
    "ctc_prompted_llm/stage1_ctc": {"model.tokenizer.dir"},
    "ctc_prompted_llm/stage1_ctc_taught": {"model.tokenizer.dir"},
    "ctc_prompted_llm/stage1_whisper": {"model.ctc_head.tokenizer"},
    "ctc_prompted_llm/stage2_posterior": {
        "init_from_nemo_model",
        "model.ctc_head.tokenizer",
        "model.ctc_posterior.bank",
    },
    "salm/whisper_smollm2_posterior": {"init_from_nemo_model", "model.ctc_head.tokenizer", "model.ctc_posterior.bank"},
    "ctc_prompted_llm/stage2_llm": {"model.perception.encoder.pretrained"},
    "ctc_prompted_llm/stage2_alignment": {"model.perception.encoder.pretrained"},
    "ctc_prompted_llm/llama7b": {"model.perception.encoder.pretrained"},
    "instruct_las/small": {"model.tokenizer.dir"},
    "instruct_las/digits_encoder": {"model.tokenizer.dir"},
    "instruct_las/digits": {"model.tokenizer.dir", "init_from_nemo_model"},
    "instruct_las/digits_text_encoder": {"model.tokenizer.dir", "init_from_nemo_model"},
    "instruct_las/librispeech": {"model.tokenizer.dir"},
}
# those that train nothing are no recipes; test_sweep.py and test_build_desta.py in tests/examples compose them
BUILD_ABLATIONS = ("build_tasks", "build_mixed", "build_no_metadata", "build_no_emotion", "build_measured")
OTHERS = {"sweep", "sweep_keywords", "build", "build_pool", "build_attributes", *BUILD_ABLATIONS}
TRAINERS = sorted(path.stem for path in (CONF / "trainer").glob("*.yaml"))
RECIPES = sorted(
    str(p.relative_to(CONF).with_suffix("")) for p in CONF.rglob("*.yaml") if p.stem not in {*OTHERS, *TRAINERS}
)


READS_TEXT = {"ctc_prompted_llm/stage2_posterior", "salm/whisper_smollm2_posterior"}


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_composes_and_lacks_only_the_manifests_and_the_earlier_stage(recipe):
    with initialize_config_dir(str(CONF), version_base=None):
        cfg = compose(recipe)
    assert issubclass(import_class_by_path(cfg.model.target), ModelPT)
    data = "input_cfg" if recipe in READS_TEXT else "manifest_filepath"
    manifests = {f"model.train_ds.{data}", "model.validation_ds.manifest_filepath"}
    if recipe.endswith("/adapt_to_text"):  # it goes by texts alone
        manifests = {"model.train_ds.input_cfg[0].paths"}
    assert OmegaConf.missing_keys(cfg) == manifests | EARLIER_STAGE.get(recipe, set())
    assert set(cfg) >= {"name", "model", "trainer", "exp_manager"}
    OmegaConf.resolve(cfg)


def test_what_is_fine_tuned_decodes_as_the_shipped_checkpoint_that_it_starts_from():
    """Settings that are younger than a checkpoint, which does not state them, are the recipe's own."""
    shipped, tuned = shipped_models(), set()
    for recipe in RECIPES:
        with initialize_config_dir(str(CONF), version_base=None):
            cfg = compose(recipe)
        start = OmegaConf.to_container(cfg)
        for name in {start.get(f"init_from_{kind}_model") for kind in ("pretrained", "nemo")} & shipped.keys():
            stated = SpeechLM.restore_from(shipped[name], return_config=True).generation
            own = OmegaConf.merge(OmegaConf.structured(CTCHeadGeneration), cfg.model.generation)
            own.decoder = own.decoder or "llm"  # what these are trained for
            assert OmegaConf.merge(own, stated) == own, recipe
            tuned.add(recipe)
    assert {"ctc_prompted_llm/adapt_to_text", "salm/adapt_to_text", "salm/whisper_smollm2_posterior_finetune"} <= tuned


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_takes_every_trainer(recipe):
    with initialize_config_dir(str(CONF), version_base=None):
        own = OmegaConf.to_container(compose(recipe).trainer)
        for trainer in TRAINERS:
            parts = OmegaConf.to_container(OmegaConf.load(CONF / f"trainer/{trainer}.yaml"))
            cfg = compose(recipe, [f"trainer={trainer}", "trainer.devices=3"])
            assert OmegaConf.to_container(cfg.trainer) == own | parts | {"devices": 3}
            assert not {"defaults", trainer} & set(cfg)


def test_derived_recipes_change_what_they_say():
    with initialize_config_dir(str(CONF), version_base=None):
        warmup, paper = compose("salm/whisper_smollm2_warmup"), compose("salm/fastconformer_llama")
        llama = compose("ctc_prompted_llm/llama7b").model
        las = compose("instruct_las/librispeech").model
        desta = compose("desta2/whisper_small_llama3").model
    assert (warmup.model.loss.lm_weight, warmup.name) == (0.0, "salm_whisper_smollm2_warmup")
    assert (paper.model.perception.adapter.subsampling_factor, paper.model.optim.lr) == (8, 1e-4)
    assert (llama.perception.stack, llama.lora.r, llama.perception.encoder.embed) == (3, 8, True)
    assert not any("encoder" in pattern for pattern in llama.freeze_params)
    assert (desta.perception.encoder.taps, desta.perception.adapter.n_queries) == ([2, 5, 8, 11], 64)
    assert (desta.perception.adapter.n_layers, desta.perception.encoder.trim, desta.lora) == (2, False, None)
    encoder = las.perception.encoder.config.encoder
    assert (encoder.n_layers, encoder.d_model, encoder.subsampling_factor, las.decoder.d_model) == (17, 512, 4, 512)


def test_ablations_of_descriptions_differ_from_the_recipe_by_one_thing():
    with initialize_config_dir(str(CONF), version_base=None):
        paper = OmegaConf.to_container(compose("desta2/build"))
        ablations = {name: OmegaConf.to_container(compose(f"desta2/{name}")) for name in BUILD_ABLATIONS}
    for name, cfg in ablations.items():
        changed = "questions" if name in ("build_tasks", "build_mixed") else "attributes"
        assert cfg == paper | {changed: cfg[changed]} and cfg[changed] != paper[changed]
    tasks, mixed = (ablations[name]["questions"] for name in ("build_tasks", "build_mixed"))
    assert paper["questions"][0] not in tasks and paper["questions"][0] in mixed
    assert mixed[len(mixed) // 2 :] == tasks and not set(mixed[: len(mixed) // 2]) & set(tasks)
    told = {name: set(ablations[name]["attributes"]) for name in BUILD_ABLATIONS}
    assert set(paper["attributes"]) - told["build_no_emotion"] == {"emotion"} and not told["build_no_metadata"]
    assert told["build_measured"] <= set(paper["metadata"]["extractors"])

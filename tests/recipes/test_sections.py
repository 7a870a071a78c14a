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

"""A setting that cannot be is named with its key, its value and its range."""

import pytest
from omegaconf import OmegaConf

from nemo_speechllm.recipes import SettingError, complete
from tests.whole_recipes import model_section, recipe_of


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
        ("instruction_sampling", {"split": "test"}, "split is 'test'; it must be one of seen, held_out, unseen"),
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


def test_a_plug_in_takes_its_own_settings_and_those_of_every_encoder():
    section = model_section("salm/whisper_smollm2")
    section.perception.encoder = {"type": "frames", "config": {"d_model": 64}, "width": 3}
    section.perception.adapter = {"type": "mean", "n": 4}
    perception = complete(recipe_of(section), section).perception
    assert (perception.encoder.width, perception.encoder.pretrained, perception.encoder.embed) == (3, None, False)
    assert perception.adapter == {"type": "mean", "n": 4}

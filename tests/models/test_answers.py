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

"""How an answer is asked for, and what it depends on."""

import math

import numpy as np
import pytest
import torch

from nemo_speechllm.models.answers import answering_record, generation_options
from nemo_speechllm.recipes.generation import Generation

RECIPE = Generation(max_new_tokens=20, beam_size=3, decoder="ctc")


def test_what_is_not_asked_for_is_the_recipe_s():
    assert generation_options(RECIPE) == {"max_new_tokens": 20, "beam_size": 3, "decoder": "ctc"}
    assert generation_options(RECIPE, 5, 1, "llm") == {"max_new_tokens": 5, "beam_size": 1, "decoder": "llm"}
    assert generation_options(Generation())["decoder"] is None, "what the model was trained for"


@pytest.mark.parametrize("option", ["max_new_tokens", "beam_size"])
@pytest.mark.parametrize("value", [0, -1, "3", 1.5, True, math.nan])
def test_what_is_no_such_number_is_named(option, value):
    with pytest.raises(ValueError, match=f"{option} is {value!r}; it must be a whole number, .*1.*leave it unset"):
        generation_options(RECIPE, **{option: value})


def test_more_beams_than_a_recipe_may_have_are_refused():
    with pytest.raises(ValueError, match="beam_size is 1000; it must be a whole number, from 1 to 128"):
        generation_options(RECIPE, beam_size=1000)


def test_numpy_s_integers_are_whole_numbers():
    options = generation_options(RECIPE, np.int64(4), np.int32(2))
    assert (options["max_new_tokens"], options["beam_size"]) == (4, 2) and type(options["beam_size"]) is int


def test_an_unknown_decoder_is_named_with_those_there_are():
    for decoder in ("rnnt", "", 5):
        with pytest.raises(ValueError, match=rf"decoder is {decoder!r}; known are \['llm', 'ctc'\]"):
            generation_options(RECIPE, decoder=decoder)


def test_a_record_tells_whatever_changes_answers(salm):
    record = answering_record(salm)
    assert answering_record(salm) == record == answering_record(salm, max_new_tokens=8)
    assert answering_record(salm, beam_size=2) != record and answering_record(salm, decoder="ctc") != record
    salm.cfg.prompt.instructions["asr"] = "Write."
    other_prompt = answering_record(salm)
    with torch.no_grad():
        salm.perception.projection.scale.add_(1)
    records = (record, other_prompt, answering_record(salm))
    assert all(one != other for one, other in zip(records, records[1:], strict=False))

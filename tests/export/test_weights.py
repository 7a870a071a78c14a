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

"""A model as it leaves: LoRA merged, weights rounded, or nothing done at all."""

import pytest
import torch

from nemo_speechllm.export.limits import ExportError
from nemo_speechllm.export.weights import merged
from tests.tiny_models import talkative


def test_lora_is_merged_and_weights_are_rounded(make_salm):
    model = talkative(make_salm())
    ids = torch.arange(5)[None]
    expected = model.llm(ids).logits
    assert merged(model, "hf", [], None) is model
    assert not [name for name, _ in model.named_parameters() if "lora" in name]
    torch.testing.assert_close(model.llm(ids).logits, expected)
    merged(model, "hf", [], torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_what_cannot_be_exported_stays_as_it_is(make_salm):
    model = make_salm()
    names = [name for name, _ in model.named_parameters()]
    with pytest.raises(ExportError, match="format=hf: model.target"):
        merged(model, "hf", ["model.target"], torch.float16)
    assert [name for name, _ in model.named_parameters()] == names


def test_a_weight_that_is_too_large_is_named(make_salm):
    model = make_salm()
    with torch.no_grad():
        model.perception.projection.scale.fill_(1e6)
    with pytest.raises(ValueError, match=r"perception\.projection\.scale has values that torch.float16 cannot hold"):
        merged(model, "hf", [], torch.float16)

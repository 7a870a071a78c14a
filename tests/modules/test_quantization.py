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

"""Linear layers of 8 bits compute about the same, each position for itself."""

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from nemo_speechllm.modules.quantization import Int8Linear, is_int8, to_int8


def layer(bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(64, 48, bias=bias)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(64,), (1, 64), (3, 5, 64), (2, 0, 64)])
def test_it_computes_about_the_same(bias, shape):
    exact, inputs = layer(bias), torch.randn(shape)
    rounded = Int8Linear(exact)(inputs)
    assert rounded.shape == exact(inputs).shape
    assert torch.allclose(rounded, exact(inputs), atol=0.03)


def test_a_loud_position_costs_its_neighbours_nothing():
    rounded, inputs = Int8Linear(layer()), torch.randn(4, 64)
    alone = rounded(inputs[1:])
    inputs[0] *= 1e4
    assert torch.equal(rounded(inputs)[1:], alone)


def test_silence_stays_silent():
    assert torch.equal(Int8Linear(layer(bias=False))(torch.zeros(2, 64)), torch.zeros(2, 48))


def test_a_quarter_of_the_size():
    exact = nn.Linear(512, 512)
    size = lambda module: sum(value.nbytes for value in module.state_dict().values())  # noqa: E731
    assert size(Int8Linear(exact)) < 0.26 * size(exact)


def test_lora_is_merged_before_weights_are_rounded():
    model = nn.Sequential(layer(), nn.ReLU(), nn.Linear(48, 8))
    inject_adapter_in_model(LoraConfig(r=4, target_modules=["0"], init_lora_weights=False), model)
    inputs = torch.randn(6, 64)
    expected = model(inputs)
    to_int8(model)
    assert is_int8(model) and [type(module) for module in model] == [Int8Linear, nn.ReLU, Int8Linear]
    assert not any("lora" in name for name, _ in model.named_modules())
    assert torch.allclose(model(inputs), expected, atol=0.05)


def test_nothing_is_left_to_train_and_the_mode_stays():
    model = nn.Sequential(layer()).eval()
    to_int8(model)
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())

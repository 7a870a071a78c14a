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

"""The frozen sentence encoder beside an instruction's own sub-words."""

import pytest
import torch

from nemo_speechllm.modules.text_encoder import TextEncoder
from nemo_speechllm.recipes import complete, sections
from tests.tiny_assets import write_bert


@pytest.fixture
def new_encoder(tmp_path) -> TextEncoder:
    return TextEncoder(complete(sections.TextEncoder, {"pretrained": str(write_bert(tmp_path / "bert"))}), 8).eval()


@pytest.fixture
def encoder(new_encoder) -> TextEncoder:
    torch.nn.init.normal_(new_encoder.projection.weight)
    return new_encoder


def test_its_states_are_those_of_the_text_whatever_stands_beside_it(encoder):
    alone, _ = encoder(["hold on"])
    states, mask = encoder(["say all of it backwards", "hold on", ""])
    assert states.shape == (3, 21, 8) and mask.sum(1).tolist() == [21, 8, 2] and states.std() > 0.1
    torch.testing.assert_close(states[1, :8], alone[0], atol=1e-5, rtol=1e-4)


def test_only_the_projection_learns_and_it_begins_with_nothing(new_encoder):
    states, _ = new_encoder(["hold on"])
    assert not states.any()
    states.sum().backward()
    gradients = {name: parameter.grad for name, parameter in new_encoder.named_parameters() if parameter.requires_grad}
    assert (
        set(gradients) == {"projection.weight", "projection.bias"} and gradients["projection.weight"].abs().max() > 0
    )


def test_a_text_that_it_cannot_read_whole_is_named(encoder):
    with pytest.raises(ValueError, match=r"the instruction 'hold.*has 66 tokens, more than the 64 .*text_encoder"):
        encoder(["hold" * 16])

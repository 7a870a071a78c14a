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

"""A module is known by its weights: all of them, in any precision, with or without LoRA."""

import copy

import pytest
import torch
from torch import nn

from nemo_speechllm.modules.fingerprint import (
    matches_fingerprint,
    sampled_fingerprint,
    state_digest,
    weight_fingerprint,
)


@pytest.fixture
def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(40, 30), nn.Linear(30, 2))


def test_every_weight_counts(module):
    found = weight_fingerprint(module)
    assert found == weight_fingerprint(copy.deepcopy(module)) and found.startswith("sha256:") and len(found) == 71
    with torch.no_grad():
        module[0].weight.view(-1)[777] += 1  # not among the sample that older checkpoints took
    assert weight_fingerprint(module) != found, "what is remembered is not taken for what has changed"


def test_precision_does_not_count(module):
    assert weight_fingerprint(module) == weight_fingerprint(copy.deepcopy(module).to(torch.bfloat16))
    assert state_digest(module) != state_digest(copy.deepcopy(module).to(torch.bfloat16))


def test_lora_does_not_count(module):
    class Wrapped(nn.Module):
        def __init__(self, layer: nn.Linear):
            super().__init__()
            self.base_layer, self.lora_A = layer, nn.Linear(layer.in_features, 2)

    found = weight_fingerprint(module)
    module[1] = Wrapped(module[1])
    assert weight_fingerprint(module) == found


def test_older_fingerprints_are_of_a_sample(module):
    found = weight_fingerprint(module)
    assert matches_fingerprint(module, found, found)
    assert matches_fingerprint(module, sampled_fingerprint(module), found)
    assert not matches_fingerprint(module, "0" * 32, found)

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

"""A whole tiny SALM."""

from collections.abc import Callable

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from nemo_speechllm.models import SALM


@pytest.fixture
def make_salm(tiny_salm_config: DictConfig) -> Callable[..., SALM]:
    """``make_salm(**changes)`` → a SALM in eval mode whose config has ``changes`` merged into it; the same seed each time."""

    def make(**changes) -> SALM:
        torch.manual_seed(0)
        return SALM(OmegaConf.merge(tiny_salm_config.model, changes)).eval()

    return make


@pytest.fixture
def salm(make_salm: Callable[..., SALM]) -> SALM:
    """The tiny recipe's model, its LoRA as if trained: what it answers depends on the audio."""
    return talkative(make_salm())


def talkative(model: SALM) -> SALM:
    """Gives what trains in a model random weights of such a size that its answers differ from audio to audio."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.llm.named_parameters():
            if ".lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
        model.perception.projection.scale.fill_(2.0)
    return model

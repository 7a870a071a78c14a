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

"""What earlier releases called a parameter is found under the name that it has now."""

import pytest
import torch
from omegaconf import OmegaConf

from nemo_speechllm.checkpointing.renamed import FORMER_NAMES
from nemo_speechllm.models import SALM


def test_weights_of_an_earlier_release_are_loaded_strictly(salm):
    current = {name: former for former, name in FORMER_NAMES.items()}
    state = {current.get(name, name): tensor.clone() for name, tensor in salm.state_dict().items()}
    state["ctc.blank"], state["ctc.seen"] = state["ctc.blank"] + 1, ~state["ctc.seen"]
    assert {"ctc.blank", "ctc.scale", "ctc.seen"} <= set(state)
    salm.load_state_dict(state)
    assert torch.equal(salm.alignment.blank_embedding, state["ctc.blank"])
    assert torch.equal(salm.alignment.seen, state["ctc.seen"])


def test_a_pattern_of_an_earlier_recipe_freezes_what_it_named(tiny_salm_config):
    model = SALM(OmegaConf.merge(tiny_salm_config.model, {"freeze_params": [r"^llm\.", r"^ctc\."]}))
    assert not any(parameter.requires_grad for parameter in model.alignment.parameters())
    with pytest.raises(ValueError, match=r"'\^ctcs.*' matches no parameter"):
        SALM(OmegaConf.merge(tiny_salm_config.model, {"freeze_params": [r"^ctcs\."]}))

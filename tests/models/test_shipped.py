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

"""The checkpoints that come with the package: small, free of the training machine's paths, and ready to use."""

import re

import pytest
from omegaconf import OmegaConf

from nemo_speechllm.models import SALM, CTCPromptedLLM, DeSTA2, InstructLAS, load_model
from nemo_speechllm.models.loading import shipped_models
from nemo_speechllm.models.speech_lm import SpeechLM


@pytest.mark.parametrize(
    ("model_class", "name"),
    [
        (SALM, "salm_whisper_smollm2"),
        (InstructLAS, "instruct_las_digits"),
        (CTCPromptedLLM, "ctc_prompted_smollm2"),
        (DeSTA2, "desta2_whisper_base_qwen"),
    ],
)
def test_a_class_lists_its_own(model_class, name):
    assert [info.pretrained_model_name for info in model_class.list_available_models()] == [name]


@pytest.mark.parametrize("name", sorted(shipped_models()))
def test_a_shipped_checkpoint_is_small_portable_and_answers(name, make_audio):
    assert shipped_models()[name].stat().st_size <= 25 * 2**20
    model = load_model(name)
    saved = OmegaConf.to_yaml(SpeechLM.restore_from(shipped_models()[name], return_config=True))
    assert not re.findall(r"[:-] '?/\w+.*", saved), "an absolute path of the machine it was made on"
    assert all(section.by_reference for section in model.references.values())
    answers = model.transcribe([make_audio(1.0), make_audio(0.5, seed=1)], max_new_tokens=8, verbose=False)
    assert [type(answer) for answer in answers] == [str, str]

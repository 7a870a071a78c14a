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

"""Tiny models for the tests of this folder."""

from collections.abc import Callable

import numpy as np
import pytest
from omegaconf import DictConfig

from nemo_speechllm.models.speech_lm import SpeechLM
from tests.several_processes import train  # noqa: F401
from tests.tiny_desta2 import desta2_recipe, make_desta2, talkative_llm_folder, whole_whisper_folder  # noqa: F401
from tests.tiny_models import *  # noqa: F403  # fixtures
from tests.tiny_models import DURATIONS, knowing_words, with_blanks


@pytest.fixture
def recipe(tiny_salm_config: DictConfig, make_manifest) -> DictConfig:
    """The tiny recipe with a validation set of a name that NeMo accepts."""
    tiny_salm_config.model.validation_ds.manifest_filepath = str(make_manifest((0.5, 0.7, 0.6), "dev.jsonl"))
    return tiny_salm_config


@pytest.fixture
def make(request, make_audio) -> Callable[..., SpeechLM]:
    """``make(kind)`` → a tiny model of the kind in eval mode whose CTC can read what it has written."""

    def make(kind: str) -> SpeechLM:
        if kind == "salm":
            return knowing_words(request.getfixturevalue("salm"))
        return with_blanks(request.getfixturevalue(f"make_{kind}")(), make_audio(4.0))

    return make


@pytest.fixture
def audios(make_audio) -> list[np.ndarray]:
    return [make_audio(seconds, seed=i) for i, seconds in enumerate(DURATIONS)]

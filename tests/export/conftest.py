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

"""Tiny SALMs to export."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from omegaconf import DictConfig

from nemo_speechllm.models import SALM
from tests.tiny_models import *  # noqa: F403  # fixtures
from tests.tiny_models import talkative


@pytest.fixture
def make_nemo_salm(
    make_salm: Callable[..., SALM], make_fastconformer: Callable[..., Path], tiny_salm_config: DictConfig
) -> Callable[..., SALM]:
    """``make_nemo_salm(**changes)`` → a tiny SALM with a FastConformer, its LoRA as if trained, which the LLM alone
    answers for."""

    def make(**changes) -> SALM:
        encoder = {"type": "nemo", "pretrained": str(make_fastconformer())}
        plain = {"ctc_compression": False, "loss": {"ctc_weight": 0.0}, "generation": {"ctc_weight": 0.0}}
        perception = {"encoder": encoder, "stack": 1} | changes.pop("perception", {})
        return talkative(make_salm(**plain | {"perception": perception} | changes))

    return make


@pytest.fixture
def files(make_audio: Callable[..., np.ndarray], tmp_path: Path) -> list[str]:
    """Three recordings."""
    for seed, seconds in enumerate((1.0, 2.3, 0.7)):
        soundfile.write(tmp_path / f"{seed}.wav", make_audio(seconds, seed), 16000, "FLOAT")
    return [str(tmp_path / f"{seed}.wav") for seed in range(3)]

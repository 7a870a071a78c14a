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

"""A whole tiny SALM, and a tiny FastConformer to use as its encoder."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nemo.collections.asr.models import EncDecCTCModel
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
        model.ctc.seen[:40] = True  # CTC hears only tokens that it met in training
    return model


@pytest.fixture(scope="session")
def make_fastconformer(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``make_fastconformer(seed=0)`` → a ``.nemo`` of a tiny NeMo CTC model with a FastConformer encoder, random weights."""

    def make(seed: int = 0) -> Path:
        torch.manual_seed(seed)
        nemo_asr = "nemo.collections.asr.modules"
        labels = list("abc ")
        config = {
            "sample_rate": 16000,
            "preprocessor": {
                "_target_": f"{nemo_asr}.AudioToMelSpectrogramPreprocessor",
                "features": 80,
                "normalize": "per_feature",
                "dither": 0.0,
                "pad_to": 16,
            },
            "encoder": {
                "_target_": f"{nemo_asr}.ConformerEncoder",
                "feat_in": 80,
                "n_layers": 2,
                "d_model": 32,
                "n_heads": 4,
                "subsampling": "dw_striding",
                "subsampling_factor": 8,
                "subsampling_conv_channels": 16,
                "conv_kernel_size": 9,
                "ff_expansion_factor": 2,
            },
            "decoder": {
                "_target_": f"{nemo_asr}.ConvASRDecoder",
                "feat_in": 32,
                "num_classes": len(labels),
                "vocabulary": labels,
            },
        }
        path = tmp_path_factory.mktemp("fastconformer") / "tiny.nemo"
        EncDecCTCModel(OmegaConf.create(config)).save_to(str(path))
        return path

    return make

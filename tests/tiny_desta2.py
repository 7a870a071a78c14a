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

"""A tiny DeSTA2, its parts, and a voice."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from transformers import (
    AutoTokenizer,
    LlamaForCausalLM,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from nemo_speechllm import assets
from nemo_speechllm.data.conversation import Audio, Conversation, Turn
from nemo_speechllm.models import DeSTA2

ROOT = Path(__file__).parents[1]
QUESTION = "What can you hear from the audio?"


@pytest.fixture(scope="session")
def whole_whisper_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole Whisper of width 64 with random weights and whisper-base's tokenizer; it writes 8 tokens at most."""
    folder, original = tmp_path_factory.mktemp("whole_whisper"), assets.resolve("whisper-base")
    tokenizer = AutoTokenizer.from_pretrained(original)
    torch.manual_seed(1)
    sizes = {
        f"{side}_{size}": value
        for side in ("encoder", "decoder")
        for size, value in (("layers", 2), ("attention_heads", 2), ("ffn_dim", 128))
    }
    config = WhisperConfig(d_model=64, vocab_size=len(tokenizer), max_target_positions=16, **sizes)
    WhisperForConditionalGeneration(config).save_pretrained(folder)
    shutil.copy(original / "generation_config.json", folder)
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def talkative_llm_folder(tmp_path_factory: pytest.TempPathFactory, tiny_llm_folder: Path) -> Path:
    """The tiny LLM with larger weights: what it says depends on all that it reads."""
    folder = tmp_path_factory.mktemp("talkative_llm")
    shutil.copytree(tiny_llm_folder, folder, dirs_exist_ok=True)
    llm = LlamaForCausalLM.from_pretrained(tiny_llm_folder, dtype=torch.float32)
    with torch.no_grad():
        for parameter in llm.model.layers.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8.0)
    llm.save_pretrained(folder)
    return folder


@pytest.fixture
def desta2_recipe(talkative_llm_folder: Path, whole_whisper_folder: Path, make_manifest) -> DictConfig:
    """``conf/desta2/whisper_base_smollm2.yaml`` at tiny size, with a manifest of four descriptions."""
    cfg = OmegaConf.load(ROOT / "conf/desta2/whisper_base_smollm2.yaml")
    manifest = make_manifest(name="dev.jsonl", instruction=QUESTION, answer="A calm voice.", transcription="hello")
    data = dict(manifest_filepath=str(manifest), batch_size=2, num_workers=0)
    tiny = {
        "llm": {"pretrained": str(talkative_llm_folder)},
        "perception": {
            "encoder": {"pretrained": str(whole_whisper_folder), "taps": [0, 1]},
            "adapter": {"n_queries": 8, "n_heads": 2},
        },
        "generation": {"max_new_tokens": 8},
        "train_ds": data | {"use_bucketing": False},
        "validation_ds": data,
    }
    cfg.model = OmegaConf.merge(cfg.model, tiny)
    cfg.trainer.accelerator = "cpu"
    return cfg


@pytest.fixture
def make_desta2(desta2_recipe: DictConfig) -> Callable[..., DeSTA2]:
    """``make_desta2(**changes)`` → a DeSTA2 in eval mode whose answers depend on the audio; the same seed each
    time."""

    def make(**changes) -> DeSTA2:
        torch.manual_seed(0)
        model = DeSTA2(OmegaConf.merge(desta2_recipe.model, changes)).eval()
        samples, perception = torch.from_numpy(voice(1.0))[None], model.perception
        with (
            torch.no_grad()
        ):  # states of random weights are much alike: without this every audio would be heard the same
            perception.adapter.queries.copy_(perception.adapter.queries[:, :1])
            heard, _ = perception.adapter(*perception.encode(samples, torch.tensor([samples.shape[1]])))
            perception.projection.linear.bias.copy_(-(perception.projection.linear.weight @ heard[0].mean(0)))
            perception.projection.scale.fill_(2.0)
        return model

    return make


def voice(seconds: float, pitch: float = 140.0) -> np.ndarray:
    """A vowel-like sound: 20 harmonics."""
    time = np.arange(round(seconds * 16000)) / 16000
    return (0.05 * sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 21))).astype(np.float32)


def asked(samples, answer=None, transcription="hello", question=QUESTION, **metadata) -> Conversation:
    turns = [Turn("user", [Audio(torch.as_tensor(samples)), question])]
    turns += [Turn("assistant", [answer])] if answer is not None else []
    return Conversation("test", turns, {"transcription": transcription, "lang": "en", **metadata})

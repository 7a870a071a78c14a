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

"""The plug-ins of docs/extending.md are short, and work in models that listen, learn and answer."""

import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from transformers import AutoModelForCausalLM

from nemo_speechllm.data.conversation import Audio, Conversation, Turn
from nemo_speechllm.data.dataset import ConversationDataset
from nemo_speechllm.models import SALM
from nemo_speechllm.modules.adapters import ADAPTERS
from nemo_speechllm.modules.encoders import ENCODERS
from nemo_speechllm.prompts.instruction_pools import POOLS, load_pools
from nemo_speechllm.prompts.skills import RULES, apply_rule

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))


def code_of(title: str, language: str = "python") -> str:
    (code,) = re.findall(rf"^```{language}\n(.*?)^```", SECTIONS[title], re.MULTILINE | re.DOTALL)
    return code


@pytest.fixture
def run_plug_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], ModuleType]:
    """``run_plug_in(title)`` → the block of a section as a module; what it registers is gone after the test."""
    for registry in (ENCODERS, ADAPTERS, RULES, POOLS):
        monkeypatch.setattr(registry, "_parts", dict(registry._parts))

    def run(title: str) -> ModuleType:
        path = tmp_path / f"plug_in_{title.split()[-1].lower()}.py"
        path.write_text(code_of(title), encoding="utf-8")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, path.stem, module)
        spec.loader.exec_module(module)
        return module

    return run


def conversation(samples: np.ndarray, **metadata: str) -> Conversation:
    turns = [Turn("user", [Audio(torch.as_tensor(samples)), "Transcribe the speech."]), Turn("assistant", ["Hello."])]
    return Conversation("a", turns, metadata)


@pytest.fixture
def answers(tiny_salm_config: DictConfig, make_audio: Callable[..., np.ndarray]) -> Callable[..., list[str]]:
    """``answers(model_class=SALM, **changes)`` → what a model says to recordings, together and alone, once it has
    learned from them."""

    def answers(model_class: type[SALM] = SALM, **changes: Any) -> list[str]:
        torch.manual_seed(0)
        config = OmegaConf.merge(tiny_salm_config.model, {"train_ds": None, "validation_ds": None})
        config = OmegaConf.create({**config, **changes})
        model, recordings = model_class(config), [make_audio(seconds) for seconds in (0.5, 1.3)]
        batch = ConversationDataset(model.builder).collate([conversation(samples) for samples in recordings])
        sum(model.train().loss(batch).values()).backward()
        assert model.perception.projection.linear.weight.grad.abs().sum() > 0
        model.eval()
        together = model.transcribe(recordings, batch_size=2, verbose=False)
        assert together == [model.transcribe([samples], verbose=False)[0] for samples in recordings]
        return together

    return answers


@pytest.mark.parametrize("title", SECTIONS)
def test_a_plug_in_is_short(title):
    assert len(code_of(title).splitlines()) <= 40


def test_an_encoder(run_plug_in, answers, tiny_salm_config):
    run_plug_in("An encoder")
    tiny_salm_config.model.freeze_params = ["^llm\\.(?!.*lora)"]  # it learns with the rest
    perception = tiny_salm_config.model.perception
    assert answers(perception={**perception, "encoder": {"type": "frames", "config": {"d_model": 16}}})


def test_an_adapter(run_plug_in, answers, tiny_salm_config):
    run_plug_in("An adapter")
    assert answers(perception={**tiny_salm_config.model.perception, "adapter": {"type": "mean", "n": 4}})


def test_an_llm(run_plug_in, answers, tiny_salm_config, tiny_llm_folder, tokenizer, tmp_path):
    parts = run_plug_in("An LLM")
    llama = AutoModelForCausalLM.from_pretrained(tiny_llm_folder)
    bare = parts.BareForCausalLM(parts.BareConfig(**llama.config.to_dict() | {"model_type": "bare"}))
    bare.save_pretrained(tmp_path / "bare")
    tokenizer.save_pretrained(tmp_path / "bare")
    assert answers(llm={**tiny_salm_config.model.llm, "pretrained": str(tmp_path / "bare")})


def test_a_skill(run_plug_in, tmp_path, monkeypatch):
    (tmp_path / "initials.yaml").write_text(code_of("A skill", "yaml"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    run_plug_in("A skill")
    assert apply_rule("initials", "Please hold, the line.", {}) == "P h t l"
    pool = load_pools()["initials"]
    assert len(pool.seen) == 2 and pool.unseen_verbs == ("take",)


def test_a_model(run_plug_in, answers, tiny_salm_config, make_audio):
    model_class = run_plug_in("A model").ToldSALM
    assert answers(model_class)
    model = model_class(OmegaConf.merge(tiny_salm_config.model, {"train_ds": None, "validation_ds": None}))
    asked = [conversation(make_audio(0.5), **said).without_answer() for said in ({"lang": "de"}, {})]
    told = [model.tokenizer.decode(model.prompt_segments(question)[0].ids) for question in asked]
    assert ["The speech is in German." in prompt for prompt in told] == [True, False]

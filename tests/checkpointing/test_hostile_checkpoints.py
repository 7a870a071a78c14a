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

"""Checkpoints made to harm whoever loads them; ``tests/soak`` tries all of them, each in a process of its own."""

import importlib.util
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from omegaconf import OmegaConf

from nemo_speechllm.models import SALM

SOAK = Path(__file__).parents[1] / "soak" / "hostile_checkpoints.py"
KINDS = "members bombs damage YAML resolvers code artifacts references sizes endless pickles weights data".split()
SAMPLE = 4  # one in so many


def load_soak() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hostile_checkpoints", SOAK)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


soak = load_soak()


@pytest.fixture(scope="module")
def good(tiny_llm_folder, tiny_whisper_folder, tmp_path_factory) -> Iterator:
    """A whole tiny SALM, in pieces."""
    cfg = OmegaConf.load(Path(__file__).parents[2] / "conf/salm/whisper_smollm2.yaml").model
    tiny = {
        "llm": {"pretrained": str(tiny_llm_folder)},
        "lora": {"r": 4, "alpha": 8},
        "perception": {
            "encoder": {"pretrained": str(tiny_whisper_folder)},
            "adapter": {"n_layers": 1, "d_model": 32, "n_heads": 2},
        },
        "train_ds": None,
        "validation_ds": None,
    }
    folder = tmp_path_factory.mktemp("victim")
    torch.manual_seed(0)
    SALM(OmegaConf.merge(cfg, tiny)).save_to(folder / "good.nemo")
    yield soak.Good.of(folder / "good.nemo", folder)


def test_every_kind_is_tried():
    assert list(soak.KINDS) == KINDS


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", KINDS)
def test_a_hostile_checkpoint_is_refused_by_name_or_does_nothing(good, tmp_path, monkeypatch, kind):
    monkeypatch.setenv("VICTIM_TOKEN", soak.SECRET)
    forgeries = list(soak.forgeries_of(good, kind))
    step = 1 if kind == "data" else SAMPLE
    for forgery in forgeries[::step]:
        path = tmp_path / "forgery.nemo"
        forgery.write(path)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert soak.outcome(forgery, path, good) == "", forgery.name
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2 * 2**20, forgery.name  # KiB


def test_the_good_one_is_restored(good, tmp_path):
    (tmp_path / "good.nemo").write_bytes(soak.tar_of(soak.entries(good.members)))
    assert isinstance(SALM.restore_from(tmp_path / "good.nemo"), SALM)


def test_no_code_runs_though_the_environment_allows_it(good, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    payload = soak.Payload(os.system, f"touch {good.marker}")
    path = tmp_path / "forgery.nemo"
    path.write_bytes(soak.tar_of(soak.entries(good.members | {soak.WEIGHTS: soak.saved({"x": payload})})))
    assert soak.outcome(soak.Forgery("pickles", "environment", lambda path: None), path, good) == ""

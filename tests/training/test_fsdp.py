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


"""Sharding the text decoder changes what a process holds, and nothing of what is computed and saved."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from nemo.collections.asr.models import EncDecCTCModelBPE
from omegaconf import OmegaConf

from nemo_speechllm.models import SALM, CTCPromptedLLM, DeSTA2, InstructLAS, instruct_las
from nemo_speechllm.modules.llm import load_llm
from nemo_speechllm.training.fsdp import FSDP2Strategy, clip_gradients, gradient_norm, shard_layers
from nemo_speechllm.training.resume import resumable
from tests.several_processes import (
    ROWS,
    assert_alike,
    count_in_double,
    ctc_prompted_config,
    desta2_config,
    instruct_las_config,
    salm_config,
    tiny_training,
)
from tests.tiny_desta2 import desta2_recipe, talkative_llm_folder, whole_whisper_folder  # noqa: F401

pytestmark = pytest.mark.slow  # each test starts several processes

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("model_class", "config", "changes"),
    [
        (SALM, salm_config, {}),
        (SALM, salm_config, {"llm": {"activation_checkpointing": True}}),
        (CTCPromptedLLM, ctc_prompted_config, {}),
        (InstructLAS, instruct_las_config, {}),
        (DeSTA2, desta2_config, {}),
    ],
    ids=["SALM", "checkpointing", "CTCPromptedLLM", "InstructLAS", "DeSTA2"],
)
def test_shards_have_the_losses_gradients_and_figures_of_one_process(
    model_class, config, changes, train, make_manifest, request, monkeypatch
):
    """With uneven answers, an epoch's last batch of one utterance, and steps after a validation."""
    manifest = make_manifest((0.9, 2.8, 2.6, 0.7, 1.1), "unequal.jsonl", ROWS, transcription="hello")
    whole, part = (OmegaConf.merge(config(request, manifest, size), changes) for size in (4, 2))
    count_in_double(monkeypatch)
    options = {"precision": "64-true", "max_steps": 3, "limit_val_batches": 1.0, "val_check_interval": 1}
    options |= {"gradient_clip_val": 0.1}
    (one,) = train(model_class, whole, 1, "one", **options)
    assert len(one["gradients"]) == 3
    assert_alike(one, train(model_class, part, 2, "sharded", sharded=True, **options))


def test_checkpoints_are_those_of_one_process_and_resumed_by_any_number(
    train, make_manifest, request, tmp_path, monkeypatch
):
    """One is written while the layers are whole, for validation, and between the batches of a step."""
    manifest = make_manifest((0.4, 0.8, 0.5, 0.9, 0.6, 1.2, 0.7), "train.jsonl")
    cfg, checkpoint = salm_config(request, manifest, 1), tmp_path / "step=1.ckpt"
    count_in_double(monkeypatch)
    options = {"precision": "64-true", "max_steps": 2, "accumulate_grad_batches": 2, "gradient_clip_val": 0.1}
    options |= {"limit_val_batches": 1.0, "val_check_interval": 3}
    uninterrupted = train(SALM, cfg, 2, "uninterrupted", checkpoint=checkpoint, sharded=True, **options)
    saved = torch.load(checkpoint, weights_only=True)
    assert saved["shares"] == [[2, 3]] and saved["gradients"].keys() == uninterrupted[0]["gradients"][0].keys()
    assert not any(name.startswith("llm.") and ".lora_" not in name for name in saved["state_dict"])
    assert all(type(tensor) is torch.Tensor for tensor in saved["state_dict"].values())

    for sharded in (True, False):
        name = f"resumed-{sharded}"
        resumed = train(SALM, cfg, 2, name, checkpoint, tmp_path / "other" / "step=2.ckpt", sharded, **options)
        for before, after in zip(uninterrupted, resumed, strict=True):
            assert after["losses"] == pytest.approx(before["losses"][3:], rel=1e-7)  # weights are read in single
            found, expected = after["gradients"][-1], before["gradients"][-1]
            error = gradient_norm(found[parameter] - gradient for parameter, gradient in expected.items())
            assert error < 1e-6 * gradient_norm(expected.values())
        written = torch.load(tmp_path / "other" / "step=2.ckpt", weights_only=True)["optimizer_states"][0]
        assert written["state"].keys() == saved["optimizer_states"][0]["state"].keys()
        one, other = (SALM.restore_from(tmp_path / folder / "end.nemo") for folder in ("uninterrupted", name))
        torch.testing.assert_close(other.state_dict(), one.state_dict(), rtol=1e-5, atol=1e-8)
    (alone,) = train(SALM, cfg, 1, "alone", checkpoint, **options)
    assert len(alone["trained"]) == 1 and not {*alone["trained"]} & {*uninterrupted[0]["trained"][:3]}


def test_processes_with_more_and_fewer_texts_wait_for_each_other(train, make_manifest, request, monkeypatch):
    """A decoder that one process ran oftener than the other would wait for it for ever."""
    monkeypatch.setattr(instruct_las, "TEXTS_AT_ONCE", 1)
    manifest = make_manifest((0.5, 0.5, 0.5, 1.5), "unequal.jsonl", ROWS[:4])
    cfg = instruct_las_config(request, manifest, 1)
    cfg.train_ds = OmegaConf.merge(cfg.train_ds, {"batch_size": None, "batch_duration": 1.6})
    several = train(InstructLAS, cfg, 2, "sharded", sharded=True)
    assert sorted(len(process["trained"]) for process in several) == [1, 3]


def test_a_model_without_a_text_decoder_is_not_sharded(make_trainer, stage1_nemo):
    model = resumable(EncDecCTCModelBPE).restore_from(stage1_nemo)
    trainer = make_trainer(strategy=FSDP2Strategy())
    model.set_trainer(trainer)
    with pytest.raises(ValueError, match="layers of a text decoder, and EncDecCTCModelBPE has none; use trainer=ddp"):
        model.configure_model()


def test_layers_that_nobody_names_are_not_sharded(tiny_llm_folder):
    llm = load_llm(tiny_llm_folder)
    llm._no_split_modules = None
    with pytest.raises(ValueError, match="LlamaForCausalLM does not say which modules are its layers"):
        shard_layers(llm, mesh=None)


def test_gradients_are_clipped_as_pytorch_does():
    for algorithm, expected in (("norm", [0.6, 0.8]), ("value", [1.0, 1.0])):
        parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(3)]
        parameters[0].grad, parameters[1].grad = torch.tensor([3.0]), torch.tensor([4.0])
        clip_gradients(parameters, 1.0, algorithm)
        assert [float(parameter.grad) for parameter in parameters[:2]] == pytest.approx(expected, abs=1e-6)


def test_what_torchrun_has_trained_in_shards_is_restored_by_one_process(tiny_salm_config, make_manifest, tmp_path):
    changes = {f"{name}_ds.manifest_filepath": make_manifest(name=f"{name}.jsonl") for name in ("train", "validation")}
    done = subprocess.run(
        [
            ROOT / "examples/launch/torchrun.sh",
            *tiny_training(tiny_salm_config.model, "fsdp2", tmp_path / "run", changes),
        ],
        env=os.environ
        | {
            "DEVICES": "2",
            "OMP_NUM_THREADS": "1",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "run/salm_whisper_smollm2/checkpoints"
    (nemo,), (last,) = folder.glob("*.nemo"), folder.glob("*-last.ckpt")
    model = SALM.restore_from(nemo)
    torch.testing.assert_close(model.state_dict(), torch.load(last, weights_only=True)["state_dict"], rtol=0, atol=0)
    assert not any(name.startswith("llm.") and ".lora_" not in name for name in model.state_dict())
    assert len(model.transcribe([np.zeros(16000, dtype=np.float32)], verbose=False)) == 1

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


"""Training by several processes on a CPU, and by one: what each of them meets."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.plugins import DoublePrecision
from nemo.collections.asr.modules import audio_preprocessing
from nemo.collections.asr.parts.preprocessing import features
from omegaconf import DictConfig, OmegaConf
from torch.multiprocessing import start_processes
from transformers.models.llama import modeling_llama
from transformers.models.t5 import modeling_t5
from transformers.models.whisper import feature_extraction_whisper

from nemo_speechllm.models.speech_lm import SpeechLM
from nemo_speechllm.modules import encoders
from nemo_speechllm.training.fsdp import in_whole


class Witness(pl.Callback):
    """Notes what each process meets, in a file of its own that outlives it."""

    def __init__(self, folder: Path, checkpoint: Path | None = None):
        self.folder, self.checkpoint = folder, checkpoint
        self.losses, self.gradients, self.trained, self.validated, self.metrics = [], [], [], [], {}

    def on_before_optimizer_step(self, trainer, model, optimizer):
        named = model.named_parameters()
        self.gradients.append({name: in_whole(p.grad).clone() for name, p in named if p.grad is not None})

    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]))
        self.trained += [conversation.id for conversation in batch.conversations]
        if self.checkpoint is not None and self.checkpoint.stem == f"step={trainer.global_step}":
            trainer.save_checkpoint(self.checkpoint)

    def on_validation_batch_end(self, trainer, model, outputs, batch, batch_idx, dataloader_idx=0):
        self.validated += [] if batch.is_repeated else [conversation.id for conversation in batch.conversations]

    def on_validation_end(self, trainer, model):
        if self.checkpoint is not None and self.checkpoint.stem == f"step={trainer.global_step}":
            trainer.save_checkpoint(self.checkpoint)

    def on_train_end(self, trainer, model):
        if self.checkpoint is not None:
            model.save_to(self.folder / "end.nemo")
        self.metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        seen = ("losses", "gradients", "trained", "validated", "metrics")
        torch.save({name: getattr(self, name) for name in seen}, self.folder / f"{trainer.global_rank}.pt")


@pytest.fixture
def train(make_trainer, tmp_path, monkeypatch) -> Callable[..., list[dict[str, Any]]]:
    """``train(model_class, cfg, processes, name, ckpt_path=None, checkpoint=None, sharded=False, **options)`` → what
    each process met."""

    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")  # its threads do not survive a fork

    def run(
        model_class: type[SpeechLM],
        cfg: DictConfig,
        processes: int,
        name: str,
        ckpt_path: Path | None = None,
        checkpoint: Path | None = None,
        sharded: bool = False,
        **options,
    ) -> list[dict[str, Any]]:
        folder = tmp_path / name
        folder.mkdir()
        own = {"devices": processes, "strategy": "auto" if processes == 1 else "ddp_fork"}
        if sharded:  # Lightning does not take this precision by name, nor does it fork
            own = {"devices": processes, "strategy": "fsdp2"}
            if options.pop("precision", None):
                own["plugins"] = [DoublePrecision()]
        defaults = {"limit_val_batches": 0, "max_steps": 1, "check_val_every_n_epoch": None}

        def fit(rank: int = 0) -> None:
            witness = Witness(folder, checkpoint)
            trainer = make_trainer(callbacks=[witness], default_root_dir=tmp_path, **defaults | own | options)
            pl.seed_everything(0)
            trainer.fit(model_class(cfg, trainer), ckpt_path=ckpt_path)

        if sharded:
            start_processes(
                as_torchrun_does, args=(fit, processes, free_port()), nprocs=processes, start_method="fork"
            )
        else:
            fit()
        return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(processes)]

    return run


def as_torchrun_does(rank: int, run: Callable[[int], None], processes: int, port: int) -> None:
    """Run in a process what finds its place in the environment."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
    place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
    os.environ |= {name: str(value) for name, value in place.items()}
    run(rank)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def assert_alike(one: dict[str, Any], several: list[dict[str, Any]]) -> None:
    """Assert that processes had the losses, gradients and figures of validation of one with their batches."""
    for step, expected in enumerate(one["gradients"]):
        size = torch.stack([gradient.norm() for gradient in expected.values()]).norm()
        assert size > 0
        losses = [process["losses"][step] for process in several]
        assert sum(losses) / len(several) == pytest.approx(one["losses"][step], rel=1e-12)
        for process in several:
            found = process["gradients"][step]
            assert found.keys() == expected.keys()
            error = torch.stack([(found[name] - gradient).norm() for name, gradient in expected.items()]).norm()
            assert error / size < 1e-12
    of_validation = {name: value for name, value in one["metrics"].items() if name.startswith("val_")}
    of_training = {name: value for name, value in one["metrics"].items() if name.startswith("train_")}
    for process in several:
        assert {name: process["metrics"][name] for name in of_validation} == of_validation
        assert {name: process["metrics"][name] for name in of_training} == pytest.approx(of_training, rel=1e-6)


ROWS = [
    {"text": "thank you"},
    {"text": "please hold the line your call is important to us press one for support"},
    {"text": "merci de patienter please hold the line thank you please hold the line"},
    {"text": "your"},
    {"text": "press one"},
]


def without_chance(cfg: DictConfig, manifest: Path, batch_size: int) -> DictConfig:
    """A recipe in which a step depends on nothing but weights and data."""
    data = {"manifest_filepath": str(manifest), "batch_size": batch_size, "num_workers": 0}
    data |= {"use_bucketing": False, "shuffle": False}
    changed = OmegaConf.merge(cfg, {"train_ds": data, "validation_ds": data | {"batch_size": 2}})
    changed.perception.state_mask = None
    return changed


def salm_config(request, manifest: Path, batch_size: int) -> DictConfig:
    cfg = without_chance(request.getfixturevalue("tiny_salm_config").model, manifest, batch_size)
    dropout = {name: 0.0 for name in ("dropout", "dropout_pre_encoder", "dropout_emb", "dropout_att")}
    return OmegaConf.merge(cfg, {"perception": {"adapter": dropout}})


def ctc_prompted_config(request, manifest: Path, batch_size: int) -> DictConfig:
    cfg = without_chance(request.getfixturevalue("ctc_prompted_config"), manifest, batch_size)
    freeze = [
        "^perception\\.encoder\\.",
        "^llm\\.(?!.*lora_)",
    ]  # an encoder that trains has statistics of each process's batch
    return OmegaConf.merge(cfg, {"loss": {"encoder_ctc_weight": 0.3, "ctc_weight": 0.3}, "freeze_params": freeze})


def instruct_las_config(request, manifest: Path, batch_size: int) -> DictConfig:
    cfg = without_chance(request.getfixturevalue("instruct_las_recipe").model, manifest, batch_size)
    dropout = {name: 0.0 for name in ("dropout", "dropout_pre_encoder", "dropout_emb", "dropout_att")}
    encoder = dropout | {"conv_norm_type": "layer_norm"}
    config = {"encoder": encoder, "preprocessor": {"dither": 0.0}}
    changes = {"perception": {"encoder": {"config": config, "spec_augment": None}}, "decoder": {"dropout": 0.0}}
    changes |= {
        "instruction_sampling": None,
        "train_ds": {"batch_duration": None, "min_duration": 0.1, "perturb_speed": False},
        "loss": {"instruction_weight": 0.5},
    }
    return OmegaConf.merge(cfg, changes)


def desta2_config(request, manifest: Path, batch_size: int) -> DictConfig:
    cfg = without_chance(request.getfixturevalue("desta2_recipe").model, manifest, batch_size)
    return OmegaConf.merge(cfg, {"perception": {"adapter": {"dropout": 0.0}}})


def count_in_double(monkeypatch) -> None:
    """Let nothing fall back on single precision, as norms and front ends do whatever the model's is."""
    double = SimpleNamespace(**vars(torch) | dict.fromkeys(("float", "float32"), torch.float64))
    front_ends = (encoders, features, audio_preprocessing, feature_extraction_whisper)
    for module in (modeling_llama, modeling_t5, *front_ends):
        monkeypatch.setattr(module, "torch", double)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


def tiny_training(model: DictConfig, trainer: str, folder: Path, changes: dict[str, Any]) -> list[str]:
    """Return the arguments of a training of the tiny SALM, two steps of batches of two."""
    settings = {
        "llm.pretrained": model.llm.pretrained,
        "perception.encoder.pretrained": model.perception.encoder.pretrained,
        "perception.adapter.n_layers": 1,
        "perception.adapter.d_model": 32,
        "train_ds.batch_size": 2,
        "train_ds.num_workers": 0,
        "train_ds.use_bucketing": False,
        "validation_ds.batch_size": 1,
    }
    overrides = {f"model.{name}": value for name, value in (settings | changes).items()}
    overrides |= {"trainer": trainer, "trainer.accelerator": "cpu", "exp_manager.exp_dir": folder}
    overrides |= {"trainer.max_steps": 2, "trainer.val_check_interval": 2}
    return ["--config-name=salm/whisper_smollm2", *(f"{name}={value}" for name, value in overrides.items())]

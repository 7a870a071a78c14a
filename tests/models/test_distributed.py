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


"""Training on two processes: ``examples/train.py``, and what one process would have made of the same batches."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from nemo.collections.asr.modules import audio_preprocessing
from nemo.collections.asr.parts.preprocessing import features
from omegaconf import DictConfig, OmegaConf
from transformers.models.llama import modeling_llama
from transformers.models.t5 import modeling_t5

from nemo_speechllm.models import SALM, CTCPromptedLLM, InstructLAS
from nemo_speechllm.models.speech_lm import SpeechLM
from nemo_speechllm.modules import encoders

pytestmark = pytest.mark.slow  # each test starts Pythons that import NeMo

ROOT = Path(__file__).parents[2]

# runs in each process: Lightning starts the second one with the command line of the first
RECORDED_TRAINING = f"""
import importlib.util, json, os
from pathlib import Path
from nemo_speechllm.metrics.error_rate import ErrorCounts
from nemo_speechllm.models import SALM
from nemo_speechllm.models.answers import Answer
from nemo_speechllm.modules.fingerprint import state_digest

record = {{"trained": [], "validated": []}}
steps = {{"trained": SALM.training_step, "validated": SALM.validation_step}}
on_validation_epoch_end, on_train_end = SALM.on_validation_epoch_end, SALM.on_train_end

def recorded(name):
    def step(self, batch, *args):
        record[name] += [conversation.id for conversation in batch.conversations]
        return steps[name](self, batch, *args)
    return step

def answered_by_one(self, batch, *args, **options):
    return [Answer(item.answer if self.global_rank == 0 else "", [], False) for item in batch.conversations]

def recorded_on_validation_epoch_end(self):
    (tally,) = self._validation_tallies.values()
    record["loss"], record["words"] = float(tally.loss), sum(tally.words.values(), ErrorCounts()).counts
    on_validation_epoch_end(self)

def recorded_on_train_end(self):
    on_train_end(self)
    record["metrics"] = {{name: float(value) for name, value in self.trainer.callback_metrics.items()}}
    record["weights"] = state_digest(self)
    (Path(os.environ["RECORDS"]) / f"{{self.global_rank}}.json").write_text(json.dumps(record))
    self.trainer.strategy.barrier()  # the first process does not wait for the second to end

SALM.training_step, SALM.validation_step = recorded("trained"), recorded("validated")
SALM.generate_answers = answered_by_one  # error rates that differ between the processes
SALM.on_validation_epoch_end, SALM.on_train_end = recorded_on_validation_epoch_end, recorded_on_train_end
script = importlib.util.spec_from_file_location("__main__", {str(ROOT / "examples/train.py")!r})
script.loader.exec_module(importlib.util.module_from_spec(script))  # runpy would put that script into the command line
"""


@pytest.fixture
def records(tiny_salm_config: DictConfig, make_manifest, tmp_path: Path) -> list[dict]:
    """What each of two processes saw and ended with, after one epoch of eight utterances in batches of two."""
    script, folder, model = tmp_path / "train.py", tmp_path / "records", tiny_salm_config.model
    script.write_text(RECORDED_TRAINING)
    folder.mkdir()
    overrides = {
        "model.llm.pretrained": model.llm.pretrained,
        "model.perception.encoder.pretrained": model.perception.encoder.pretrained,
        "model.perception.adapter.n_layers": 1,
        "model.perception.adapter.d_model": 32,
        "model.train_ds.manifest_filepath": make_manifest((0.5,) * 8, "train.jsonl"),
        "model.train_ds.batch_size": 2,
        "model.train_ds.num_workers": 0,
        "model.train_ds.use_bucketing": False,
        "model.validation_ds.manifest_filepath": make_manifest((0.5, 0.6, 0.7, 0.8), "dev.jsonl"),
        "model.validation_ds.batch_size": 1,
        "trainer.accelerator": "cpu",
        "trainer.devices": 2,
        "trainer.max_steps": 2,
        "trainer.val_check_interval": 2,
        "exp_manager.exp_dir": tmp_path / "run",
    }
    command = [sys.executable, str(script), "--config-name=salm/whisper_smollm2"]
    done = subprocess.run(
        [*command, *(f"{name}={value}" for name, value in overrides.items())],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "RECORDS": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_two_processes_train_one_model_on_all_data(records):
    first, second = records
    assert first["weights"] == second["weights"]
    for name, size in (("trained", 8), ("validated", 4)):
        assert len(first[name]) == len(second[name]) == size // 2
        assert len({*first[name], *second[name]}) == size

    assert sum(first["words"][:3]) == 0 < sum(second["words"][:3])
    *errors, words = map(sum, zip(first["words"], second["words"], strict=False))
    for record in records:
        assert record["metrics"]["val_wer"] == pytest.approx(sum(errors) / words)
        assert record["metrics"]["val_loss"] == pytest.approx((first["loss"] + second["loss"]) / 4)


class Witness(pl.Callback):
    """Notes what each process meets, in a file of its own that outlives it."""

    def __init__(self, folder: Path, checkpoint: Path | None = None):
        self.folder, self.checkpoint = folder, checkpoint
        self.losses, self.gradients, self.validated, self.metrics = [], [], [], {}

    def on_before_optimizer_step(self, trainer, model, optimizer):
        named = model.named_parameters()
        self.gradients.append({name: p.grad.clone() for name, p in named if p.grad is not None})

    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]))
        if self.checkpoint is not None and trainer.global_step == 2:
            trainer.save_checkpoint(self.checkpoint)

    def on_validation_batch_end(self, trainer, model, outputs, batch, batch_idx, dataloader_idx=0):
        self.validated += [] if batch.is_repeated else [conversation.id for conversation in batch.conversations]

    def on_train_end(self, trainer, model):
        self.metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        seen = ("losses", "gradients", "validated", "metrics")
        torch.save({name: getattr(self, name) for name in seen}, self.folder / f"{trainer.global_rank}.pt")


@pytest.fixture
def train(make_trainer, tmp_path, monkeypatch) -> Callable[..., list[dict[str, Any]]]:
    """``train(model_class, cfg, processes, name, ckpt_path=None, checkpoint=None, **options)`` → what each process
    met."""

    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")  # its threads do not survive a fork

    def run(
        model_class: type[SpeechLM],
        cfg: DictConfig,
        processes: int,
        name: str,
        ckpt_path: Path | None = None,
        checkpoint: Path | None = None,
        **options,
    ) -> list[dict[str, Any]]:
        folder = tmp_path / name
        folder.mkdir()
        strategy = {"strategy": "ddp_fork", "devices": processes} if processes > 1 else {}
        defaults = {
            "limit_val_batches": 0,
            "max_steps": 1,
            "check_val_every_n_epoch": None,
            "default_root_dir": tmp_path,
        }
        trainer = make_trainer(callbacks=[Witness(folder, checkpoint)], **strategy | defaults | options)
        pl.seed_everything(0)
        trainer.fit(model_class(cfg, trainer), ckpt_path=ckpt_path)
        return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(processes)]

    return run


ROWS = [
    {"text": "thank you"},
    {"text": "please hold the line your call is important to us press one for support"},
    {"text": "merci de patienter please hold the line thank you please hold the line"},
    {"text": "your"},
]


def without_chance(cfg: DictConfig, manifest: Path, batch_size: int) -> DictConfig:
    """A recipe in which a step depends on nothing but weights and data."""
    data = {"manifest_filepath": str(manifest), "batch_size": batch_size, "num_workers": 0}
    data |= {"use_bucketing": False, "shuffle": False}
    changed = OmegaConf.merge(cfg, {"train_ds": data, "validation_ds": data})
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
        "train_ds": {"batch_duration": None, "min_duration": 0.1},
        "loss": {"instruction_weight": 0.5},
    }
    return OmegaConf.merge(cfg, changes)


def count_in_double(monkeypatch) -> None:
    """Let nothing fall back on single precision, as norms and front ends do whatever the model's is."""
    double = SimpleNamespace(**vars(torch) | dict.fromkeys(("float", "float32"), torch.float64))
    for module in (modeling_llama, modeling_t5, encoders, features, audio_preprocessing):
        monkeypatch.setattr(module, "torch", double)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


@pytest.mark.parametrize(
    ("model_class", "config"),
    [(SALM, salm_config), (CTCPromptedLLM, ctc_prompted_config), (InstructLAS, instruct_las_config)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_token_weighs_the_same_in_every_process(model_class, config, train, make_manifest, request, monkeypatch):
    """In double precision: in single, what a batch is padded to and the order of sums move gradients by 2e-5."""
    manifest = make_manifest((0.9, 2.8, 2.6, 0.7), "unequal.jsonl", ROWS)
    whole, half = config(request, manifest, 2), config(request, manifest, 1)
    count_in_double(monkeypatch)
    (one,) = train(model_class, whole, 1, "one", precision="64-true")
    two = train(model_class, half, 2, "two", precision="64-true")
    (expected,) = one["gradients"]
    size = torch.stack([gradient.norm() for gradient in expected.values()]).norm()
    assert size > 0
    for process in two:
        (found,) = process["gradients"]
        assert found.keys() == expected.keys()
        error = torch.stack([(found[name] - gradient).norm() for name, gradient in expected.items()]).norm()
        assert error / size < 1e-12


def test_validation_has_the_figures_of_one_process(train, make_manifest, request):
    train_ds = make_manifest((0.5,) * 4, "train.jsonl", text="thank you")
    rows = [{"lang": lang} for lang in ("en", "fr", "en", "fr", "de")]
    dev = make_manifest((0.5, 1.7, 0.6, 1.3, 0.9), "dev.jsonl", rows)
    cfg = OmegaConf.merge(salm_config(request, train_ds, 1), {"optim": {"lr": 0.0}})
    for size in (2, 1):
        cfg.validation_ds = OmegaConf.merge(cfg.validation_ds, {"manifest_filepath": str(dev), "batch_size": size})
        options = {"limit_val_batches": 1.0, "val_check_interval": 1}
        (one,) = train(SALM, cfg, 1, f"one-{size}", **options)
        two = train(SALM, cfg, 2, f"two-{size}", **options)
        assert (
            sorted(two[0]["validated"] + two[1]["validated"]) == sorted(one["validated"])
            and len(one["validated"]) == 5
        )
        expected = {name: value for name, value in one["metrics"].items() if name.startswith("val_")}
        assert {"val_loss", "val_wer", "val_wer_macro", "val_alignment"} <= expected.keys()
        assert ("val_listening" in expected) == (size > 1)  # alone there is no other audio
        for process in two:
            assert {name: process["metrics"][name] for name in expected} == expected


def test_every_process_gets_its_own_random_numbers_back(train, make_manifest, request, tmp_path):
    manifest = make_manifest((0.9, 1.8, 1.6, 0.7, 0.8, 1.2), "train.jsonl")
    cfg = OmegaConf.merge(salm_config(request, manifest, 1), {"lora": {"dropout": 0.3}})

    class Uneven(SALM):
        def loss(self, batch):
            torch.rand(1 + self.global_rank)  # as a process does whose batch is larger
            return super().loss(batch)

    whole = train(Uneven, cfg, 2, "whole", checkpoint=tmp_path / "step=2.ckpt", max_steps=5)
    resumed = train(Uneven, cfg, 2, "resumed", ckpt_path=tmp_path / "step=2.ckpt", max_steps=5)
    for before, after in zip(whole, resumed, strict=False):
        assert len(before["losses"]) == 5 and after["losses"] == before["losses"][2:]
    states = torch.load(tmp_path / "step=2.ckpt", weights_only=True)["rng_states"]
    assert not torch.equal(states[0]["torch"], states[1]["torch"])


def test_all_processes_stop_for_the_loss_of_one(train, make_manifest, request, tmp_path):
    manifest = make_manifest((0.9, 1.8, 1.6, 0.7), "train.jsonl")

    class Spoilt(SALM):
        def loss(self, batch):
            losses = super().loss(batch)
            spoilt = any("train-3" in conversation.id for conversation in batch.conversations)
            return losses | {"loss": losses["loss"] * (torch.inf if spoilt else 1.0)}

    with pytest.raises(Exception, match="NonFiniteError: step 1"):
        train(Spoilt, salm_config(request, manifest, 1), 2, "two", max_steps=2)
    assert [path.name for path in (tmp_path / "non_finite").iterdir()] == ["step=1-rank=1.pt"]

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

"""A Lightning checkpoint of unknown origin runs nothing, and a damaged one is known for it."""

import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.fabric.utilities.data import AttributeDict
from omegaconf import DictConfig, OmegaConf

from nemo_speechllm.checkpointing.ckpt import SafeCheckpointIO, read_checkpoint
from nemo_speechllm.checkpointing.errors import CheckpointError
from nemo_speechllm.models import SALM


class Payload:
    """What a stranger's pickle does when it is read."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def hostile(make_salm, tiny_salm_config, make_manifest, tmp_path: Path) -> Callable[..., Path]:
    """``hostile(key)`` → a checkpoint that fits the tiny SALM, but for what it holds under ``key``."""
    tiny_salm_config.model.validation_ds.manifest_filepath = str(make_manifest(name="dev.jsonl"))

    def make(key: str) -> Path:
        model = make_salm()
        checkpoint = {"state_dict": model.state_dict(), "hyper_parameters": {"cfg": OmegaConf.to_container(model.cfg)}}
        checkpoint |= {"pytorch-lightning_version": "2.4.0", "global_step": 1, "epoch": 0}
        torch.save(checkpoint | {key: Payload(tmp_path / "ran")}, tmp_path / "hostile.ckpt")
        return tmp_path / "hostile.ckpt"

    return make


def load(path: Path, cfg: DictConfig, trainer: pl.Trainer) -> None:
    SALM.load_from_checkpoint(path)


def load_open_file(path: Path, cfg: DictConfig, trainer: pl.Trainer) -> None:
    with open(path, "rb") as file:
        SALM.load_from_checkpoint(file)


def fit(path: Path, cfg: DictConfig, trainer: pl.Trainer) -> None:
    trainer.fit(SALM(cfg.model, trainer), ckpt_path=path)


def validate(path: Path, cfg: DictConfig, trainer: pl.Trainer) -> None:
    model = SALM(cfg.model, trainer)
    model.setup_validation_data(model.cfg.validation_ds)
    trainer.validate(model, ckpt_path=path)


def initialise(path: Path, cfg: DictConfig, trainer: pl.Trainer) -> None:
    SALM(cfg.model, trainer).maybe_init_from_pretrained_checkpoint(OmegaConf.create({"init_from_ptl_ckpt": str(path)}))


def initialise_from_several(path: Path, cfg: DictConfig, trainer: pl.Trainer) -> None:
    sources = {"init_from_ptl_ckpt": {"first": {"path": str(path)}}}
    SALM(cfg.model, trainer).maybe_init_from_pretrained_checkpoint(OmegaConf.create(sources))


WAYS = [load, load_open_file, fit, validate, initialise, initialise_from_several]


@pytest.mark.parametrize("use", WAYS, ids=lambda way: way.__name__)
def test_a_pickle_in_a_checkpoint_runs_nothing(use, hostile, tiny_salm_config, make_trainer, tmp_path):
    for key in ("hyper_parameters", "callbacks"):
        path = hostile(key)
        with pytest.raises(CheckpointError, match=r"hostile\.ckpt.*is not loaded"):
            use(path, tiny_salm_config, make_trainer())
        assert not (tmp_path / "ran").exists()


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2  # among the weights: torch.load alone would take it
    return content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", [truncated, flipped, lambda content: b"", lambda content: b"\0" * len(content)])
def test_a_damaged_checkpoint_is_named(damage, tmp_path):
    path = tmp_path / "damaged.ckpt"
    torch.save({"state_dict": {"weight": torch.randn(5000)}}, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match=r"damaged\.ckpt is not a whole .ckpt file .*another checkpoint"):
        read_checkpoint(path)


def test_what_is_no_checkpoint_is_named(tmp_path):
    torch.save(torch.zeros(3), tmp_path / "tensor.ckpt")
    with pytest.raises(CheckpointError, match="tensor.ckpt is no Lightning checkpoint"):
        read_checkpoint(tmp_path / "tensor.ckpt")
    with pytest.raises(CheckpointError, match="none.ckpt does not exist"):
        read_checkpoint(tmp_path / "none.ckpt")


def test_the_config_of_an_older_checkpoint_is_read(tmp_path):
    cfg = OmegaConf.create({"optim": {"lr": 1e-3, "betas": [0.9, 0.98]}, "name": "x", "on": True, "none": None})
    torch.save({"state_dict": {}, "hyper_parameters": AttributeDict(cfg=cfg)}, tmp_path / "old.ckpt")
    assert read_checkpoint(tmp_path / "old.ckpt")["hyper_parameters"]["cfg"] == cfg


@contextmanager
def disk_of(size: int) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes: what a full disk looks like to a writer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_an_error_and_spoils_nothing(make_salm, tmp_path):
    model, io = make_salm(), SafeCheckpointIO()
    io.save_checkpoint({"state_dict": {"weight": torch.zeros(2)}}, tmp_path / "last.ckpt")
    before = (tmp_path / "last.ckpt").read_bytes()
    with disk_of(20_000):
        for save in (
            lambda: io.save_checkpoint({"state_dict": {"weight": torch.zeros(99_999)}}, tmp_path / "last.ckpt"),
            lambda: model.save_to(tmp_path / "model.nemo"),
        ):
            with pytest.raises(CheckpointError, match=r"(last.ckpt|model.nemo) could not be written .*same command"):
                save()
    assert (tmp_path / "last.ckpt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.suffix in (".ckpt", ".nemo")] == ["last.ckpt"]
    assert not list(tmp_path.glob(".partial-*"))

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

"""A killed run goes on with the losses it would have had: same data order, same random numbers."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lhotse.dataset.sampling.base import CutSampler
from lightning.pytorch import Trainer
from nemo.core.classes import ModelPT
from nemo.utils import logging
from nemo.utils.callbacks import NeMoModelCheckpoint
from nemo.utils.exp_manager import get_log_dir
from omegaconf import DictConfig, OmegaConf, open_dict
from torch.utils.data import DataLoader, IterableDataset

from nemo_speechllm.metrics.report import file_digest, write_json

RUN_RECORD = "run.json"


class ResumableTrainingMixin(ModelPT):
    """Adds to a Lightning checkpoint what Lightning leaves out: the place in the data and the state of the random numbers.

    All that is added is tensors and plain values, as is the config: ``torch.load`` reads the file with its safe default, and
    so does NeMo's ``init_from_ptl_ckpt``.

    Lightning restores weights, optimizer and counters, but starts the data from the beginning. Lhotse's own sampler state
    cannot be used: it does not exist for the constraints NeMo batches by, and it counts batches that were only prefetched.
    """

    _resumed_rng_states: dict[str, Any] | None = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["rng_states"] = random_states()
        checkpoint[self.CHECKPOINT_HYPER_PARAMS_KEY] = OmegaConf.to_container(self.hparams)
        checkpoint.pop(self.CHECKPOINT_HYPER_PARAMS_TYPE, None)
        if "loops" in checkpoint:
            # Lightning counts the last step only after validation, where checkpoints are written: losses logged after a
            # resume would stand one step too early
            checkpoint["loops"]["fit_loop"]["epoch_loop.state_dict"]["_batches_that_stepped"] = checkpoint[
                "global_step"
            ]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._resumed_rng_states = checkpoint.get("rng_states")

    def on_train_batch_start(self, batch: Any, batch_idx: int, unused: int = 0) -> int | None:
        # not earlier: what happens between the start of a process and its first step draws random numbers too
        if self._resumed_rng_states is not None:
            set_random_states(self._resumed_rng_states)
            self._resumed_rng_states = None
        return super().on_train_batch_start(batch, batch_idx, unused)

    def train_dataloader(self) -> DataLoader | None:
        """The training data; of a resumed run, what its epoch has left."""
        dataloader = super().train_dataloader()
        fit_loop = self._trainer.fit_loop if self._trainer is not None else None
        if dataloader is not None and fit_loop is not None and fit_loop.restarting:
            # a checkpoint written at the end of a step has counted it as processed, but not yet as completed
            skip_batches(
                dataloader,
                fit_loop.epoch_progress.current.processed,
                fit_loop.epoch_loop.batch_progress.current.processed,
            )
        return dataloader


def random_states() -> dict[str, Any]:
    """Where the generators of Python, NumPy and PyTorch stand, as tensors and plain values."""
    algorithm, keys, *position = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (algorithm, keys.tolist(), *position),
        "torch": torch.get_rng_state(),
        "torch.cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Puts the generators where `random_states` found them."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    torch.cuda.set_rng_state_all(states["torch.cuda"])


def skip_batches(dataloader: DataLoader, epoch: int, batches: int) -> None:
    """Lets the next pass over a Lhotse dataloader begin after its first ``batches``; no audio is read for that.

    Args:
        dataloader: from `nemo_speechllm.data.dataset.build_dataloader`.
        epoch: which pass it is; a sampler shuffles each one differently.
        batches: how many to leave out.
    """
    if isinstance(dataloader.dataset, IterableDataset):
        logging.warning(
            "tarred and Shar data are read as a stream that cannot be wound forward: the resumed run draws its data from "
            "the beginning of train_ds.shard_seed's order; set another shard_seed to see other data first"
        )
        return
    sampler = dataloader.sampler
    sampler.set_epoch(epoch)
    iter(sampler)
    for _ in range(batches):
        if next(sampler, None) is None:
            break
    # a restored sampler's next iter() goes on from where it stands; the subclasses' methods refuse the constraints NeMo sets
    CutSampler.load_state_dict(sampler, CutSampler.state_dict(sampler))


def find_resume_point(trainer: Trainer, manager: DictConfig) -> None:
    """Makes NeMo's ``exp_manager`` resume from a whole checkpoint, whenever the run was killed.

    It looks for one ``*-last.ckpt``. A kill while checkpoints are written may leave an unfinished one or two of them, and it
    refuses to start; or none yet beside the one of the same step that is written before it, and it starts from scratch.

    Args:
        trainer: of the run.
        manager: the recipe's ``exp_manager`` section; gets ``resume_from_checkpoint``, which is read where there is no last one.
    """
    keys = ("exp_dir", "name", "version", "explicit_log_dir")
    folder, *_ = get_log_dir(trainer, **{key: manager.get(key) for key in keys}, resume_if_exists=True)
    checkpoints = sorted((Path(folder) / "checkpoints").glob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    unfinished = [path for path in checkpoints if NeMoModelCheckpoint.is_checkpoint_unfinished(path)]
    whole = [path for path in checkpoints if path not in unfinished]
    outdated = [path for path in whole if path.match("*-last.ckpt")][:-1]
    for path in (*unfinished, *outdated):
        logging.warning(f"{path} is left from a kill while checkpoints were written; it is removed")
        path.unlink(missing_ok=True)  # another rank may have been here
    if whole and manager.get("resume_from_checkpoint") is None:
        with open_dict(manager):
            manager.resume_from_checkpoint = str(whole[-1])


def claim_run_folder(folder: Path, cfg: DictConfig) -> None:
    """Writes which recipe and data a run folder belongs to, or refuses one that belongs to others.

    NeMo resumes whatever it finds in the folder: without this, training on corrected data under the same name would
    quietly go on with, or just return, the model of the old data.

    Args:
        folder: of the run's checkpoints (NeMo moves files beside it away when a run is resumed).
        cfg: the recipe's ``model`` section, resolved.

    Raises:
        ValueError: the folder holds a run of another recipe or of manifests whose content has changed since; the message
            names what differs.
    """
    record = dict(_leaves(OmegaConf.to_container(cfg), "model"))
    manifests = {str(value) for name, value in record.items() if "manifest_filepath" in name}
    record |= {f"content of {path}": file_digest(path) for path in sorted(manifests) if Path(path).is_file()}
    path = folder / RUN_RECORD
    if not path.exists() or not any(
        folder.glob("*.ckpt")
    ):  # a run that ended before its first checkpoint holds nothing
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, record)
        return
    recorded = json.loads(path.read_text(encoding="utf-8"))
    differing = [key for key in sorted({*record, *recorded}) if record.get(key) != recorded.get(key)]
    if differing:
        raise ValueError(
            f"{folder} holds a run that differs in {differing[:5]}; it cannot be continued with other settings or data. "
            "Give the new run a name of its own (name=...), another exp_manager.exp_dir, or remove the folder"
        )


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Nested settings as pairs of dotted name and value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        yield name, value
    else:
        for key, inner in items:
            yield from _leaves(inner, f"{name}.{key}")

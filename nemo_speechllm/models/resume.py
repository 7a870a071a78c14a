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

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.seed import _collect_rng_states, _set_rng_states
from nemo.core.classes import ModelPT
from nemo.utils import logging
from omegaconf import DictConfig, OmegaConf
from torch.utils.data import DataLoader, IterableDataset

from nemo_speechllm.metrics.report import write_json

RUN_RECORD = "run.json"


class ResumableTrainingMixin(ModelPT):
    """Adds to a Lightning checkpoint what Lightning leaves out: the place in the data and the state of the random numbers.

    Lightning restores weights, optimizer and counters, but starts the data from the beginning. Lhotse's own sampler state
    cannot be used: it does not exist for the constraints NeMo batches by, and it counts batches that were only prefetched.
    """

    _resumed_rng_states: dict[str, Any] | None = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["rng_states"] = _collect_rng_states()
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
            _set_rng_states(self._resumed_rng_states)
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
    sampler._just_restored_state = True  # Lhotse's sign that the next iter() is to go on from here


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
    record |= {f"content of {path}": _digest(Path(path)) for path in sorted(manifests) if Path(path).is_file()}
    path = folder / RUN_RECORD
    if not path.exists():
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


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

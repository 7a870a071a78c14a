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

"""The folder of a training: whose it is, and which of its checkpoints a killed run goes on from."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from nemo.utils import logging
from nemo.utils.callbacks import NeMoModelCheckpoint
from nemo.utils.exp_manager import get_log_dir
from omegaconf import DictConfig, OmegaConf, open_dict

from nemo_speechllm.checkpointing.ckpt import PARTIAL, check_whole
from nemo_speechllm.checkpointing.errors import CheckpointError
from nemo_speechllm.files import file_digest, write_json
from nemo_speechllm.recipes.models import TrainedRecipe

RUN_RECORD = "run.json"
# what a recipe that does not say it means, so that a run begun before there was such a key can be continued
DEFAULTS = {"model.non_finite": TrainedRecipe.non_finite}


def find_resume_point(trainer: Trainer, manager: DictConfig) -> None:
    """Make NeMo's ``exp_manager`` resume from a whole checkpoint, whenever the run was killed.

    It looks for one ``*-last.ckpt``. A kill while checkpoints are written may leave an unfinished one or two of them,
    and it refuses to start; or none yet beside the one of the same step that is written before it, and it starts from
    scratch. A damaged one is put aside as ``….ckpt.damaged``.

    Args:
        trainer: of the run.
        manager: the recipe's ``exp_manager`` section; gets ``resume_from_checkpoint``, which is read where there is no
            last one.

    Raises:
        CheckpointError: there are checkpoints, and not one is whole.
    """
    folder = run_folder(trainer, manager) / "checkpoints"
    for partial in folder.glob(f"{PARTIAL}*"):
        shutil.rmtree(partial, ignore_errors=True)
    checkpoints = sorted(folder.glob("*.ckpt"), key=lambda path: path.stat().st_mtime)
    unfinished = [path for path in checkpoints if NeMoModelCheckpoint.is_checkpoint_unfinished(path)]
    whole = [path for path in checkpoints if path not in unfinished]
    damaged = _put_damaged_aside(whole)
    outdated = [path for path in whole if path.match("*-last.ckpt")][:-1]
    for path in (*unfinished, *outdated):
        logging.warning(f"{path} is left from a kill while checkpoints were written; it is removed")
        path.unlink(missing_ok=True)  # another rank may have been here
    if damaged and not whole:
        raise CheckpointError(
            f"{folder} holds no whole checkpoint to resume from: {', '.join(damaged)}; copy one back from elsewhere, "
            "or remove the folder to train from the beginning"
        )
    if whole and manager.get("resume_from_checkpoint") is None:
        with open_dict(manager):
            manager.resume_from_checkpoint = str(whole[-1])


def _put_damaged_aside(checkpoints: list[Path]) -> list[str]:
    """Take the damaged ones off the end of the list and return what is wrong with them.

    The newest whole one then stands last.
    """
    damaged = []
    while checkpoints:
        try:
            check_whole(checkpoints[-1])
            break
        except CheckpointError as error:
            path = checkpoints.pop()
            damaged.append(str(error))
            beside = f"the run is resumed from {checkpoints[-1]} instead" if checkpoints else "and no other is left"
            logging.warning(f"{error}; it is put aside as {path.name}.damaged, {beside}")
            if path.exists():  # another rank may have been here
                path.replace(f"{path}.damaged")
    return damaged


def run_folder(trainer: Trainer, manager: DictConfig) -> Path:
    """Return the folder of a run that can be resumed; its checkpoints are in ``checkpoints`` below it."""
    keys = ("exp_dir", "name", "version", "explicit_log_dir")
    folder, *_ = get_log_dir(trainer, **{key: manager.get(key) for key in keys}, resume_if_exists=True)
    return Path(folder)


def claim_run_folder(folder: Path, cfg: DictConfig) -> None:
    """Write which recipe and data a run folder belongs to, or refuse one that belongs to others.

    NeMo resumes whatever it finds in the folder: without this, training on corrected data under the same name would
    quietly go on with, or just return, the model of the old data.

    Args:
        folder: of the run's checkpoints (NeMo moves files beside it away when a run is resumed).
        cfg: the recipe's ``model`` section, resolved.

    Raises:
        ValueError: the folder holds a run of another recipe or of manifests whose content has changed since; the
            message names what differs.
    """
    record = dict(_leaves(OmegaConf.to_container(cfg), "model"))
    manifests = {str(value) for name, value in record.items() if "manifest_filepath" in name}
    record |= {f"content of {path}": file_digest(path) for path in sorted(manifests) if Path(path).is_file()}
    path = folder / RUN_RECORD
    # a run that ended before its first checkpoint holds nothing
    if not path.exists() or not any(folder.glob("*.ckpt")):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, record)
        return
    record, recorded = DEFAULTS | record, DEFAULTS | json.loads(path.read_text(encoding="utf-8"))
    differing = [key for key in sorted({*record, *recorded}) if record.get(key) != recorded.get(key)]
    if differing:
        raise ValueError(
            f"{folder} holds a run that differs in {differing[:5]}; it cannot be continued with other settings or "
            "data. Give the new run a name of its own (name=...), another exp_manager.exp_dir, or remove the folder"
        )


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield nested settings as pairs of dotted name and value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        yield name, value
    else:
        for key, inner in items:
            yield from _leaves(inner, f"{name}.{key}")

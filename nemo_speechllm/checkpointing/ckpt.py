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

"""Lightning's ``.ckpt`` files: written whole or not at all, and read without running anything that stands in them."""

import builtins
import errno
import os
import tempfile
import typing
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import fsspec
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import Strategy
from omegaconf import DictConfig, ListConfig, base, nodes

from nemo_speechllm.checkpointing.errors import CheckpointError
from nemo_speechllm.checkpointing.weights import check_tensors

PARTIAL = ".partial-"  # folders of what was being written
NOT_READ = (OSError, ValueError, RuntimeError, EOFError, NotImplementedError)  # what zipfile meets in a damaged file
NOT_WRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
MapLocation = torch.device | str | Callable | dict | None
# what the config of one of NeMo's own models is pickled as; plain values all of them
CONFIG_TYPES = (
    *(DictConfig, ListConfig, base.ContainerMetadata, base.Metadata, defaultdict, typing.Any),
    *(nodes.AnyNode, nodes.StringNode, nodes.IntegerNode, nodes.FloatNode, nodes.BooleanNode, nodes.BytesNode),
    *(getattr(builtins, name) for name in ("int", "float", "str", "bool", "bytes", "list", "dict")),
    (dict, "lightning.fabric.utilities.data.AttributeDict"),
)


def read_checkpoint(path: str | Path | IO[bytes], map_location: MapLocation = "cpu") -> dict[str, Any]:
    """Return what a ``.ckpt`` holds: tensors and plain values. Nothing in it is executed.

    Args:
        path: a path, an address that fsspec knows, or an open file.
        map_location: as ``torch.load``'s.

    Raises:
        CheckpointError: the file is missing or damaged, or holds anything else; the message names file and remedy.
    """
    check_whole(path)
    try:
        with _opened(path) as file, torch.serialization.safe_globals(list(CONFIG_TYPES)):
            checkpoint = torch.load(file, map_location=map_location, weights_only=True)
    except Exception as error:  # a pickle of unknown origin raises whatever its writer likes
        raise CheckpointError(
            f"{path} is not loaded: it holds something other than tensors and plain values, which could run code, or "
            f"is no checkpoint at all ({_reason(error)}). Use a checkpoint that this package wrote, or a .nemo file"
        ) from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise CheckpointError(f"{path} is no Lightning checkpoint: it has no state_dict; give a .ckpt of a training")
    try:
        check_tensors(checkpoint["state_dict"], "its state_dict")
    except ValueError as error:
        raise CheckpointError(f"{path} is not loaded: {error}. Take another checkpoint of the run") from error
    return checkpoint


def check_whole(path: str | Path | IO[bytes]) -> None:
    """Compare a ``.ckpt`` with its own checksums, which ``torch.load`` does not read.

    Raises:
        CheckpointError: it is missing, cut or damaged.
    """
    try:
        with _opened(path) as file, zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except FileNotFoundError as error:
        raise CheckpointError(f"checkpoint {path} does not exist; correct its name") from error
    except (*NOT_READ, zipfile.BadZipFile, zlib.error) as error:
        damaged = _reason(error)
    if damaged:
        raise CheckpointError(
            f"{path} is not a whole .ckpt file ({damaged}); copy it again, or take another checkpoint of the run"
        )


@contextmanager
def _opened(path: str | Path | IO[bytes]) -> Iterator[IO[bytes]]:
    if isinstance(path, (str, Path)):
        with fsspec.open(str(path), "rb") as file:
            yield file
    else:
        path.seek(0)
        yield path


def _reason(error: Exception) -> str:
    """Return an error in a line: torch goes on to tell how its guard is switched off."""
    lines = str(error).splitlines() or [""]
    telling = next((line for line in lines if "WeightsUnpickler error" in line), lines[0])
    return f"{type(error).__name__}: {telling.strip()}"


class SafeCheckpointIO(TorchCheckpointIO):
    """Lightning's way to files: what is loaded is only data, and what is saved appears whole or not at all."""

    def load_checkpoint(self, path: str | Path, map_location: MapLocation = "cpu") -> dict[str, Any]:
        """Return what `read_checkpoint` does."""
        return read_checkpoint(path, map_location)

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            CheckpointError: it cannot be written; what stood under its name before still does.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with written_whole(Path(path)) as partial, open(partial, "wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a file to write to, which then takes the name ``path``: a kill or an error leaves nothing under it.

    Raises:
        CheckpointError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=PARTIAL) as folder:
            partial = Path(folder) / path.name
            yield partial
            if partial.exists():  # of several processes only the first writes
                os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        if not _is_about_writing(error):
            raise
        raise CheckpointError(
            f"{path} could not be written ({_reason(error)}); make room or give another exp_manager.exp_dir, and run "
            "the same command again: it goes on from the last whole checkpoint"
        ) from error


def _is_about_writing(error: Exception) -> bool:
    """Return whether a file could not be written; torch's own writer says so by a RuntimeError."""
    if isinstance(error, OSError):
        return error.errno in NOT_WRITTEN
    return "PytorchStreamWriter" in str(error) or "inline_container" in str(error)


def make_safe(strategy: Strategy) -> None:
    """Let a trainer read checkpoints by `read_checkpoint`, and write them whole unless its user gave it a writer."""
    if type(strategy.checkpoint_io) is TorchCheckpointIO:
        strategy.checkpoint_io = SafeCheckpointIO()
    elif not isinstance(strategy.checkpoint_io, SafeCheckpointIO):
        vars(strategy.checkpoint_io)["load_checkpoint"] = read_checkpoint  # of this object alone

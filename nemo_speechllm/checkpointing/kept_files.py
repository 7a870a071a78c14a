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

"""Files that a model cannot be built without and that are no weights: a tokenizer, a bank of posteriors.

A recipe names them on the machine that trains. Each checkpoint holds them, so that it is restored anywhere: a
``.nemo`` as NeMo's artifacts, a Lightning ``.ckpt`` as bytes. The config of both says ``nemo:NAME``.
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from nemo.core.classes import ModelPT
from omegaconf import OmegaConf

from nemo_speechllm.checkpointing.config import ARTIFACT_PREFIX
from nemo_speechllm.checkpointing.errors import CheckpointError
from nemo_speechllm.checkpointing.restoring import artifact_path, is_nemo_file_being_restored

FILES_KEY = "files"  # of a .ckpt: name → content
_of_ckpt: ContextVar[Mapping[str, Any]] = ContextVar("files of the .ckpt being restored", default={})  # noqa: B039


@contextmanager
def files_of_ckpt(checkpoint: dict[str, Any]) -> Iterator[None]:
    """Let models that are built inside find the files of the Lightning checkpoint they are built of.

    Raises:
        CheckpointError: it has something else in their place.
    """
    files = checkpoint.get(FILES_KEY, {})
    if not isinstance(files, dict):
        raise CheckpointError(
            f"its {FILES_KEY!r} are a {type(files).__name__} and no mapping; take another checkpoint"
        )
    token = _of_ckpt.set(files)
    try:
        yield
    finally:
        _of_ckpt.reset(token)


class KeptFiles:
    """Keeps a model's files in a folder that lives as long as the model, and puts them into its checkpoints.

    A file goes by the key under which the config names it, e.g. ``tokenizer.model_file``.

    Args:
        model: whose config it is.
    """

    def __init__(self, model: ModelPT):
        self._model = model
        self._folder: tempfile.TemporaryDirectory | None = None
        self._paths: dict[str, Path] = {}

    def saved(self, key: str) -> bytes | None:
        """Return a file of the checkpoint that is being restored.

        None is of a new model, and of a ``.ckpt`` of an earlier version, which names the recipe's file.

        Raises:
            CheckpointError: the checkpoint's config names a file that the checkpoint has not.
        """
        reference = str(OmegaConf.select(self._model.cfg, key))
        if is_nemo_file_being_restored():
            return artifact_path(reference).read_bytes()
        if not reference.startswith(ARTIFACT_PREFIX):
            return None
        content = _of_ckpt.get().get(reference.removeprefix(ARTIFACT_PREFIX))
        if not isinstance(content, bytes):
            raise CheckpointError(f"its config says {key}: {reference}, which is no file of the checkpoint")
        return content

    def keep(self, key: str, name: str, content: bytes) -> Path:
        """Put a file into every checkpoint; return a copy of it that lives as long as the model.

        Args:
            key: where the config names it.
            name: of the copy, and inside a ``.nemo``.
            content: of the file.
        """
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="nemo_speechllm_")
        path = self._paths[key] = Path(self._folder.name) / key / name
        path.parent.mkdir()
        path.write_bytes(content)
        OmegaConf.update(self._model.cfg, key, None, force_add=True)
        self._model.register_artifact(key, str(path))
        return path

    def add_to_ckpt(self, checkpoint: dict[str, Any]) -> None:
        """Add the files to a Lightning checkpoint, whose config shall not name this process's copies."""
        hyper_parameters = OmegaConf.create(checkpoint[self._model.CHECKPOINT_HYPER_PARAMS_KEY])
        for key in self._paths:
            OmegaConf.update(hyper_parameters, f"cfg.{key}", f"{ARTIFACT_PREFIX}{key}")
        checkpoint[self._model.CHECKPOINT_HYPER_PARAMS_KEY] = OmegaConf.to_container(hyper_parameters)
        checkpoint[FILES_KEY] = {key: path.read_bytes() for key, path in self._paths.items()}

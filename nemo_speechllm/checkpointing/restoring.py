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

"""What is done with a checkpoint before a model is built of it."""

import shutil
import tarfile
from collections.abc import Iterable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from nemo.core.classes import ModelPT
from nemo.core.connectors.save_restore_connector import SaveRestoreConnector
from nemo.utils import AppState
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from nemo_speechllm import assets
from nemo_speechllm.checkpointing.archive import CONFIG_NAME, WEIGHTS_NAME, unpack
from nemo_speechllm.checkpointing.config import ARTIFACT_PREFIX, check_config, make_inert, read_config
from nemo_speechllm.checkpointing.errors import DOWNLOAD_AGAIN, CheckpointError, abridged
from nemo_speechllm.checkpointing.weights import check_weights_file, load_weights, non_finite_names

_UNKNOWN_BYTES = 16 * 2**30  # of what is only fetched while the model is built
# The folder of the file that `restore_from` has checked and is building; of no other file is a model built.
checked_folder: ContextVar[Path | None] = ContextVar("checked", default=None)


class CheckedFolder(SaveRestoreConnector):
    """NeMo's restore out of a folder whose members have been checked, without unpacking the file again."""

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder

    def _filtered_tar_info(self, *args, **kwargs) -> list[tarfile.TarInfo]:
        return []

    def _unpack_nemo_file(self, path2file: str, out_folder: str, members: list | None = None) -> str:
        for member in self.folder.iterdir():
            shutil.move(member, out_folder)
        return out_folder

    def _load_state_dict_from_disk(self, model_weights: str, map_location: Any = "cpu") -> dict[str, Tensor]:
        return load_weights(Path(model_weights), map_location)


def inert_config_of_ckpt(config: DictConfig) -> DictConfig:
    """Return the config of a Lightning ``.ckpt`` without what names things on this machine.

    Raises:
        CheckpointError: it says what no config of a checkpoint may say.
    """
    config = make_inert(config, keep={"tokenizer.dir"})  # one of an earlier version holds no tokenizer
    try:
        check_config(config)
    except ValueError as error:
        raise CheckpointError(f"this Lightning checkpoint cannot be restored: {error}. {DOWNLOAD_AGAIN}") from error
    return config


def referenced_bytes(config: DictConfig | str, sections_that_refer: Iterable[str]) -> int:
    """Return the size of the weights that a config refers to, as far as they are files of this machine."""
    if not isinstance(config, DictConfig):
        return _UNKNOWN_BYTES
    sections = [OmegaConf.select(config, name) for name in sections_that_refer]
    references = [section.pretrained for section in sections if section and section.get("pretrained")]
    sizes = [sum(file.stat().st_size for file in assets.weight_files(reference)) for reference in references]
    return sum(size or _UNKNOWN_BYTES for size in sizes)


def is_nemo_file_being_restored() -> bool:
    """Return False for a Lightning ``.ckpt``: what belongs to its LLM is read from the LLM's folder."""
    return AppState().is_model_being_restored and AppState().nemo_file_folder is not None


def artifact_path(reference: str) -> Path:
    """Return the file inside the ``.nemo`` being restored that its config names so; no other can be named."""
    name = str(reference).removeprefix(ARTIFACT_PREFIX)
    path = Path(AppState().nemo_file_folder) / name
    if not str(reference).startswith(ARTIFACT_PREFIX) or Path(name).name != name or not path.is_file():
        raise CheckpointError(f"the config names the artifact {reference!r}, which is no file of the checkpoint")
    return path


def _form(tensor: Tensor) -> str:
    """Return shape and kind of numbers; precision is free."""
    kind = "" if tensor.is_floating_point() else f" {tensor.dtype}"
    return f"{tuple(tensor.shape)}{kind}"


def read_checked(
    wanted: type[ModelPT], path: Path, folder: Path, config_only: bool
) -> tuple[type[Any], DictConfig, int]:
    """Unpack a file into ``folder`` and check all of it.

    Args:
        wanted: the class it must be of.
        path: of the ``.nemo``.
        folder: empty.
        config_only: nothing but the config is unpacked.

    Returns:
        its class, its config without data, its number of tensors.
    """
    if not path.is_file():
        raise CheckpointError(
            f"checkpoint {path} {'is a folder' if path.is_dir() else 'does not exist'}; name a .nemo file"
        )
    unpack(path, folder, config_only)
    config = make_inert(read_config(folder / CONFIG_NAME))
    saved_class = _class_of(wanted, config, path)
    members = None if config_only else {member.name for member in folder.iterdir()}
    check_config(config, members)
    n_tensors = 0 if config_only else check_weights_file(folder / WEIGHTS_NAME)
    return saved_class, config, n_tensors


def _class_of(wanted: type[ModelPT], config: DictConfig, path: Path) -> type[Any]:
    from nemo.utils.model_utils import import_class_by_path

    target = config.get("target", "")
    saved_class = import_class_by_path(target) if str(target).startswith("nemo_speechllm.") else None
    if not (isinstance(saved_class, type) and issubclass(saved_class, wanted)):
        raise CheckpointError(
            f"{path} holds a {target or 'model of unknown class'}, not a {wanted.__name__}; restore it with that class"
        )
    return saved_class


def check_fit(model: nn.Module, state_dict: dict[str, Tensor]) -> None:
    """Refuse weights of other shapes than a model's, and such as are no finite numbers.

    Raises:
        CheckpointError: see above; the weights are named.
    """
    expected = nn.Module.state_dict(model)
    reshaped = [
        f"{name} (saved {_form(tensor)}, here {_form(expected[name])})"
        for name, tensor in state_dict.items()
        if name in expected and _form(expected[name]) != _form(tensor)
    ]
    if reshaped:
        raise CheckpointError(
            f"the checkpoint does not fit this {type(model).__name__}: {abridged(reshaped)}; sizes such as lora.r "
            "and perception.adapter.d_model must be those it was trained with"
        )
    broken = non_finite_names(state_dict)
    if broken:
        raise CheckpointError(
            f"the checkpoint has weights that are no finite numbers: {abridged(broken)}; its training diverged "
            "or the file is damaged. Take an earlier checkpoint"
        )

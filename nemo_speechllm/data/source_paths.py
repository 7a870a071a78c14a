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

"""The files that a data section names: none of them a command or an address."""

from pathlib import Path
from typing import Any

from nemo.collections.common.data.lhotse.nemo_adapters import expand_sharded_filepaths
from nemo.utils.data_utils import is_datastore_path
from omegaconf import DictConfig, ListConfig

from nemo_speechllm.manifests.rows import is_address

PATH_KEYS = ("manifest_filepath", "tarred_audio_filepaths", "cuts_path")


def shar_cuts(source: DictConfig) -> list[str]:
    """Return the manifests of Lhotse Shar."""
    return _shar_files(source, "cuts", "cuts.*.jsonl*")


def shar_recordings(source: DictConfig) -> list[str]:
    """Return the tar files of Lhotse Shar that hold recordings."""
    return [path for path in _shar_files(source, "recording", "recording.*.tar") if Path(path).is_file()]


def _shar_files(source: DictConfig, field: str, pattern: str) -> list[str]:
    """Return files of Lhotse Shar, which names folders (perhaps with weights) or the files of each field."""
    named = source.get("shar_path") or []
    if isinstance(named, DictConfig):
        return [str(path) for path in named.get(field) or []]
    entries = [named] if isinstance(named, str) else named
    folders = [str(entry[0] if isinstance(entry, ListConfig) else entry) for entry in entries]
    return [str(path) for folder in folders if not is_address(folder) for path in sorted(Path(folder).glob(pattern))]


def refuse_addresses(value: Any, key: str) -> None:
    """Refuse a section that names a command or an address.

    Raises:
        ValueError: a text anywhere in a section is a command or an address, which NeMo and Lhotse would run or open.
    """
    if isinstance(value, dict):
        for name, part in value.items():
            refuse_addresses(part, str(name))
    elif isinstance(value, list):
        for part in value:
            refuse_addresses(part, key)
    elif isinstance(value, str) and (is_address(value) or is_datastore_path(value)):
        raise ValueError(
            f"{key} {value} is a command or an address, and only files are read: fetch what it gives, and name the "
            "file"
        )


def paths_of(source: DictConfig, key: str) -> list[str]:
    """Return what NeMo will open under ``key``, shards expanded."""
    value = source.get(key)
    if value is None:
        return []
    paths = []
    for entry in value if isinstance(value, ListConfig) else [value]:
        if isinstance(entry, ListConfig):
            if source.get("tarred_audio_filepaths") is None:
                raise ValueError(
                    f"{key} holds the list {list(entry)}, which NeMo reads for tarred data only; name plain manifests "
                    "in one flat list, or with weights as `input_cfg: [{type: nemo, manifest_filepath: …, weight: …}]`"
                )
            entry = entry[0]
        paths += expand_sharded_filepaths(entry)
    return paths

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

"""Checks what a data section names before NeMo's dataloader opens it, and says what NeMo would drop in silence."""

from collections.abc import Iterator
from pathlib import Path

from nemo.collections.common.data.lhotse.nemo_adapters import expand_sharded_filepaths
from nemo.utils import logging
from nemo.utils.data_utils import is_datastore_path
from omegaconf import DictConfig, ListConfig, OmegaConf

from nemo_speechllm.data.manifest import read_manifest

PATH_KEYS = ("manifest_filepath", "tarred_audio_filepaths", "cuts_path")


def check_sources(cfg: DictConfig) -> None:
    """Checks every source of a data section; logs how many lines its duration limits leave out.

    Args:
        cfg: a ``train_ds``/``validation_ds`` section.

    Raises:
        FileNotFoundError: a file or folder that the section names does not exist.
        ValueError: plain manifests are in nested lists (NeMo would take a weight for a path), a line is not JSON, or a line lacks a key NeMo needs.
    """
    for source in _sources(cfg):
        for key in PATH_KEYS:
            for path in _local_paths(source, key):
                if not Path(path).exists():
                    raise FileNotFoundError(f"{key} {path} does not exist; correct the data section of the recipe")
        if source.get("tarred_audio_filepaths") is None:
            for path in _local_paths(source, "manifest_filepath"):
                _check_manifest(path, source, cfg)


def _sources(cfg: DictConfig) -> Iterator[DictConfig]:
    """The section itself, or what it names in ``input_cfg`` (a list or a YAML file, nested by groups)."""
    if cfg.get("multi_config"):
        for section in cfg.values():
            if isinstance(section, DictConfig):
                yield from _sources(section)
    elif cfg.get("input_cfg") is None:
        yield cfg
    else:
        entries = cfg.input_cfg
        for entry in OmegaConf.load(entries) if isinstance(entries, (str, Path)) else entries:
            yield from _sources(entry)


def _local_paths(source: DictConfig, key: str) -> list[str]:
    """Files that NeMo will open under ``key``, shards expanded; what is not on this machine's disk is left out."""
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
    return [path for path in paths if not is_datastore_path(path) and not path.startswith("pipe:")]


def _check_manifest(path: str, source: DictConfig, cfg: DictConfig) -> None:
    """Reads a plain manifest once: its defects get a name and a line, and the duration filter's work is counted."""
    if not path.endswith((".json", ".jsonl")):  # compressed, or a format of NeMo's own
        return
    rows = read_manifest(path)
    if source.get("type", "nemo") != "nemo":
        return
    for row in rows:
        lacking = [key for key in ("audio_filepath", "duration") if key not in row]
        if lacking:
            raise ValueError(
                f"{path}: a line lacks {lacking}: {row}; `examples/data/check_manifest.py` finds all such lines"
            )
    shortest = cfg.get("min_duration") or 0.0
    longest = cfg.get("max_duration") or float("inf")
    dropped = [row["duration"] for row in rows if not shortest <= row["duration"] <= longest]
    if dropped:
        logging.warning(
            f"{path}: {len(dropped)} of {len(rows)} lines ({sum(dropped):.1f} s) are left out, being shorter than "
            f"min_duration={shortest} s or longer than max_duration={longest} s"
        )
    if len(dropped) == len(rows):
        raise ValueError(f"{path}: no line is between min_duration={shortest} s and max_duration={longest} s")

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

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from nemo.collections.common.data.lhotse.nemo_adapters import expand_sharded_filepaths
from nemo.collections.common.parts.preprocessing.manifest import get_full_path
from nemo.utils import logging
from nemo.utils.data_utils import is_datastore_path
from omegaconf import DictConfig, ListConfig, OmegaConf
from tqdm import tqdm

from nemo_speechllm.data.conversation import Audio, AudioError
from nemo_speechllm.data.manifest import ManifestIssue, read_manifest, row_defects, write_manifest

PATH_KEYS = ("manifest_filepath", "tarred_audio_filepaths", "cuts_path")


def check_sources(cfg: DictConfig, skip_bad_audio: bool = False) -> None:
    """Checks every source of a data section; logs how many lines its duration limits leave out.

    Args:
        cfg: a ``train_ds``/``validation_ds`` section. It is changed: a YAML file under ``input_cfg`` is put in its place.
        skip_bad_audio: open every audio file of plain manifests, and put temporary manifests without the lines whose
            file is missing or unreadable into ``cfg``, with a warning that names and counts them.

    Raises:
        FileNotFoundError: a file or folder that the section or a plain manifest names does not exist.
        ValueError: plain manifests are in nested lists (NeMo would take a weight for a path), a line is not JSON, a line
            lacks a key NeMo needs, or no line of a manifest is left.
    """
    for source in _sources(cfg):
        for key in PATH_KEYS:
            for path in _paths(source, key):
                if _is_local(path) and not Path(path).exists():
                    raise FileNotFoundError(f"{key} {path} does not exist; correct the data section of the recipe")
        if source.get("tarred_audio_filepaths") is None:
            paths = _paths(source, "manifest_filepath")
            checked = [
                _check_manifest(path, source, cfg, skip_bad_audio) if _is_local(path) else path for path in paths
            ]
            if checked != paths:
                source.manifest_filepath = checked


def manifest_rows(cfg: DictConfig) -> Iterator[dict]:
    """The rows of every manifest of a data section, of tarred ones too.

    Args:
        cfg: a ``train_ds``/``validation_ds`` section.

    Raises:
        ValueError: a source is no NeMo manifest, or a line is broken.
    """
    for source in _sources(OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))):
        paths = _paths(source, "manifest_filepath")
        if not paths or source.get("type", "nemo") not in ("nemo", "nemo_tarred"):
            raise ValueError(
                "the words of the training data are counted in NeMo manifests, and a source of model.train_ds is none "
                f"(type {source.get('type')}); give model.keyword_context.vocabulary, a text file with a word a line"
            )
        for path in paths:
            yield from read_manifest(path)


def _sources(cfg: DictConfig) -> Iterator[DictConfig]:
    """The section itself, or what it names in ``input_cfg`` (a list or a YAML file, nested by groups)."""
    if cfg.get("multi_config"):
        for section in cfg.values():
            if isinstance(section, DictConfig):
                yield from _sources(section)
    elif cfg.get("input_cfg") is None:
        yield cfg
    else:
        if isinstance(cfg.input_cfg, (str, Path)):
            cfg.input_cfg = OmegaConf.load(cfg.input_cfg)
        for entry in cfg.input_cfg:
            yield from _sources(entry)


def _is_local(path: str) -> bool:
    return not is_datastore_path(path) and not path.startswith("pipe:")


def _paths(source: DictConfig, key: str) -> list[str]:
    """What NeMo will open under ``key``, shards expanded."""
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


def _check_manifest(path: str, source: DictConfig, cfg: DictConfig, skip_bad_audio: bool) -> str:
    """Reads a plain manifest once: its defects get a name and a line. Returns the manifest that NeMo is to read."""
    if not path.endswith((".json", ".jsonl")):  # compressed, or a format of NeMo's own
        return path
    rows = read_manifest(path)
    if source.get("type", "nemo") != "nemo":
        return path
    numbered = [(number, row) for number, row in enumerate(rows, 1) if not row.get("_skipme")]  # as NeMo's reader
    text_elsewhere = (source.get("text_field") or cfg.get("text_field") or "text") != "text"
    for number, row in numbered:
        for key, kind, problem, remedy in row_defects(row):
            if not (kind == "empty text" and text_elsewhere):
                issue = ManifestIssue(path, number, key, kind, problem, remedy)
                raise ValueError(f"{issue}; `examples/data/check_manifest.py` finds all such lines")
    _report_durations(path, [row["duration"] for _, row in numbered], cfg)
    if skip_bad_audio:
        return _without_bad_audio(path, numbered)
    for number, row in numbered:
        audio = _audio_path(row, path)
        if not is_datastore_path(audio) and not Path(audio).is_file():
            raise FileNotFoundError(
                f"{path}:{number}: audio file {audio} does not exist; correct the path (relative ones start at the "
                "manifest), or leave such lines out with skip_bad_audio: true; `examples/data/check_manifest.py` finds all"
            )
    return path


def _report_durations(path: str, durations: list[float], cfg: DictConfig) -> None:
    shortest = cfg.get("min_duration") or 0.0
    longest = cfg.get("max_duration") or float("inf")
    dropped = [duration for duration in durations if not shortest <= duration <= longest]
    if dropped:
        logging.warning(
            f"{path}: {len(dropped)} of {len(durations)} lines ({sum(dropped):.1f} s) are left out, being shorter than "
            f"min_duration={shortest} s or longer than max_duration={longest} s"
        )
    if len(dropped) == len(durations):
        raise ValueError(f"{path}: no line is between min_duration={shortest} s and max_duration={longest} s")


def _without_bad_audio(path: str, numbered: list[tuple[int, dict]]) -> str:
    """The manifest itself, or a temporary copy without the lines whose audio cannot be opened."""
    kept, bad = [], []
    for number, row in tqdm(numbered, desc=f"audio of {Path(path).name}", unit="file", delay=2, leave=False):
        audio = _audio_path(row, path)
        try:
            if not is_datastore_path(audio):
                Audio.from_file(audio)
                audio = os.path.abspath(audio)
            kept.append({**row, "audio_filepath": audio})
        except (FileNotFoundError, AudioError) as error:
            bad.append(f"{path}:{number}: {error}")
    if not bad:
        return path
    logging.warning("\n".join([f"{path}: skipped {len(bad)} of {len(numbered)} lines with bad audio:", *bad]))
    if not kept:
        raise ValueError(f"{path}: not one audio file of this manifest can be read; the warning above names them")
    folder = tempfile.mkdtemp(prefix="nemo_speechllm-")  # NeMo opens it lazily, each epoch anew
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copy = Path(folder) / Path(path).name
    write_manifest(copy, kept)
    return str(copy)


def _audio_path(row: dict, manifest: str) -> str:
    return get_full_path(str(row["audio_filepath"]), manifest, force_cache=False)

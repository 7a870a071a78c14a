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
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from lhotse.serialization import load_jsonl
from nemo.collections.common.data.lhotse.nemo_adapters import expand_sharded_filepaths
from nemo.utils import logging
from omegaconf import DictConfig, ListConfig, OmegaConf

from nemo_speechllm.data.conversation import Audio
from nemo_speechllm.data.dataset import PLACE_KEY, ConversationBuilder, task_of
from nemo_speechllm.data.source_paths import PATH_KEYS, paths_of, refuse_addresses, shar_cuts, shar_recordings
from nemo_speechllm.data.tars import check_tars
from nemo_speechllm.data.text_files import check_text_file
from nemo_speechllm.manifests.check import ALL_LEFT_OUT, duplicate_issues
from nemo_speechllm.manifests.manifest import (
    ANY_CHANNEL,
    BAD_AUDIO,
    SHOWN,
    Line,
    ManifestError,
    ManifestIssue,
    audio_path,
    is_left_out,
    listed,
    raise_for,
    read_lines,
    read_manifest,
    refuse,
    with_audio_issues,
    write_manifest,
)
from nemo_speechllm.manifests.rows import RATE_KEYS, answer_of, given, is_address, row_defects

MANIFESTS = (".json", ".jsonl")


def check_sources(cfg: DictConfig, builder: ConversationBuilder, skip_bad_audio: bool = False) -> None:
    """Check every source of a data section.

    Logs how many lines its duration limits and NeMo's other filters leave out.

    Args:
        cfg: a ``train_ds``/``validation_ds`` section. It is changed: a YAML file under ``input_cfg`` is put in its
            place, and a plain manifest with values that NeMo would misread by a temporary copy without them.
        builder: makes the question of each line.
        skip_bad_audio: leave out the lines whose audio is missing, cannot be opened or is shorter than they say, with
            a warning that names and counts them.

    Raises:
        FileNotFoundError: a file or folder that the section or a plain manifest names does not exist.
        AudioError: the first or last recording of a tar file, of a tarred manifest or Lhotse Shar, cannot be read.
            What is between them is not looked at before it is read.
        ValueError: a source is no file or folder but a command or an address; ``channel_selector`` is ``average``; a
            file of texts is not in UTF-8 or holds none;
            plain manifests are in nested lists (NeMo would take a weight for a path); a line has a defect (see
            `row_defects` and `audio_defects`) or asks what the recipe has no instruction for; no line of a manifest is
            left.
    """
    refuse_addresses(OmegaConf.to_container(cfg), "")
    if cfg.get("channel_selector") == "average":
        raise ValueError(
            "channel_selector is 'average', and NeMo's dataloader takes the number of a channel; give it, or mix the "
            "files down, e.g. `ffmpeg -i IN -ac 1 OUT`"
        )
    for source in _sources(cfg):
        refuse_addresses(OmegaConf.to_container(source), "")  # it may stand in a file
        for key in PATH_KEYS:
            for path in paths_of(source, key):
                if not Path(path).exists():
                    raise FileNotFoundError(f"{key} {path} does not exist; correct the data section of the recipe")
                if key == "cuts_path" and os.path.isfile(path) and not os.path.getsize(path):
                    raise ValueError(f"{key} {path} is empty; write a cut for each recording")
        for path in paths_of(source, "paths") if source.get("type") in ("txt", "txt_jsonl") else ():
            check_text_file(path)
        if source.get("tarred_audio_filepaths") is not None:
            for path in paths_of(source, "manifest_filepath"):
                _check_tarred(path, source, cfg)
            check_tars(paths_of(source, "tarred_audio_filepaths"))
        elif source.get("shar_path") is not None:
            check_tars(shar_recordings(source))
        elif source.get("manifest_filepath") is not None:
            check = partial(_checked, source=source, cfg=cfg, builder=builder, skip_bad_audio=skip_bad_audio)
            entries = source.manifest_filepath  # NeMo treats a list of one otherwise than a path
            source.manifest_filepath = [*map(check, entries)] if isinstance(entries, ListConfig) else check(entries)


def manifest_rows(cfg: DictConfig) -> Iterator[dict]:
    """Yield the rows of every manifest of a data section, of tarred ones too.

    Args:
        cfg: a ``train_ds``/``validation_ds`` section.

    Raises:
        ValueError: a source is no NeMo manifest, or a line is broken.
    """
    for source in _sources(_resolved(cfg)):
        paths = paths_of(source, "manifest_filepath")
        if not paths or source.get("type", "nemo") not in ("nemo", "nemo_tarred"):
            raise ValueError(
                "the words of the training data are counted in NeMo manifests, and a source of model.train_ds is none "
                f"(type {source.get('type')}); give model.keyword_context.vocabulary, a text file with a word a line"
            )
        for path in paths:
            yield from read_manifest(path)


def translations_of(cfg: DictConfig) -> Iterator[tuple[str | None, str]]:
    """Yield language and text of each translation that a data section asks for.

    Args:
        cfg: a ``train_ds``/``validation_ds`` section.
    """
    for metadata in metadata_of(cfg):
        if task_of(metadata) == "ast":
            yield metadata.get("target_lang"), str(answer_of(metadata) or "")


def metadata_of(cfg: DictConfig) -> Iterator[dict[str, Any]]:
    """Yield what a data section says of each of its examples: its local manifests, cuts and ``tags`` are read.

    Args:
        cfg: a ``train_ds``/``validation_ds`` section.
    """
    cfg = _resolved(cfg)
    for source, tags in _tagged_sources(cfg, {}):
        yield from _metadata(source, cfg, tags)


def _resolved(cfg: DictConfig) -> DictConfig:
    return cast(DictConfig, OmegaConf.create(OmegaConf.to_container(cfg, resolve=True)))


def _tagged_sources(cfg: DictConfig, tags: dict[str, Any]) -> Iterator[tuple[DictConfig, dict[str, Any]]]:
    """Each source with what is noted with all of its examples; a group's tags go before those of its members."""
    tags = dict(cfg.get("tags") or {}) | tags
    entries: Iterable[Any] | None = None
    if cfg.get("multi_config"):
        entries = [entry for entry in cfg.values() if isinstance(entry, DictConfig)]
    elif cfg.get("input_cfg") is not None:
        if isinstance(cfg.input_cfg, (str, Path)):
            cfg.input_cfg = OmegaConf.load(cfg.input_cfg)
        entries = cfg.input_cfg
    if entries is None:
        yield cfg, tags
    for entry in entries or ():
        yield from _tagged_sources(entry, tags)


def _metadata(source: DictConfig, cfg: DictConfig, tags: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what the lines of a source, NeMo's or Lhotse's, say of their examples."""
    lang_field = source.get("lang_field") or cfg.get("lang_field") or "lang"
    paths = [*paths_of(source, "manifest_filepath"), *paths_of(source, "cuts_path"), *shar_cuts(source)]
    for path in paths:
        for row in map(given, load_jsonl(path) if not is_address(path) and ".json" in Path(path).name else ()):
            (speech,) = row.get("supervisions", [])[:1] or [{}]
            supervised = {
                "lang": speech.get("language") or row.get(lang_field),
                "text": speech.get("text") or row.get("text"),
            }
            yield row | (row.get("custom") or {}) | tags | supervised


def _sources(cfg: DictConfig) -> Iterator[DictConfig]:
    """Yield the section itself, or what it names in ``input_cfg`` (a list or a YAML file, nested by groups).

    Such a file is put in its place.
    """
    for source, _ in _tagged_sources(cfg, {}):
        yield source


def _check_tarred(path: str, source: DictConfig, cfg: DictConfig) -> None:
    if path.endswith(MANIFESTS):
        raise_for(path, _used_lines(path, source, cfg))


def _checked(
    entry: str, source: DictConfig, cfg: DictConfig, builder: ConversationBuilder, skip_bad_audio: bool
) -> str:
    """Read a plain manifest (several, where the entry stands for shards) once: its defects get a name and a line.

    Returns:
        the manifest that NeMo is to read in its place. That is a temporary copy: without what NeMo misreads (nulls, a
        rate, which it takes for that of audio that begins at ``offset``) and without what it would leave out, and with
        lines that know where they stand, for whoever meets them later.
    """
    paths = expand_sharded_filepaths(str(entry))
    if not all(path.endswith(MANIFESTS) for path in paths):  # compressed, or a format of NeMo's own
        return entry
    if source.get("type", "nemo") != "nemo":
        for path in paths:
            _check_turns(path, skip_bad_audio)
        return entry
    rows = [row for path in paths for row in _checked_rows(path, source, cfg, builder, skip_bad_audio)]
    return _temporary(rows, Path(paths[0]).name)


def _checked_rows(
    path: str, source: DictConfig, cfg: DictConfig, builder: ConversationBuilder, skip_bad_audio: bool
) -> Iterator[dict]:
    lines = _used_lines(path, source, cfg)
    raise_for(path, lines)
    lines = _without_filtered(path, lines, cfg)
    refuse(path, [issue for line in lines for issue in _no_question(line, path, builder)], is_checked=False)
    lines = with_audio_issues(lines, path, cfg.get("channel_selector"))
    lines = _without_bad_audio(path, lines) if skip_bad_audio else lines
    _raise_for_audio(path, lines)
    _tell_of_odd_lines(path, lines)
    for line in lines:
        row = {key: value for key, value in line.known_row.items() if key not in RATE_KEYS}
        yield row | {"audio_filepath": os.path.abspath(audio_path(row, path)), PLACE_KEY: f"{path}:{line.number}"}


def _tell_of_odd_lines(path: str, lines: list[Line]) -> None:
    """Count what may be meant: lines that come again, and recordings in which nothing is said."""
    again = duplicate_issues(lines, path)
    if again:
        shown = [*map(str, again[:SHOWN]), *(["…"] if len(again) > SHOWN else [])]
        logging.warning("\n".join([f"{path}: {len(again)} of {len(lines)} lines come again:", *shown]))
    silent = sum(answer_of(line.known_row) == "" for line in lines)
    if silent:
        logging.warning(
            f"{path}: {silent} of {len(lines)} lines are to be answered with nothing, as their text is empty"
        )


def _check_turns(path: str, skip_bad_audio: bool) -> None:
    """Check the audio of a manifest of conversations; with ``skip_bad_audio`` a bad one is left out when it is met."""
    lines = _turns(path)
    raise_for(path, lines)
    if not skip_bad_audio:
        _raise_for_audio(path, with_audio_issues(lines, path, ANY_CHANNEL))


def _turns(path: str) -> list[Line]:
    """Return the audio of each turn of a manifest of conversations as a line of its own.

    As NeMo reads it: from the beginning where there is no offset.
    """
    lines = []
    for number, row in enumerate(read_manifest(path), 1):
        turns = row.get("conversations")
        for turn in turns if isinstance(turns, list) else []:
            if isinstance(turn, dict) and turn.get("type") == "audio":
                part = {"offset": 0.0} | given({key: turn[key] for key in ("offset", "duration") if key in turn})
                part |= given({"audio_filepath": turn.get("value")})
                defects = row_defects(part, ("audio_filepath",), answered=False)
                lines.append(Line(number, part, tuple(ManifestIssue(path, number, *defect) for defect in defects)))
    return lines


def _used_lines(path: str, source: DictConfig, cfg: DictConfig) -> list[Line]:
    """Return the lines that NeMo reads, with the defects of their rows."""
    answered = (source.get("text_field") or cfg.get("text_field") or "text") == "text"
    lines = read_lines(path, answered=answered)
    used = [line for line in lines if not is_left_out(line)]
    if len(used) < len(lines):
        logging.warning(f"{path}: {len(lines) - len(used)} of {len(lines)} lines are left out by their `_skipme`")
    if not used:
        raise ManifestError(f"{path}: {ALL_LEFT_OUT.problem}; {ALL_LEFT_OUT.remedy}")
    return used


def _without_filtered(path: str, lines: list[Line], cfg: DictConfig) -> list[Line]:
    """Return the lines that NeMo's filters let through; the others are counted by their reason."""
    reasons = [_reason_to_leave_out(line.known_row, cfg) for line in lines]
    counts = Counter(filter(None, reasons))
    for reason, count in counts.items():
        seconds = sum(
            line.known_row["duration"] for line, of_line in zip(lines, reasons, strict=True) if of_line == reason
        )
        logging.warning(f"{path}: {count} of {len(lines)} lines ({seconds:.1f} s) are left out, being {reason}")
    kept = [line for line, reason in zip(lines, reasons, strict=True) if reason is None]
    if not kept:
        told = ", or ".join(f"{reason} ({count} of {len(lines)})" for reason, count in counts.items())
        raise ManifestError(f"{path}: no line is left: all are {told}")
    return kept


def _reason_to_leave_out(row: dict, cfg: DictConfig) -> str | None:
    shortest, longest = cfg.get("min_duration") or 0.0, cfg.get("max_duration") or float("inf")
    if not shortest <= row["duration"] <= longest:
        return f"shorter than min_duration={shortest} s or longer than max_duration={longest} s"
    if row.get("validation_status", cfg.get("keep", "pass")) != cfg.get("keep", "pass"):
        return f"of another validation_status than keep={cfg.get('keep', 'pass')}"
    if row.get("cer", 0.0) > (cfg.get("max_cer") or float("inf")):
        return f"of a cer above max_cer={cfg.max_cer}"
    if row.get("context_speaker_similarity", 1.0) < (cfg.get("min_context_speaker_similarity") or -1):
        return f"of a context_speaker_similarity below {cfg.min_context_speaker_similarity}"
    bins = cfg.get("bucket_duration_bins") if cfg.get("bucket_batch_size") else None
    if (
        bins
        and not isinstance(bins[-1], ListConfig)
        and not cfg.get("use_multimodal_sampling")
        and row["duration"] > bins[-1]
    ):
        return f"longer than the last of bucket_duration_bins, {bins[-1]} s"
    return None


def _no_question(line: Line, path: str, builder: ConversationBuilder) -> Iterator[ManifestIssue]:
    """Yield an issue where the recipe has no question for the line."""
    try:
        builder.question(Audio(torch.zeros(1)), line.known_row, line.known_row["audio_filepath"])
    except ValueError as error:
        yield ManifestIssue(path, line.number, "task", "no question", str(error), "correct the line, or the recipe")


def _without_bad_audio(path: str, lines: list[Line]) -> list[Line]:
    """Return the lines whose audio can be opened and is as long as they say; the others are named and counted."""
    bad = [line for line in lines if line.issues and all(issue.kind in BAD_AUDIO for issue in line.issues)]
    if bad:
        messages = [_message(line, issue) for line in bad for issue in line.issues]
        logging.warning("\n".join([f"{path}: skipped {len(bad)} of {len(lines)} lines with bad audio:", *messages]))
    if len(bad) == len(lines):
        raise ManifestError(f"{path}: not one audio file of this manifest can be read; the warning above names them")
    numbers = {line.number for line in bad}
    return [line for line in lines if line.number not in numbers]


def _raise_for_audio(path: str, lines: list[Line]) -> None:
    messages = [_message(line, issue) for line in lines for issue in line.issues]
    if messages:
        missing = next(issue.kind for line in lines for issue in line.issues) == "missing file"
        raise (FileNotFoundError if missing else ManifestError)(
            listed(path, messages)
            + "\ncorrect the lines, or leave those with bad audio out with skip_bad_audio: true in the data section"
        )


def _message(line: Line, issue: ManifestIssue) -> str:
    if issue.kind == "missing file":
        name = line.known_row["audio_filepath"]
        return f"{issue.file}:{issue.line}: audio file {name} does not exist; {issue.remedy}"
    return f"{issue.file}:{issue.line}: {issue.problem}; {issue.remedy}"


def _temporary(rows: list[dict], name: str) -> str:
    """Write a manifest of the rows, for as long as the process lives: NeMo opens it lazily, each epoch anew."""
    folder = tempfile.mkdtemp(prefix="nemo_speechllm-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_manifest(Path(folder) / name, rows)
    return str(Path(folder) / name)

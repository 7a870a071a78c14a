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

"""Whatever a user gives to ``transcribe``, files, samples, rows or a manifest, as conversations without an answer."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import Tensor

from nemo_speechllm.audio.audio_file import AudioInfo, audio_info
from nemo_speechllm.audio.errors import AudioError
from nemo_speechllm.data.conversation import SAMPLE_RATE, Audio, Conversation
from nemo_speechllm.data.dataset import PLACE_KEY, ConversationBuilder
from nemo_speechllm.manifests.manifest import (
    ANY_CHANNEL,
    BAD_AUDIO,
    BadAudioError,
    ManifestError,
    ManifestIssue,
    read_manifest,
)
from nemo_speechllm.manifests.rows import RATE_KEYS, Defect, audio_defects, given, row_defects

_PATHS = (str, os.PathLike)
_SAMPLES = (np.ndarray, Tensor)


def without_path(row: dict[str, Any]) -> dict[str, Any]:
    """Return what a row says of its audio."""
    return {key: value for key, value in row.items() if key != "audio_filepath"}


def conversations_of(
    audio: Any,
    builder: ConversationBuilder,
    channel_selector: int | str | None = None,
    metadata_of: Callable[[dict[str, Any]], dict[str, Any]] = without_path,
) -> list[Conversation]:
    """Return a conversation for each audio, in order.

    Args:
        audio: path of an audio file or of a manifest; samples at 16 kHz (array or tensor, see `as_samples`); the
            content of an audio file (bytes, or a file opened for reading bytes); a manifest's row as a dictionary; or
            any iterable of these.
        builder: makes the questions.
        channel_selector: of audio with several channels: a number from 0, or ``average``.
        metadata_of: what is known, and asked, of the audio of a row; of an audio that has no row, the row is empty.

    Raises:
        FileNotFoundError: there is no such file.
        ManifestError: a row has a defect; file, line, key and remedy are named.
        AudioError: an audio cannot be read or is no sound; it is named.
        ValueError: there is nothing, or something of another kind.
    """
    reader = _Reader(builder, channel_selector, metadata_of)
    if _is_manifest(audio):
        return reader.read_rows(audio)
    if isinstance(audio, (set, frozenset)):
        raise ValueError("transcribe was given a set, which has no order that the answers could be in; give a list")
    items = [audio] if _is_one(audio) else audio
    if not isinstance(items, Iterable):
        raise ValueError(f"transcribe was given {_kind(audio)}; give paths, arrays of samples, rows or a manifest")
    items = list(items)
    if not items:
        raise ValueError("transcribe was given no audio")
    if len(items) == 1 and _is_manifest(items[0]):
        return reader.read_rows(items[0])
    _refuse_numbers(items)
    return [reader.read_item(item, number) for number, item in enumerate(items, 1)]


@dataclass(frozen=True)
class _Reader:
    """Makes a conversation of an item; see `conversations_of`."""

    builder: ConversationBuilder
    channel_selector: int | str | None
    metadata_of: Callable[[dict[str, Any]], dict[str, Any]]

    def read_rows(self, manifest: str | Path) -> list[Conversation]:
        placed = ((f"{manifest}:{n}", row) for n, row in enumerate(read_manifest(manifest, locate_audio=True), 1))
        return [self._read_row(row | {PLACE_KEY: place}, place) for place, row in placed]

    def read_item(self, item: Any, number: int) -> Conversation:
        name = f"audio {number}"
        if isinstance(item, Mapping):
            row = given(dict(item))
            return self._read_row(row, row.get(PLACE_KEY) or f"row {number}")
        if isinstance(item, (*_PATHS, *_SAMPLES)):
            return self._read_row({"audio_filepath": item}, name)
        try:
            content = item.read() if hasattr(item, "read") else item
        except (OSError, ValueError) as error:  # closed, or opened for writing
            raise AudioError(f"{name}: the file that was given cannot be read: {error}; open it anew") from error
        if isinstance(content, (bytes, bytearray)):
            called = getattr(item, "name", None)  # an opened file's is its path, or a number
            called = called if isinstance(called, str) else f"{name}, given as bytes"
            return self._asked(Audio.from_bytes(bytes(content), called, self.channel_selector), {}, name)
        raise ValueError(f"{name} is {_kind(item)}; give a path, an array of samples, a row or the content of a file")

    def _read_row(self, row: dict[str, Any], place: str) -> Conversation:
        source = row.get("audio_filepath")
        if isinstance(source, _SAMPLES):
            audio = Audio.from_samples(source, self.channel_selector, f"{place}, given as samples")
            row = row | {"audio_filepath": "samples"}
            return self._asked(_part(audio, row, place), row, place)
        if isinstance(source, os.PathLike):
            row = row | {"audio_filepath": os.fspath(source)}
        _raise_for(place, row_defects(row, ("audio_filepath",), answered=False))
        _raise_for(place, audio_defects(row, audio_info(row["audio_filepath"]), ANY_CHANNEL))
        return self._asked(Audio.from_row(row, self.channel_selector), row, place)

    def _asked(self, audio: Audio, row: dict[str, Any], place: str) -> Conversation:
        metadata = given(self.metadata_of(row))
        _raise_for(place, row_defects(metadata, (), answered=False))
        return self.builder.conversation(audio, metadata, audio.name)


def _part(audio: Audio, row: dict[str, Any], place: str) -> Audio:
    """Return what a row asks for of samples, as it would of a file."""
    samples = cast(Tensor, audio.source)
    info = AudioInfo(SAMPLE_RATE, len(samples), 1)
    _raise_for(place, row_defects(row, (), answered=False))
    for key in RATE_KEYS:
        if key in row and row[key] != SAMPLE_RATE:
            problem = f"says {row[key]} Hz, and samples are read as {SAMPLE_RATE} Hz"
            _raise_for(place, [Defect(key, "wrong rate", problem, "resample them, or write them to a file")])
    _raise_for(place, audio_defects(row, info, ANY_CHANNEL))
    if row.get("offset") is None:
        return audio
    start, frames = info.span(row["offset"], row.get("duration"))
    return replace(audio, source=samples[start : None if frames is None else start + frames])


def _is_manifest(item: Any) -> bool:
    return isinstance(item, _PATHS) and Path(item).suffix.lower() in (".json", ".jsonl")


def _is_one(audio: Any) -> bool:
    return isinstance(audio, (*_PATHS, *_SAMPLES, bytes, bytearray, Mapping)) or hasattr(audio, "read")


def _kind(item: Any) -> str:
    return f"{type(item).__name__} ({str(item)[:40]})"


def _refuse_numbers(items: list) -> None:
    if all(isinstance(item, (int, float, np.number)) for item in items):
        raise ValueError(
            f"transcribe was given a list of {len(items)} numbers; give samples as an array, `numpy.asarray(samples, "
            "dtype='float32')`"
        )


def _raise_for(place: str, defects: Iterable[Defect]) -> None:
    """Raise for the first of the defects, if there is one.

    Args:
        place: file and line, or which of the given items it is.
    """
    for defect in defects:
        message = f"{place}: {defect.key}: {defect.problem} → {defect.remedy}"
        file, _, number = place.rpartition(":")
        issue = ManifestIssue(file or place, int(number) if file else 0, *defect)
        raise (BadAudioError if defect.kind in BAD_AUDIO else ManifestError)(message, [issue])

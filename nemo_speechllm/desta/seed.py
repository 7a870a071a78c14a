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

"""Seed transcripts: what is said and how, a line of text per segment that an LLM can read (2409.20007, section 3.1).

    [00:00:01 - 00:00:02]: "These days are long gone." (Gender:Male, Accent: Scottish, Age: 20, Duration: 2s)

The wording is that of the authors' published examples, odd spaces included. A small LLM does not understand their
noise level (docs/results/desta2.md): the attribute `recording`, where it is asked for, tells the same in plain words.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from transformers.models.whisper.tokenization_whisper import LANGUAGES

from nemo_speechllm.desta.metadata import Record


def _word(record: Record) -> str:
    """Return the word for a value where it has one, else the value itself; figures are rounded."""
    value = record.get("level") or record["value"]
    return str(value) if isinstance(value, str) else f"{value:.0f}"


def _level(record: Record) -> str:
    return _word(record).capitalize()


def _noise(record: Record) -> str:
    if isinstance(record["value"], str):
        return record["value"]
    return f"{_level(record)}(Signal-to-Noise Ratio: {record['value']:.0f}db)"


# Attribute → how it is written, in the order of the authors' examples.
ATTRIBUTES: dict[str, Callable[[Record], str]] = {
    "gender": lambda record: f"Gender:{_level(record)}",
    "accent": lambda record: f"Accent: {_word(record)}",
    "age": lambda record: f"Age: {_word(record)}",
    "language": lambda record: (
        f"Language: {str(LANGUAGES.get(record['value'].lower(), record['value'])).capitalize()}"
    ),
    "emotion": lambda record: f"Emotion: {_word(record)}",
    "style": lambda record: f"Style: {_word(record)}",
    "intent": lambda record: f"Action: {_word(record)}",
    "pitch": lambda record: f"Pitch: {_level(record)}",
    "volume": lambda record: f"Volume: {_level(record)}",
    "speaking_speed": lambda record: f"Speaking speed: {_level(record)}",
    "snr": lambda record: f"Noise Level: {_noise(record)}",
    "c50": lambda record: f"Reverberation(C50): {_word(record)}{record['unit'] or ''}",
    "duration": lambda record: f"Duration: {max(record['value'], 1):.0f}s",
}


def _recording(record: Record) -> str:
    if isinstance(record["value"], str):
        return f"Recording: {record['value']}"
    ratio = f"signal-to-noise ratio {record['value']:.0f} dB"
    return f"Recording: {NOISINESS[record['level']]}, {ratio}"


NOISINESS = {"high": "noisy", "moderate": "a little noisy", "low": "clean"}  # of the levels of `metadata.snr`
# Attribute → the record it is written of, and how: otherwise than the authors do, so only where it is asked for.
PLAIN_ATTRIBUTES: dict[str, tuple[str, Callable[[Record], str]]] = {"recording": ("snr", _recording)}
WRITERS = {name: (name, write) for name, write in ATTRIBUTES.items()} | PLAIN_ATTRIBUTES


def seed_transcript(segments: Iterable[Mapping[str, Any]], attributes: Iterable[str] = tuple(ATTRIBUTES)) -> str:
    """Return the segments of a clip as text, a line each.

    Args:
        segments: each with ``start`` and ``end`` (s), ``text``, ``metadata`` (records by name) and maybe ``speaker``.
        attributes: which may be written, of ``ATTRIBUTES`` and ``PLAIN_ATTRIBUTES``; one without a record is left out.

    Raises:
        ValueError: an attribute has no wording.
    """
    chosen = set(attributes)
    check_attributes(chosen, "seed.attributes")
    return "\n".join(_line(segment, chosen) for segment in segments)


def check_attributes(attributes: Iterable[str], key: str) -> None:
    """Refuse attributes that have no wording.

    Args:
        key: where the names stand, for the message.

    Raises:
        ValueError: an attribute has no wording.
    """
    if unknown := set(attributes) - set(WRITERS):
        raise ValueError(f"{key}: nothing is written of {sorted(unknown)}; there are {list(WRITERS)}")


def _line(segment: Mapping[str, Any], chosen: set[str]) -> str:
    written = written_attributes(segment["metadata"], chosen)
    # the seconds that hold the segment
    span = f"[{_clock(math.floor(segment['start']))} - {_clock(math.ceil(segment['end']))}]"
    line = f'{span}{segment.get("speaker") or ""}: "{segment.get("text") or ""}"'
    return f"{line} ({written})" if written else line


def written_attributes(records: Mapping[str, Record], attributes: Collection[str]) -> str:
    """Return what stands in a line's brackets: those of ``attributes`` that have a record."""
    return ", ".join(
        write(records[record]) for name, (record, write) in WRITERS.items() if name in attributes and record in records
    )


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"

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

"""Is an audio file one whole recording? What the libraries that decode it would pass over in silence."""

import io
import re
from collections.abc import Iterator
from itertools import dropwhile
from typing import Literal

import soundfile

from nemo_speechllm.audio.errors import AudioError, raise_cut_short

_UNKNOWN_LENGTH = (
    0x7FFF0000  # bytes from here on in a header stand for "not known yet", of recordings that were streamed
)
_FORMS: dict[bytes, Literal["little", "big"]] = {b"RIFF": "little", b"RIFX": "big", b"FORM": "big"}
_AU: dict[bytes, Literal["little", "big"]] = {b".snd": "big", b"dns.": "little"}
_TAG = 1 << 10  # bytes of what is no chunk that may follow on a WAV's
_OGG_TAIL = 1 << 17  # bytes; a page has at most 65 307
_BLOCK = 1 << 20  # bytes that are searched at a time


def mp3_end(file: io.BufferedIOBase) -> int | None:
    """Return where the first frame of an MP3 says that it ends, in bytes; None: it is none, or does not say it."""
    file.seek(0)
    head = file.read(10)
    start = (
        10 + sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=False))
        if head[:3] == b"ID3"
        else 0
    )
    file.seek(start)
    frame = file.read(256)
    tag = re.search(rb"(?:Xing|Info)\0\0\0[\x03\x07\x0b\x0f].{4}(.{4})", frame, re.DOTALL)  # flags, frames, bytes
    is_mp3 = len(frame) > 1 and frame[0] == 0xFF and frame[1] >= 0xE0
    return start + int.from_bytes(tag[1], "big") if tag is not None and is_mp3 else None


def check_header(file: soundfile.SoundFile, name: str) -> None:
    """Refuse a file whose header tells another number of samples than there are.

    Raises:
        AudioError: the header tells more samples than there are, or none though there are some.
    """
    for declared, actual in re.findall(
        r"(?:data|SSND|Data Size|riff|Riff size) *: (\d+) \(should be (\d+)\)", file.extra_info
    ):
        if int(actual) < int(declared) < _UNKNOWN_LENGTH:
            share = int(actual) / int(declared)
            seconds = file.frames / file.samplerate
            raise_cut_short(name, seconds, seconds / share)
    if file.frames == 0 and file.seek(0, io.SEEK_END) == 0 and _bytes_of(file) > 1 << 10:
        raise AudioError(
            f"{name}: the audio has no samples by its header, though the file is longer: it was not closed; convert "
            "it again, e.g. `ffmpeg -ignore_length 1 -i IN OUT.wav`",
            "zero length",
        )


def _bytes_of(file: soundfile.SoundFile) -> int:
    return file.name.seek(0, io.SEEK_END)


def check_ogg_end(file: io.BufferedIOBase, name: str) -> None:
    """Refuse an Ogg file that is cut short, or in which another follows.

    Raises:
        AudioError: it is an Ogg file in which there is a second one, or whose last page is not whole, or not the last
            one of its stream: both libraries end there in silence.
    """
    is_ogg = file.read(4) == b"OggS"
    if is_ogg:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - _OGG_TAIL))
        tail = file.read()
        page = tail[tail.rfind(b"OggS") :]
        file.seek(0)
        flags = [found[5] for found in _found(file, rb"OggS\0[\0-\7]", 6)]
        whole = len(page) >= 27 and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])
        if not whole or not page[5] & 4:
            raise AudioError(
                f"{name}: the audio is cut short: the end of its Ogg stream is missing; copy it again, or convert "
                "what there is, e.g. `ffmpeg -i IN OUT.flac`"
            )
        if any(flag & 2 for flag in dropwhile(lambda flag: flag & 2, flags)):  # streams begin before any goes on
            _raise_second(name)
    file.seek(0)


def check_chunks_end(file: io.BufferedIOBase, name: str) -> None:
    """Refuse a WAV or AIFF file in which more follows on the samples than other chunks: it would not be read.

    Raises:
        AudioError: there is another recording, or there are more samples than the header says.
    """
    form = file.read(12)
    samples = b"SSND" if form[8:] in (b"AIFF", b"AIFC") else b"data"
    if form[:4] in _FORMS and form[8:] in (b"WAVE", b"AIFF", b"AIFC"):
        ends = list(_chunk_ends(file, _FORMS[form[:4]], samples))
        keys = [key for key, _ in ends]
        is_joined = keys.count(samples) > 1 or any(key in _FORMS for key in keys)
        if is_joined or (samples in keys and _holds_more(file, ends[-1][1])):
            _raise_second(name)
    file.seek(0)


def check_au_end(file: io.BufferedIOBase, name: str) -> None:
    """Refuse an AU file in which more follows on the samples.

    Raises:
        AudioError: there is more.
    """
    head = file.read(12)
    if head[:4] in _AU:
        start, length = (int.from_bytes(head[place : place + 4], _AU[head[:4]]) for place in (4, 8))
        if 0 < length < _UNKNOWN_LENGTH and _holds_more(file, start + length):
            _raise_second(name)
    file.seek(0)


def _chunk_ends(
    file: io.BufferedIOBase, order: Literal["little", "big"], samples: bytes
) -> Iterator[tuple[bytes, int]]:
    """Yield the key and the end of a file's chunks, up to what is none or does not tell its length.

    ``samples`` is the key of that of the samples.
    """
    size, position = file.seek(0, io.SEEK_END), 12
    while True:
        file.seek(position)
        key, length = file.read(4), int.from_bytes(file.read(4), order)
        position += 8 + length
        is_unknown = key == samples and (length == 0 or length >= _UNKNOWN_LENGTH)
        if not _is_key(key) or position > size or is_unknown:
            return
        file.seek(position)
        if length % 2 and not _is_key(file.read(4)):  # some programs leave the padding out
            position += 1
        yield key, position


def _is_key(key: bytes) -> bool:
    return re.fullmatch(rb"[ -~]{4}", key) is not None


def _holds_more(file: io.BufferedIOBase, position: int) -> bool:
    """Whether more is there than a tag that some program appended, or zeros."""
    file.seek(position)
    return len(file.read().rstrip(b"\0")) > _TAG


def check_flac_end(file: io.BufferedIOBase, name: str) -> None:
    """Refuse a FLAC file in which another follows: libsndfile ends with the first.

    Raises:
        AudioError: there is a second one.
    """
    place = file.tell()
    file.seek(4)
    is_joined = any(True for _ in _found(file, rb"fLaC[\0\x80]\0\0\x22", 8))
    file.seek(place)
    if is_joined:
        _raise_second(name)


def _found(file: io.BufferedIOBase, pattern: bytes, length: int) -> Iterator[bytes]:
    """Yield what matches a pattern of ``length`` bytes from here to the end of the file, of which little is held."""
    rest = b""
    while block := file.read(_BLOCK):
        block = rest + block
        yield from re.findall(pattern, block)
        rest = block[-(length - 1) :]


def _raise_second(name: str) -> None:
    raise AudioError(
        f"{name}: the audio holds a second recording after its end, or more samples than its header says, which would "
        "not be read; split it, or convert it again"
    )

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

"""Reads audio files: the one place that decides what can be read, and that it was read whole.

libsndfile comes first, for what it knows (WAV, FLAC, OGG, MP3, AIFF, CAF, …); FFmpeg's libraries read what phones and
browsers record (AAC, M4A, MP4, WebM, AMR, WMA, …).
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from nemo_speechllm.audio.decoders import open_audio
from nemo_speechllm.audio.errors import AudioError

# what a folder's files are called that are worth a try
AUDIO_SUFFIXES = frozenset(
    ".3gp .3gpp .aac .ac3 .aif .aifc .aiff .alac .amr .ape .asf .au .avi .awb .caf .flac .flv .m4a .m4b .m4r .m4v "
    ".mka .mkv .mov .mp2 .mp3 .mp4 .mpeg .mpg .mpga .oga .ogg .ogv .ogx .opus .ra .rf64 .rm .snd .spx .sph .tta "
    ".voc .w64 .wav .wave .weba .webm .wma "
    ".wmv .wv".split()
)
_HEARD_SAMPLE = 1 / 16000  # seconds of a sample as models hear it
SAMPLE_RATES = range(1000, 1_000_001)  # Hz; others are a damaged header's
NAMELESS = "audio given as bytes"  # what messages call it
TOLERANCE = 0.05  # seconds by which what a manifest says may differ from the audio
MAX_PEAK = 10.0  # of samples whose full scale is 1: resampling, mixing and clipping stay far below
_BLOCK = 1 << 17  # frames, at least, that are handed on at a time: FFmpeg gives a thousand


@dataclass(frozen=True)
class AudioInfo:
    """What a file holds.

    Attributes:
        sample_rate: in Hz.
        frames: samples of each channel.
        channels: their number.
        padding: seconds that an encoder may have added; 0 where the length is exact.
    """

    sample_rate: int
    frames: int
    channels: int
    padding: float = 0.0

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.frames / self.sample_rate

    def span(self, offset: float | None, duration: float | None) -> tuple[int, int | None]:
        """Return the first frame of a part and its number of frames, at most those there are; None: to the end."""
        start = round((offset or 0.0) * self.sample_rate)
        return start, None if duration is None else min(round(duration * self.sample_rate), self.frames - start)


def audio_info(source: str | Path | bytes, name: str | None = None) -> AudioInfo:
    """Return what the header of a file says.

    Where it does not tell the length, or is known to lie, the file is decoded.

    Args:
        source: path of a file, or its content.
        name: what messages call it; None: its path.

    Raises:
        FileNotFoundError: there is no such file, or it is a folder.
        AudioError: it cannot be decoded, is cut short or is empty.
    """
    if isinstance(source, bytes):
        return _audio_info(source, name or NAMELESS)
    path = _existing(source)
    status = path.stat()
    return _audio_info_of_file(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1 << 16)
def _audio_info_of_file(path: Path, modified: int, size: int) -> AudioInfo:
    return _audio_info(path, str(path))


def _audio_info(source: Path | bytes, name: str) -> AudioInfo:
    with open_audio(source, name) as audio:
        if audio.sample_rate not in SAMPLE_RATES:
            raise AudioError(
                f"{name}: the audio is sampled at {audio.sample_rate} Hz by its header; correct it", "wrong rate"
            )
        if not audio.length_known:
            audio.frames = sum(len(block) for block in audio.blocks())
        if audio.frames == 0:
            raise AudioError(f"{name}: the audio has no samples; remove it, or record it again", "zero length")
        return AudioInfo(audio.sample_rate, audio.frames, audio.channels, audio.padding)


def read_audio(
    source: str | Path | bytes, start: int = 0, frames: int | None = None, name: str | None = None
) -> tuple[np.ndarray, int]:
    """Return the samples of a file, or of a part of it, (channels, T) float32, and its rate in Hz.

    Args:
        source, name: as of `audio_info`.
        start: first frame.
        frames: how many; None: to the end.

    Raises:
        FileNotFoundError: there is no such file, or it is a folder.
        AudioError: it cannot be decoded, is cut short or is empty, or its samples are no sound: NaN, infinite, or far
            beyond full scale.
    """
    source = source if isinstance(source, bytes) else _existing(source)
    name = name or (NAMELESS if isinstance(source, bytes) else str(source))
    with open_audio(source, name) as audio:
        samples = np.concatenate([np.zeros((0, audio.channels), np.float32), *audio.blocks(start, frames)]).T
        rate = audio.sample_rate
    check_samples(samples, name)
    return samples, rate


def audio_blocks(
    source: str | Path | bytes, start: int = 0, frames: int | None = None, name: str | None = None
) -> Iterator[np.ndarray]:
    """Yield what `read_audio` returns, (channels, T) at a time, read from the file as it is taken.

    Of a recording of any length a few seconds are in memory.

    Args:
        source, start, frames, name: as of `read_audio`.

    Raises:
        FileNotFoundError, AudioError: see `read_audio`; a damaged place is found when it is come to.
    """
    source = source if isinstance(source, bytes) else _existing(source)
    name = name or (NAMELESS if isinstance(source, bytes) else str(source))
    count = 0
    with open_audio(source, name) as audio:
        for block in _gathered(audio.blocks(start, frames)):
            check_samples(block, name)
            count += len(block)
            yield block.T
    if count == 0:
        check_samples(np.zeros(0), name)


def _gathered(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield blocks of (T, channels) joined to larger ones."""
    held: list[np.ndarray] = []
    for block in blocks:
        held.append(block)
        if sum(map(len, held)) >= _BLOCK:
            yield np.concatenate(held)
            held = []
    if any(map(len, held)):
        yield np.concatenate(held)


def check_audio(source: str | Path | bytes, start: int = 0, frames: int | None = None) -> None:
    """Read a file, or a part of it, to its end and keep nothing; arguments and errors are those of `read_audio`."""
    for _ in audio_blocks(source, start, frames):
        pass


def check_samples(samples: np.ndarray, name: str) -> None:
    """Refuse samples that are no sound.

    Args:
        samples: float, of any shape.

    Raises:
        AudioError: there are none, or they are NaN, infinite or far beyond full scale.
    """
    if samples.size == 0:
        raise AudioError(f"{name}: the audio has no samples; remove it, or record it again", "zero length")
    peak = max(float(samples.max()), -float(samples.min()))
    if not np.isfinite(peak):
        raise AudioError(f"{name}: the audio holds NaN or infinite samples; convert it again from its source")
    if peak > MAX_PEAK:
        raise AudioError(
            f"{name}: the audio holds samples up to {peak:.6g}, and full scale is 1; divide 16-bit values by 32768, "
            "or convert it again",
            "wrong scale",
        )


def span_problem(info: AudioInfo, offset: float, duration: float | None, tolerance: float = TOLERANCE) -> str | None:
    """Return what is wrong with a part of a file, if anything is.

    The part begins at ``offset`` and lasts ``duration`` (None: to the end) seconds.
    """
    if offset >= info.duration:
        return f"begins at {offset:.3f} s (offset), and the audio ends at {info.duration:.3f} s"
    if duration is not None and offset + duration > info.duration + info.padding + tolerance:
        return f"ends at {offset + duration:.3f} s (offset + duration), the audio at {info.duration:.3f} s"
    rest = info.duration - offset
    if min(rest, rest if duration is None else duration) < 0.99 * max(1 / info.sample_rate, _HEARD_SAMPLE):
        return "is shorter than one sample"
    return None


def _existing(path: str | Path) -> Path:
    path = Path(path).expanduser()
    if os.path.isdir(path):
        raise FileNotFoundError(f"{path} is a folder, no audio file; give the files in it")
    if not os.path.isfile(path):  # unlike Path's, false for whatever is no path at all
        if os.path.lexists(path):
            raise FileNotFoundError(f"{path} is no audio file: it is a link that leads nowhere, a pipe or a device")
        raise FileNotFoundError(f"audio file {path} does not exist")
    return path


def check_selector(channel_selector: Any, count: int, name: str) -> None:
    """Refuse a channel that the audio does not have.

    Raises:
        AudioError: an audio of ``count`` channels has no such channel.
    """
    if not is_channel(channel_selector, count):
        there = f"{count} channels; give a number from 0 to {count - 1}, or average"
        there = "one channel; leave it out for such audio" if count == 1 else there
        raise AudioError(
            f"{name}: channel_selector={channel_selector!r}, and the audio has {there}", "several channels"
        )


def is_channel(channel_selector: Any, count: int) -> bool:
    """Return whether ``average`` or the number of a channel that an audio of ``count`` channels has is selected."""
    if not isinstance(channel_selector, int) or isinstance(channel_selector, bool):
        return isinstance(channel_selector, str) and channel_selector == "average"
    return 0 <= channel_selector < count

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

"""Decoders: libsndfile, and FFmpeg's libraries for what it does not know, with one face."""

import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import soundfile

from nemo_speechllm.audio.errors import AudioError, raise_cut_short
from nemo_speechllm.audio.wholeness import (
    check_au_end,
    check_chunks_end,
    check_flac_end,
    check_header,
    check_ogg_end,
    mp3_end,
)

# FFmpeg's formats that only read the file they are given: playlists and the like name others
_FFMPEG_FORMATS = (
    "aac,ac3,amr,amrnb,amrwb,ape,asf,avi,caf,eac3,flv,matroska,webm,mov,mp4,m4a,3gp,mp3,mpc,mpc8,mpeg,mpegts,ogg,rm,"
    "tta,wav,wv"
)
_BLOCK = 1 << 18  # frames
_MALFORMED = 3  # libsndfile's code for a format it knows, and damaged
_CODEC_FRAME = (
    1152  # samples of a lossy codec's frame: encoders fill up the last one and begin with one or two of silence
)


@contextmanager
def open_audio(source: Path | bytes, name: str) -> Iterator["_Sndfile | _FFmpeg"]:
    """Open the file by the library that knows its format; what a library raises becomes an `AudioError`."""
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else _open_nameless(source) as file:
            check_ogg_end(file, name)
            check_chunks_end(file, name)
            check_au_end(file, name)
            sound = _open_sndfile(file, name)
            if sound is not None:
                with sound:
                    yield _Sndfile(sound, name)
            else:
                file.seek(0)
                with av.open(file, "r", container_options={"format_whitelist": _FFMPEG_FORMATS}) as container:
                    yield _FFmpeg(container, name)
    except AudioError:
        raise
    except Exception as error:  # decoders of damaged files raise whatever they come across
        reason = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
        raise AudioError(
            f"{name}: the audio cannot be read: {reason}; convert it again to WAV or FLAC, or remove it"
        ) from error


def _open_nameless(path: Path) -> io.BufferedIOBase:
    """Open the file for reading; libsndfile would take one whose name ends with ``.raw`` for headerless samples."""
    return open(os.open(path, os.O_RDONLY), "rb")


def _open_sndfile(file: io.BufferedIOBase, name: str) -> soundfile.SoundFile | None:
    """Open the file by libsndfile, where it can be.

    None where that does not know the format, or would read the first of several MP3s alone.
    """
    size = file.seek(0, io.SEEK_END)
    end = mp3_end(file)
    file.seek(0)
    if end is not None and size < end:
        raise AudioError(f"{name}: the audio is cut short: {size} bytes of {end}; copy or convert it again")
    if end is not None and size > 1.01 * end + 1024:
        return None
    try:
        return soundfile.SoundFile(file)
    except soundfile.LibsndfileError as error:
        if error.code == _MALFORMED:
            raise
        return None


class _Sndfile:
    """A file that libsndfile reads."""

    def __init__(self, file: soundfile.SoundFile, name: str):
        self._file, self._name = file, name
        self.sample_rate, self.channels, self.frames = file.samplerate, file.channels, file.frames
        self.padding = 3 * _CODEC_FRAME / self.sample_rate if file.format == "MP3" else 0.0
        self.length_known = self.frames < 1 << 48  # a FLAC that was streamed says the largest number there is
        check_header(file, name)

    def blocks(self, start: int = 0, frames: int | None = None) -> Iterator[np.ndarray]:
        """Blocks of (T, channels) from a frame on.

        Raises:
            AudioError: there are fewer than the header says, or than ``frames``.
        """
        if start:
            self._file.seek(min(start, self.frames))
        wanted = self.frames - start if frames is None else frames
        if self._file.format == "FLAC" and start + wanted >= self.frames:
            check_flac_end(self._file.name, self._name)
        read = 0
        while read < wanted:
            block = np.zeros((min(_BLOCK, wanted - read), self.channels), np.float32)
            count = self._file.buffer_read_into(block, dtype="float32")
            read += count
            yield block[:count]
            if count < len(block):
                break
        missing = wanted - read
        if 0 < missing <= self.padding * self.sample_rate:  # an MP3 without a tag tells its length by the bit rate
            yield np.zeros((missing, self.channels), np.float32)
        elif missing > 0 and self.length_known:
            raise_cut_short(self._name, (start + read) / self.sample_rate, (start + wanted) / self.sample_rate)


class _FFmpeg:
    """The first audio stream of a file that FFmpeg reads."""

    length_known = False

    def __init__(self, container: av.container.InputContainer, name: str):
        if not container.streams.audio:
            raise AudioError(f"{name}: there is no audio in the file; remove it", "zero length")
        self._container, self._name = container, name
        self._stream = container.streams.audio[0]
        context = self._stream.codec_context
        self.sample_rate, self.channels, self.frames = context.sample_rate, context.channels, 0
        self.padding = 4 * _CODEC_FRAME / self.sample_rate

    def blocks(self, start: int = 0, frames: int | None = None) -> Iterator[np.ndarray]:
        """Blocks of (T, channels) from a frame on; the file is decoded from its beginning, for seeking is not exact.

        Raises:
            AudioError: a packet is damaged, or the container says that there are more, or there are fewer than
                ``frames``.
        """
        position, end = 0, None if frames is None else start + frames
        for block in self._decoded():
            first, position = position, position + len(block)
            if position > start:
                yield block[max(0, start - first) : None if end is None else max(0, end - first)]
            if end is not None and position >= end:
                return
        declared = _declared_seconds(self._container)
        if end is not None and position < end:
            raise_cut_short(self._name, position / self.sample_rate, end / self.sample_rate)
        counted = 2 * _CODEC_FRAME / self.sample_rate + 0.02  # of padding, which is not decoded
        if position / self.sample_rate < declared - counted:
            raise_cut_short(self._name, position / self.sample_rate, declared)

    def _decoded(self) -> Iterator[np.ndarray]:
        resampler = av.AudioResampler(format="fltp", layout=self._stream.codec_context.layout, rate=self.sample_rate)
        for packet in self._container.demux(self._stream):
            if packet.is_corrupt:
                raise AudioError(f"{self._name}: the audio is damaged or cut short; copy or convert it again")
            for frame in packet.decode():
                yield from _samples_of(resampler.resample(frame))
        yield from _samples_of(resampler.resample(None))


def _samples_of(frames: Iterable[av.AudioFrame]) -> Iterator[np.ndarray]:
    for frame in frames:
        yield frame.to_ndarray().T


def _declared_seconds(container: av.container.InputContainer) -> float:
    """Return the length that a container tells; of others FFmpeg estimates it by the bit rate."""
    tells = {"mov", "matroska", "webm", "asf", "avi"} & set(container.format.name.split(","))
    return container.duration / av.time_base if tells and container.duration else 0.0

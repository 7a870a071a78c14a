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

import io
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import dropwhile
from pathlib import Path
from typing import Literal

import av
import numpy as np
import soundfile

# what a folder's files are called that are worth a try
AUDIO_SUFFIXES = frozenset(
    ".3gp .3gpp .aac .ac3 .aif .aifc .aiff .alac .amr .ape .asf .au .avi .awb .caf .flac .flv .m4a .m4b .m4r .m4v "
    ".mka .mkv .mov .mp2 .mp3 .mp4 .mpeg .mpg .mpga .oga .ogg .ogv .ogx .opus .ra .rf64 .rm .snd .spx .sph .tta "
    ".voc .w64 .wav .wave .weba .webm .wma "
    ".wmv .wv".split()
)
# FFmpeg's formats that only read the file they are given: playlists and the like name others
_FFMPEG_FORMATS = (
    "aac,ac3,amr,amrnb,amrwb,ape,asf,avi,caf,eac3,flv,matroska,webm,mov,mp4,m4a,3gp,mp3,mpc,mpc8,mpeg,mpegts,ogg,rm,"
    "tta,wav,wv"
)
_BLOCK = 1 << 20  # frames
_UNKNOWN_LENGTH = (
    0x7FFF0000  # bytes from here on in a header stand for "not known yet", of recordings that were streamed
)
_MALFORMED = 3  # libsndfile's code for a format it knows, and damaged
_RIFF: dict[bytes, Literal["little", "big"]] = {b"RIFF": "little", b"RIFX": "big"}
_TAG = 1 << 10  # bytes of what is no chunk that may follow on a WAV's
_OGG_TAIL = 1 << 17  # bytes; a page has at most 65 307
_CODEC_FRAME = (
    1152  # samples of a lossy codec's frame: encoders fill up the last one and begin with one or two of silence
)
_SHORTFALL = (
    0.3  # seconds by which a container's declared duration may exceed what was decoded: it may count a codec's padding
)
_HEARD_SAMPLE = 1 / 16000  # seconds of a sample as models hear it
SAMPLE_RATES = range(1000, 1_000_001)  # Hz; others are a damaged header's
TOLERANCE = 0.05  # seconds by which what a manifest says may differ from the audio
MAX_PEAK = 10.0  # of samples whose full scale is 1: resampling, mixing and clipping stay far below


class AudioError(RuntimeError):
    """An audio cannot be used; the message names it and the remedy.

    Attributes:
        kind: of the defect, in two words.
    """

    def __init__(self, message: str, kind: str = "unreadable audio"):
        super().__init__(message)
        self.kind = kind


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
        return _audio_info(source, name or "audio given as bytes")
    path = _existing(source)
    status = path.stat()
    return _audio_info_of_file(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1 << 16)
def _audio_info_of_file(path: Path, modified: int, size: int) -> AudioInfo:
    return _audio_info(path, str(path))


def _audio_info(source: Path | bytes, name: str) -> AudioInfo:
    with _open(source, name) as audio:
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
    name = name or ("audio given as bytes" if isinstance(source, bytes) else str(source))
    with _open(source, name) as audio:
        samples = np.concatenate([np.zeros((0, audio.channels), np.float32), *audio.blocks(start, frames)]).T
        rate = audio.sample_rate
    check_samples(samples, name)
    return samples, rate


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


# libraries -----------------------------------------------------------------------------------------------------------


@contextmanager
def _open(source: Path | bytes, name: str) -> Iterator["_Sndfile | _FFmpeg"]:
    """Open the file by the library that knows its format; what a library raises becomes an `AudioError`."""
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else _open_nameless(source) as file:
            _check_ogg_end(file, name)
            _check_wav_end(file, name)
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
    end = _mp3_end(file)
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


def _mp3_end(file: io.BufferedIOBase) -> int | None:
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


class _Sndfile:
    """A file that libsndfile reads."""

    def __init__(self, file: soundfile.SoundFile, name: str):
        self._file, self._name = file, name
        self.sample_rate, self.channels, self.frames = file.samplerate, file.channels, file.frames
        self.padding = 3 * _CODEC_FRAME / self.sample_rate if file.format == "MP3" else 0.0
        self.length_known = self.frames < 1 << 48  # a FLAC that was streamed says the largest number there is
        _check_header(file, name)

    def blocks(self, start: int = 0, frames: int | None = None) -> Iterator[np.ndarray]:
        """Blocks of (T, channels) from a frame on.

        Raises:
            AudioError: there are fewer than the header says, or than ``frames``.
        """
        if start:
            self._file.seek(min(start, self.frames))
        wanted = self.frames - start if frames is None else frames
        if self._file.format == "FLAC" and start + wanted >= self.frames:
            _check_flac_end(self._file.name, self._name)
        read = 0
        while read < wanted:
            block = np.zeros((min(_BLOCK, wanted - read), self.channels), np.float32)
            found = self._file.buffer_read_into(block, dtype="float32")
            read += found
            yield block[:found]
            if found < len(block):
                break
        missing = wanted - read
        if 0 < missing <= self.padding * self.sample_rate:  # an MP3 without a tag tells its length by the bit rate
            yield np.zeros((missing, self.channels), np.float32)
        elif missing > 0 and self.length_known:
            _raise_cut_short(self._name, (start + read) / self.sample_rate, (start + wanted) / self.sample_rate)


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
            _raise_cut_short(self._name, position / self.sample_rate, end / self.sample_rate)
        counted = 2 * _CODEC_FRAME / self.sample_rate + 0.02  # of padding, which is not decoded
        if position / self.sample_rate < declared - counted:
            _raise_cut_short(self._name, position / self.sample_rate, declared)

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


def _check_header(file: soundfile.SoundFile, name: str) -> None:
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
            _raise_cut_short(name, seconds, seconds / share)
    if file.frames == 0 and file.seek(0, io.SEEK_END) == 0 and _bytes_of(file) > 1 << 10:
        raise AudioError(
            f"{name}: the audio has no samples by its header, though the file is longer: it was not closed; convert "
            "it again, e.g. `ffmpeg -ignore_length 1 -i IN OUT.wav`",
            "zero length",
        )


def _bytes_of(file: soundfile.SoundFile) -> int:
    return file.name.seek(0, io.SEEK_END)


def _check_ogg_end(file: io.BufferedIOBase, name: str) -> None:
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
        flags = [found[1][0] for found in re.finditer(rb"OggS\0([\0-\7])", file.read())]
        whole = len(page) >= 27 and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])
        if not whole or not page[5] & 4:
            raise AudioError(
                f"{name}: the audio is cut short: the end of its Ogg stream is missing; copy it again, or convert "
                "what there is, e.g. `ffmpeg -i IN OUT.flac`"
            )
        if any(flag & 2 for flag in dropwhile(lambda flag: flag & 2, flags)):  # streams begin before any goes on
            _raise_second(name)
    file.seek(0)


def _check_wav_end(file: io.BufferedIOBase, name: str) -> None:
    """Refuse a WAV file in which more follows on the samples than other chunks: it would not be read.

    Raises:
        AudioError: there is another recording, or there are more samples than the header says.
    """
    form = file.read(12)
    if form[:4] in _RIFF and form[8:] == b"WAVE":
        ends = list(_chunk_ends(file, _RIFF[form[:4]]))
        keys = [key for key, _ in ends]
        is_joined = keys.count(b"data") > 1 or any(key in _RIFF for key in keys)
        if is_joined or (b"data" in keys and _holds_more(file, ends[-1][1])):
            _raise_second(name)
    file.seek(0)


def _chunk_ends(file: io.BufferedIOBase, order: Literal["little", "big"]) -> Iterator[tuple[bytes, int]]:
    """Yield the key and the end of a WAV's chunks, up to what is none or does not tell its length."""
    size, position = file.seek(0, io.SEEK_END), 12
    while True:
        file.seek(position)
        key, length = file.read(4), int.from_bytes(file.read(4), order)
        position += 8 + length
        is_unknown = key == b"data" and (length == 0 or length >= _UNKNOWN_LENGTH)
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


def _check_flac_end(file: io.BufferedIOBase, name: str) -> None:
    """Refuse a FLAC file in which another follows: libsndfile ends with the first.

    Raises:
        AudioError: there is a second one.
    """
    place = file.tell()
    file.seek(4)
    is_joined = re.search(rb"fLaC[\0\x80]\0\0\x22", file.read()) is not None
    file.seek(place)
    if is_joined:
        _raise_second(name)


def _raise_second(name: str) -> None:
    raise AudioError(
        f"{name}: the audio holds a second recording after its end, or more samples than its header says, which would "
        "not be read; split it, or convert it again"
    )


def _raise_cut_short(name: str, seconds: float, expected: float) -> None:
    raise AudioError(
        f"{name}: the audio is cut short: {seconds:.2f} s of the {expected:.2f} s that it should have; copy or "
        "convert it again"
    )

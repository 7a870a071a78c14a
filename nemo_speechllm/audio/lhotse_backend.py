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

"""Lhotse, and so NeMo's dataloader, reads audio files through this package's reader, and nothing but files."""

import io
from pathlib import Path
from typing import BinaryIO

import numpy as np
from lhotse import AudioSource
from lhotse.audio.backend import LibsndfileBackend, LibsndfileCompatibleAudioInfo, set_current_audio_backend
from lhotse.utils import compute_num_samples

from nemo_speechllm.audio.audio_file import audio_info, read_audio
from nemo_speechllm.audio.errors import AudioError

_READ = ("file", "memory", "shar")  # of Lhotse's kinds of sources; the others run a command or open an address


class CheckedAudioBackend(LibsndfileBackend):
    """Reads with `audio_info` and `read_audio`, whose defects an audio has for all; writes as Lhotse does."""

    def read_audio(
        self,
        path_or_fd: str | Path | BinaryIO,
        offset: float = 0.0,
        duration: float | None = None,
        force_opus_sampling_rate: int | None = None,
    ) -> tuple[np.ndarray, int]:
        """Return samples (channels, T), or (T,) of one channel, and their rate.

        ``offset`` and ``duration`` are in seconds.
        """
        source = _source(path_or_fd)
        if not offset and duration is None:
            return read_audio(source)
        info = audio_info(source)
        start = compute_num_samples(offset, info.sample_rate)
        rest = max(0, info.frames - start)  # Lhotse itself compares what is asked for with what there is
        frames = None if duration is None else min(rest, compute_num_samples(duration, info.sample_rate))
        return read_audio(source, start, frames)

    def info(
        self, path_or_fd: str | Path | BinaryIO, force_opus_sampling_rate: int | None = None
    ) -> LibsndfileCompatibleAudioInfo:
        """Return what the header says."""
        info = audio_info(_source(path_or_fd))
        return LibsndfileCompatibleAudioInfo(info.channels, info.frames, info.sample_rate, info.duration)


def _source(path_or_fd: str | Path | BinaryIO) -> str | Path | bytes:
    if isinstance(path_or_fd, (str, Path)):
        return path_or_fd
    return path_or_fd.getvalue() if isinstance(path_or_fd, io.BytesIO) else path_or_fd.read()


def _open_file_alone(source: AudioSource, offset: float, duration: float | None) -> str | io.BytesIO:
    """Lhotse's `AudioSource._prepare_for_reading` without commands, which data would run in a shell, and addresses.

    Raises:
        AudioError: the source is one of these.
    """
    if source.type not in _READ:
        raise AudioError(
            f"an audio of the kind {source.type!r} ({source.source!r}) is not read, only files are; fetch it, and "
            "name the file",
            "not a file",
        )
    return _prepare_for_reading(source, offset, duration)


def original_error(error: BaseException) -> BaseException:
    """Return what was said first, before Lhotse put its own calls into the message.

    An `AudioError` where one was raised.
    """
    first = error
    earlier: BaseException | None = error
    while earlier is not None:
        first = earlier if isinstance(earlier, AudioError) or not isinstance(first, AudioError) else first
        earlier = earlier.__context__
    return first


# Cuts are read in many places of Lhotse and NeMo, in worker processes too: these are the two that all of them pass.
_prepare_for_reading = AudioSource._prepare_for_reading
AudioSource._prepare_for_reading = _open_file_alone
set_current_audio_backend(CheckedAudioBackend())

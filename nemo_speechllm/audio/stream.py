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

"""A Lhotse cut as a stream: what Lhotse would load and resample as a whole, a few seconds at a time."""

import math
from collections.abc import Iterable, Iterator

import numpy as np
from lhotse.audio import get_audio_duration_mismatch_tolerance
from lhotse.augmentation import Resample
from lhotse.cut import Cut
from lhotse.cut.data import DataCut
from lhotse.utils import compute_num_samples

from nemo_speechllm.audio.audio_file import audio_blocks, audio_info
from nemo_speechllm.audio.errors import raise_cut_short

_SECONDS = 8  # that are resampled at a time,
_MARGIN = 1  # with so many before and after, of which the filter reads some hundredths


def is_part_of_a_file(cut: Cut) -> bool:
    """Tell whether a cut is a stretch of one audio file, unchanged, which `cut_blocks` can read."""
    recording = cut.recording if isinstance(cut, DataCut) and cut.has_recording else None
    if recording is None or recording.transforms or len(recording.sources) != 1:
        return False
    (source,) = recording.sources
    return source.type in ("file", "memory") and audio_info(source.source).sample_rate == recording.sampling_rate


def cut_blocks(cut: DataCut, sample_rate: int, name: str) -> Iterator[np.ndarray]:
    """Yield the samples of ``cut.resample(sample_rate).load_audio()``, (channels, T) at a time.

    Args:
        cut: see `is_part_of_a_file`.
        sample_rate: Hz.
        name: what messages call it.

    Raises:
        AudioError: the file cannot be read to its end, or is shorter than the cut.
    """
    recording, rate = cut.recording, cut.recording.sampling_rate
    (source,) = recording.sources
    start = compute_num_samples(cut.start, rate)
    frames = recording.num_samples - start
    whole = cut.resample(sample_rate).recording.duration
    if not math.isclose(cut.duration, whole, abs_tol=1e-3):  # else Lhotse reads on to the end, which resampling hears
        frames = min(frames, compute_num_samples(cut.duration, rate))
    channels = cut.channel if isinstance(cut.channel, list) else [cut.channel]
    rows = [source.channels.index(channel) for channel in channels]
    blocks: Iterable[np.ndarray] = (block[rows] for block in audio_blocks(source.source, start, frames, name))
    if rate != sample_rate:
        blocks = resampled(blocks, rate, sample_rate)
    return _of_length(blocks, compute_num_samples(cut.duration, sample_rate), sample_rate, name)


def resampled(blocks: Iterable[np.ndarray], rate: int, sample_rate: int) -> Iterator[np.ndarray]:
    """Yield blocks of (channels, T) at another rate: as if they were joined, resampled by Lhotse and parted again."""
    resample, span, margin = Resample(rate, sample_rate), _SECONDS * rate, _MARGIN * rate
    held, before = None, 0  # samples of the margin
    for block in blocks:
        held = block if held is None else np.concatenate([held, block], axis=1)
        while held.shape[1] >= before + span + margin:
            heard = resample(np.ascontiguousarray(held[:, : before + span + margin]))
            yield heard[:, before // rate * sample_rate :][:, : _SECONDS * sample_rate]
            held, before = held[:, before + span - margin :], margin
    if held is not None:
        yield resample(np.ascontiguousarray(held))[:, before // rate * sample_rate :]


def _of_length(blocks: Iterable[np.ndarray], length: int, sample_rate: int, name: str) -> Iterator[np.ndarray]:
    """Yield the blocks with so many samples altogether, as Lhotse sees to it where resampling has rounded otherwise.

    Raises:
        AudioError: too many are missing for that.
    """
    missing, block = length, np.zeros((1, 0), np.float32)
    for block in blocks:
        block = block[:, :missing]
        missing -= block.shape[1]
        yield block
    if missing > get_audio_duration_mismatch_tolerance() * sample_rate:
        raise_cut_short(name, (length - missing) / sample_rate, length / sample_rate)
    if missing:
        yield np.pad(block, ((0, 0), (0, missing)), mode="reflect")[:, -missing:]

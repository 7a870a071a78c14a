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

"""Samples as users have them, arrays and tensors of any kind, to what a model hears."""

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from nemo_speechllm.audio.audio_file import check_samples, check_selector
from nemo_speechllm.audio.errors import AudioError

_MAX_CHANNELS = 32
_PCM = {  # what stands for silence, and for full scale above it
    torch.uint8: (128, 128),
    torch.int8: (0, 1 << 7),
    torch.int16: (0, 1 << 15),
    torch.int32: (0, 1 << 31),
}


def as_samples(given: Any, channel_selector: int | str | None = None, name: str = "audio given as samples") -> Tensor:
    """Return samples as one channel (T,), float32, full scale 1.

    Args:
        given: array or tensor, (T,), or (channels, T) or (T, channels): the shorter side is the channels. Integers of
            8, 16 and 32 bits are PCM; floats have full scale 1. They are at 16 kHz: an array does not say its rate.
        channel_selector: see `one_channel`.
        name: what messages call it.

    Raises:
        AudioError: it is no array of samples, its values cannot be sound, or it has several channels and none was
            selected.
    """
    samples = _as_float(_as_tensor(given, name), name)
    samples = samples[None] if samples.ndim == 1 and samples.numel() else samples
    if samples.ndim == 2 and 0 < min(samples.shape) <= _MAX_CHANNELS:
        channels = samples if samples.shape[0] <= samples.shape[1] else samples.T
        if len(channels) == 1 or channel_selector is not None:
            samples = one_channel(channels, channel_selector, name)
    if samples.ndim != 1 or samples.numel() == 0:
        raise AudioError(
            f"{name}: expected one channel of audio, got shape {tuple(samples.shape)}; give (T,), or (channels, T) "
            "and channel_selector (0, 1, … or average)"
        )
    check_samples(samples.numpy(), name)
    return samples.contiguous()


def one_channel(samples: Tensor, channel_selector: int | str | None, name: str) -> Tensor:
    """Return one channel, (T,), of (channels, T).

    Args:
        channel_selector: number of the channel, from 0, or ``average``; None will do where there is but one.

    Raises:
        AudioError: there are several and none was selected, or there is no such channel.
    """
    count = len(samples)
    if channel_selector is not None:
        check_selector(channel_selector, count, name)
    elif count != 1:
        raise AudioError(
            f"{name}: the audio has {count} channels; set channel_selector (0, 1, …), in the data config or where "
            "you transcribe",
            "several channels",
        )
    return samples.mean(0) if channel_selector == "average" else samples[cast(int, channel_selector or 0)]


def _as_tensor(given: Any, name: str) -> Tensor:
    if isinstance(given, Tensor):
        if given.layout != torch.strided or given.is_nested or given.is_meta:
            raise AudioError(
                f"{name}: it is a tensor of another kind than rows of numbers; give `.to_dense()`, if any"
            )
        return given.detach().cpu()
    if np.ma.is_masked(given):
        raise AudioError(f"{name}: some of its samples are masked; give what they are, `.filled(0)` for silence")
    if given.dtype == np.uint16 or given.dtype.kind not in "iuf":
        raise AudioError(f"{name}: it is an array of {given.dtype}; give floats with full scale 1, or 16-bit integers")
    if given.dtype.kind == "f":
        given = given.astype(np.float32)  # also of a byte order or a precision that torch does not have
    return torch.from_numpy(np.ascontiguousarray(given.astype(given.dtype.newbyteorder("=")))).reshape(given.shape)


def _as_float(samples: Tensor, name: str) -> Tensor:
    if samples.is_floating_point():
        return samples.float()
    if samples.dtype not in _PCM:
        raise AudioError(
            f"{name}: it is an array of {samples.dtype}, whose full scale nothing tells; give floats with full scale "
            "1, or 16-bit integers (`.astype(numpy.int16)` where they are such)"
        )
    if samples.dtype == torch.int32 and samples.numel():
        _check_full_scale(samples, name)
    silence, full_scale = _PCM[samples.dtype]
    return (samples.float() - silence) / full_scale


def _check_full_scale(samples: Tensor, name: str) -> None:
    """Refuse 32-bit integers that hold samples of 16 or 24 bits.

    Raises:
        AudioError: not one of them needs more; silence does not tell.
    """
    peak = max(int(samples.max()), -int(samples.min()))
    for bits, below, remedy in (
        (16, 1 << 16, "give `.astype(numpy.int16)`"),
        (24, (1 << 23) + 1, "give floats, `samples / 2**23`"),
    ):
        if 0 < peak < below:
            raise AudioError(
                f"{name}: it is an array of 32-bit integers none of which needs more than {bits}: as 32-bit sound it "
                f"would be inaudible; {remedy}"
            )

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

"""Arrays and tensors of every kind are read as they are meant, or refused by name."""

import numpy as np
import pytest
import torch

from nemo_speechllm.audio.errors import AudioError
from nemo_speechllm.audio.samples import as_samples

WAVE = np.sin(np.arange(1600) / 10) * 0.5


@pytest.mark.parametrize(
    "given",
    [
        WAVE,
        WAVE.astype(np.float32),
        WAVE.astype(">f4"),
        WAVE.astype(np.float64)[None],
        WAVE[:, None],
        (WAVE * 2**15).round().astype(np.int16),
        (WAVE * 2**15).round().astype(">i2"),
        (WAVE * 2**31).round().astype(np.int32),
        (WAVE * 127 + 128).round().astype(np.uint8),
        (WAVE * 2**7).round().astype(np.int8),
        WAVE[::-1][::-1],
        torch.from_numpy(WAVE),
        torch.from_numpy(WAVE).half(),
        torch.from_numpy(WAVE).bfloat16(),
        torch.from_numpy(WAVE).requires_grad_(),
        torch.from_numpy((WAVE * 2**15).round()).to(torch.int16)[None],
    ],
)
def test_every_kind_of_array_is_the_same_sound(given):
    samples = as_samples(given)
    assert samples.shape == (1600,) and samples.dtype == torch.float32 and not samples.requires_grad
    np.testing.assert_allclose(samples.numpy(), WAVE, atol=0.01)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("selector", "expected"), [(0, WAVE), (1, -WAVE / 2), ("average", WAVE / 4)])
def test_a_channel_of_several_is_chosen(channels_last, selector, expected):
    stereo = np.stack([WAVE, -WAVE / 2])
    samples = as_samples(stereo.T if channels_last else stereo, selector)
    np.testing.assert_allclose(samples.numpy(), expected, atol=1e-6)


def test_silence_stays_silence():
    assert as_samples(np.full(100, 128, np.uint8)).abs().max() == 0
    assert as_samples(np.zeros(100, np.int32)).abs().max() == 0
    assert as_samples(np.array([-(2**31), 5], np.int32)).abs().max() == 1  # whose absolute value 32 bits do not hold


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (WAVE * 2**15, "samples up to 1.*divide 16-bit values by 32768"),
        (torch.full((10,), 1e30), "samples up to 1e"),
        (np.array([0.1, np.nan]), "NaN or infinite"),
        (np.array([0.1, -np.inf]), "NaN or infinite"),
        (np.array(0.5), r"shape \(\)"),
        (np.zeros(0), r"shape \(0,\)"),
        (np.zeros((2, 0)), "shape"),
        (np.zeros((2, 3, 4)), "shape"),
        (np.zeros((100, 200)), "shape"),
        (np.zeros((1600, 2)), "channel_selector"),
        (np.zeros(10, complex), "complex128"),
        (np.zeros(10, bool), "bool"),
        (torch.zeros(10, dtype=torch.bool), "bool"),
        (torch.zeros(10, dtype=torch.complex64), "complex64"),
        (np.array([0.1, None]), "object"),
        (np.array(["a"]), "<U1"),
        (np.zeros(10, np.int64), "full scale nothing tells"),
        (np.zeros(10, np.uint16), "uint16"),
        (np.ma.array(WAVE, mask=WAVE > 0), "masked"),
        (torch.from_numpy(WAVE).to_sparse(), "another kind"),
        (torch.from_numpy(WAVE).to("meta"), "another kind"),
        (np.arange(100, dtype=np.int32), "inaudible.*int16"),
        ((WAVE * 2**23).round().astype(np.int32), r"inaudible; give floats, `samples / 2\*\*23`"),
        (np.array([-(2**23), 2**23 - 1], np.int32), "inaudible"),
    ],
)
def test_what_is_no_sound_is_refused_with_the_remedy(given, message):
    with pytest.raises(AudioError, match=f"^audio 3: .*{message}"):
        as_samples(given, name="audio 3")


@pytest.mark.parametrize("selector", [2, -1, True, "left", 1.0])
def test_a_channel_that_is_not_there_is_named(selector):
    with pytest.raises(AudioError, match="channel_selector=.*the audio has 2 channels"):
        as_samples(np.zeros((2, 100)), selector)


@pytest.mark.parametrize("selector", [-1, 1, 3, True, "left", 1.0, [0], np.array([0, 1])])
def test_what_is_no_channel_is_named_where_there_is_one_as_well(selector):
    with pytest.raises(AudioError, match="channel_selector=.*the audio has one channel; leave it out"):
        as_samples(WAVE, selector)
    for number in (None, 0, "average"):
        assert len(as_samples(WAVE, number)) == len(WAVE)

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

"""Noise of the promised power and colour, and recordings joined without loss."""

import numpy as np
import pytest
import scipy.signal

from nemo_speechllm.corpora.conditions import (
    NOISES,
    group_by_length,
    join_recordings,
    join_rows,
    mix_at_snr,
    noise_from_recordings,
    pink_noise,
)


@pytest.mark.parametrize("snr", [-5, 0, 12.5])
@pytest.mark.parametrize("color", NOISES)
@pytest.mark.parametrize("loudness", [0.2, 3.0])
def test_the_ratio_is_exact_over_the_speech(snr, color, loudness, make_audio):
    speech = loudness * make_audio(1.0)
    mixed = mix_at_snr(speech, NOISES[color](len(speech), np.random.default_rng(0)), snr)
    assert np.abs(mixed).max() <= 1
    noise = NOISES[color](len(speech), np.random.default_rng(0))
    # mixed = a · speech + b · noise; both factors by least squares
    (a, b), *_ = np.linalg.lstsq(np.stack([speech, noise], 1), mixed, rcond=None)
    ratio = 10 * np.log10(np.mean((a * speech) ** 2) / np.mean((b * noise) ** 2))
    assert ratio == pytest.approx(snr, abs=1e-4)
    assert a == pytest.approx(1) or (a < 1 and np.abs(mixed).max() == pytest.approx(1))


def test_silence_has_no_ratio():
    with pytest.raises(ValueError, match="the speech is silent"):
        mix_at_snr(np.zeros(10), np.ones(10), 0)
    with pytest.raises(ValueError, match="the noise is silent"):
        mix_at_snr(np.ones(10), np.zeros(10), 0)


def test_pink_noise_falls_by_three_decibels_an_octave():
    noise = pink_noise(1 << 17, np.random.default_rng(0))
    frequencies, power = scipy.signal.welch(noise, 16000, nperseg=2048)
    band = (frequencies > 100) & (frequencies < 6000)
    slope = np.polyfit(np.log2(frequencies[band]), 10 * np.log10(power[band]), 1)[0]
    assert slope == pytest.approx(-3.01, abs=0.1)


def test_noise_recordings_are_begun_anywhere_and_repeated():
    recordings = [np.arange(5.0), np.arange(100.0, 103.0)]
    random = np.random.default_rng(0)
    drawn = [noise_from_recordings(recordings, 8, random) for _ in range(30)]
    assert {len(noise) for noise in drawn} == {8}
    assert {noise[0] for noise in drawn} == {0, 1, 2, 3, 4, 100, 101, 102}
    for noise in drawn:
        size = 5 if noise[0] < 50 else 3
        assert np.array_equal(noise[size:], noise[: 8 - size]) and len(set(noise)) == size


@pytest.mark.parametrize("seconds", [1, 7, 30, 1000])
def test_groups_hold_every_recording_once_and_come_close(seconds):
    durations = np.random.default_rng(0).uniform(0.5, 6, 200).tolist()
    groups = group_by_length(durations, seconds, 0.5)
    assert [index for group in groups for index in group] == list(range(200))
    lengths = [sum(durations[i] for i in group) + 0.5 * (len(group) - 1) for group in groups]
    for group, length, following in zip(groups, lengths, groups[1:], strict=False):
        assert abs(length - seconds) < abs(length + 0.5 + durations[following[0]] - seconds)
        assert len(group) == 1 or abs(length - seconds) <= 3.25


def test_joined_recordings_have_pauses_between_them():
    joined = join_recordings([np.ones(16000), 2 * np.ones(8000)], 0.25)
    assert np.array_equal(joined, np.r_[np.ones(16000), np.zeros(4000), 2 * np.ones(8000)])
    assert np.array_equal(join_recordings([np.ones(5)], 0.25), np.ones(5))


def test_joined_rows_have_the_texts_in_order_and_what_is_common():
    row = {"audio_filepath": "a.wav", "duration": 1.0, "offset": 2.0, "lang": "en", "speaker": "x"}
    rows = [row | {"text": "One. "}, row | {"text": "two", "speaker": "y"}]
    assert join_rows(rows) == {"text": "One. two", "lang": "en"}
    translated = [row | {"text": "a", "answer": "b"}, row | {"text": "c", "answer": "d"}]
    assert join_rows(translated) == {"text": "a c", "answer": "b d", "lang": "en", "speaker": "x"}

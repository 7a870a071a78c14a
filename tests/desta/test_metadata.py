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

"""Measurements against signals whose values are known; labels before measurements before models."""

import numpy as np
import pytest

from nemo_speechllm.corpora.conditions import NOISES, mix_at_snr
from nemo_speechllm.desta.metadata import EXTRACTORS, Clip, describe_clip, segments_of

RATE = 16000


def clip(samples, rate: int = RATE, **row) -> Clip:
    return Clip(np.asarray(samples, dtype=np.float32), rate, row)


def measure(name: str, samples, rate: int = RATE, **row) -> float | None:
    return EXTRACTORS[name].measure(clip(samples, rate, **row))


def sine(frequency: float, seconds: float = 3.0, rate: int = RATE) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def voice(pitch: float, seconds: float = 3.0) -> np.ndarray:
    """Twenty harmonics that fall as those of a glottis do."""
    return 0.1 * sum(sine(pitch * k, seconds) / k for k in range(1, 21))


def phrases(seconds: float = 6.0) -> np.ndarray:
    """A voice that pauses for 0.2 s in each second."""
    samples = voice(150, seconds)
    return samples * (np.arange(len(samples)) % RATE > 0.2 * RATE)


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize(("gain", "loudness"), [(1.0, -3.01), (10 ** (-20 / 20), -23.01)])
def test_volume_of_a_1_khz_sine_is_the_standards(rate, gain, loudness):
    assert measure("volume", gain * sine(1000, rate=rate), rate) == pytest.approx(loudness, abs=0.05)


def test_volume_leaves_out_pauses_and_has_none_for_silence_and_less_than_a_block():
    loud = 0.1 * sine(1000, 5)
    half = np.concatenate([loud, np.zeros(5 * RATE)])
    assert measure("volume", half) == pytest.approx(measure("volume", loud), abs=0.5)
    assert measure("volume", np.zeros(RATE)) is None
    assert measure("volume", loud[: RATE // 3]) is None


@pytest.mark.parametrize(("frequency", "level"), [(100.0, "low"), (180.0, "normal"), (260.0, "high")])
def test_pitch_of_a_harmonic_tone(frequency, level):
    record = describe_clip(clip(voice(frequency)), ["pitch"])["pitch"]
    assert record["value"] == pytest.approx(frequency, rel=0.02)
    assert (record["unit"], record["source"], record["level"]) == ("Hz", "signal", level)


@pytest.mark.parametrize("snr", [0, 5, 10, 15, 20])
def test_snr_of_a_voice_in_white_noise(snr):
    speech = phrases()
    noise = NOISES["white"](len(speech), np.random.default_rng(0))
    assert measure("snr", mix_at_snr(speech, noise, snr)) == pytest.approx(snr, abs=1.0)


def test_snr_of_pink_noise_rises_with_the_true_one():
    speech, random = phrases(), np.random.default_rng(0)
    noise = NOISES["pink"](len(speech), random)
    found = [measure("snr", mix_at_snr(speech, noise, snr)) for snr in (0, 10, 20)]
    assert found == sorted(found) and found[1:] == pytest.approx([10, 20], abs=4)


def test_snr_is_bounded_where_the_pauses_are_silent_and_none_for_silence():
    assert measure("snr", phrases()) == 40.0
    assert measure("snr", np.zeros(RATE)) is None
    assert measure("snr", np.ones(100)) is None


def test_voice_activity_is_the_share_that_is_voiced():
    noise = 0.05 * np.random.default_rng(0).standard_normal(4 * RATE)
    half = noise + np.concatenate([voice(150, 2), np.zeros(2 * RATE)])
    assert measure("voice_activity", half) == pytest.approx(0.5, abs=0.08)
    assert measure("voice_activity", noise) < 0.05
    assert measure("voice_activity", np.zeros(RATE)) == 0.0
    assert measure("pitch", np.zeros(RATE)) is None


def test_speaking_speed_in_words_per_second_where_words_are_spaced():
    samples = np.zeros(2 * RATE)
    assert measure("speaking_speed", samples, text="press one for support") == 2.0
    assert measure("speaking_speed", samples, text="请按一") == 0.5
    assert measure("speaking_speed", samples, text="请按一", lang="zh-CN") is None
    assert measure("speaking_speed", samples) is None


def test_a_label_goes_before_a_measurement_before_a_model():
    heard = {"value": "fear", "unit": None, "source": "model", "confidence": 0.4}
    models = {"emotion": lambda clip: heard, "gender": lambda clip: pytest.fail("gender is labelled")}
    labelled = clip(phrases(1), gender="female", age=31, lang="de", snr=15, c50="60ms", accent=None)
    records = describe_clip(labelled, ["snr", "duration"], models)
    assert records == {
        "gender": {"value": "female", "unit": None, "source": "label"},
        "age": {"value": 31, "unit": "years", "source": "label"},
        "language": {"value": "de", "unit": None, "source": "label"},
        "snr": {"value": 15, "unit": "dB", "source": "label", "level": "moderate"},
        "c50": {"value": "60ms", "unit": None, "source": "label"},
        "duration": {"value": 1.0, "unit": "s", "source": "signal"},
        "emotion": heard,
    }


def test_an_unknown_measurement_names_those_there_are():
    with pytest.raises(ValueError, match="metadata.extractors: no measurement is called 'pich'.*'pitch'"):
        describe_clip(clip(np.zeros(RATE)), ["pich"])


def test_segments_have_their_own_words_and_the_labels_of_the_clip():
    row = {"lang": "en", "text": "all", "speaker": "ann", "segments": [{"start": 0, "end": 1.5, "text": "hi"}]}
    assert segments_of(row, 2.0) == [{"lang": "en", "start": 0, "end": 1.5, "text": "hi"}]
    assert segments_of({"text": "all", "speaker": "p225"}, 2.0) == [{"text": "all", "start": 0.0, "end": 2.0}]


@pytest.mark.parametrize("segment", [{"start": 0}, {"start": 1, "end": 1}, {"start": 0, "end": 2.5}])
def test_a_segment_outside_its_clip_is_an_error(segment):
    with pytest.raises(ValueError, match=r"segments\[1\]: start .* no part of a clip of 2.00 s"):
        segments_of({"segments": [{"start": 0, "end": 1}, segment]}, 2.0)


# -------------------------------------------------------------------------------------------------------------- models

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

"""Seed transcripts as the authors print them."""

import pytest

from nemo_speechllm.desta.metadata import LABELS, Clip, describe_clip, segments_of
from nemo_speechllm.desta.seed import ATTRIBUTES, seed_transcript


def seed(row: dict, seconds: float, start: float = 0.0, **measured) -> str:
    """The seed of a labelled clip that begins at ``start``."""
    (segment,) = segments_of(row, seconds)
    records = describe_clip(Clip([], 1, segment), []) | {
        name: {"value": value, "unit": "", "source": "signal"} for name, value in measured.items()
    }
    segment |= {"start": start, "end": start + seconds, "metadata": records}
    return seed_transcript([segment])


def test_as_printed_for_vctk():
    row = {
        "text": "These days are long gone.",
        "gender": "male",
        "accent": "Scottish",
        "age": 20,
        "emotion": "neutral",
    }
    assert seed(row, 1.0, start=1.0, duration=1.7) == (
        '[00:00:01 - 00:00:02]: "These days are long gone." '
        "(Gender:Male, Accent: Scottish, Age: 20, Emotion: neutral, Duration: 2s)"
    )


def test_as_printed_for_dailytalk():
    row = {"text": "Is it?", "gender": "Male", "emotion": "happiness", "intent": "question"}
    expected = '[00:00:00 - 00:00:04]: "Is it?" (Gender:Male, Emotion: happiness, Action: question, Duration: 4s)'
    assert seed(row, 4.0, duration=4.0) == expected


def test_as_printed_for_prompttts():
    row = {"text": "Go.", "gender": "male", "emotion": "cheerful"}
    row |= {"pitch": "normal", "volume": "normal", "speaking_speed": "fast"}
    expected = "(Gender:Male, Emotion: cheerful, Pitch: Normal, Volume: Normal, Speaking speed: Fast, Duration: 7s)"
    assert seed(row, 7.0, duration=6.8).endswith(f'"Go." {expected}')


def test_as_printed_for_noise_and_reverberation_with_a_speaker():
    segment = {"start": 0.0, "end": 3.9, "text": "I pull…", "speaker": "Alan_Alda"}
    row = {"segments": [segment], "gender": "male", "snr": 15, "c50": "60ms"}
    assert seed(row, 3.9, duration=3.9) == (
        '[00:00:00 - 00:00:04]Alan_Alda: "I pull…" (Gender:Male, Noise Level: Moderate(Signal-to-Noise Ratio: 15db), '
        "Reverberation(C50): 60ms, Duration: 4s)"
    )


@pytest.mark.parametrize(
    ("snr", "written"),
    [
        (3, "noisy, signal-to-noise ratio 3 dB"),
        (15.2, "a little noisy, signal-to-noise ratio 15 dB"),
        (40, "clean, signal-to-noise ratio 40 dB"),
        ("muffled", "muffled"),
    ],
)
def test_noise_is_told_in_plain_words_where_these_are_asked_for(snr, written):
    (segment,) = segments_of({"text": "Go.", "gender": "male", "snr": snr}, 1.0)
    segment["metadata"] = describe_clip(Clip([], 1, segment), [])
    assert seed_transcript([segment], ["gender", "recording"]).endswith(f"(Gender:Male, Recording: {written})")
    assert "Recording" not in seed_transcript([segment])


def test_a_measured_value_is_told_by_its_word():
    records = {
        "pitch": {"value": 251.3, "unit": "Hz", "source": "signal", "level": "high"},
        "volume": {"value": -33.1, "unit": "LUFS", "source": "signal", "level": "quiet"},
    }
    segment = {"start": 0.0, "end": 0.4, "text": "Go.", "metadata": records}
    assert seed_transcript([segment]) == '[00:00:00 - 00:00:01]: "Go." (Pitch: High, Volume: Quiet)'
    assert seed_transcript([segment], ["volume"]) == '[00:00:00 - 00:00:01]: "Go." (Volume: Quiet)'
    assert seed_transcript([segment], []) == '[00:00:00 - 00:00:01]: "Go."'


@pytest.mark.parametrize(("language", "written"), [("de", "German"), ("EN", "English"), ("Low German", "Low german")])
def test_a_language_code_is_written_as_its_name(language, written):
    assert f"(Language: {written})" in seed({"text": "ja", "lang": language}, 1.0)


def test_several_segments_and_speakers_beyond_an_hour():
    first = {"start": 3599.0, "end": 3600.5, "speaker": "ann", "text": "Well?", "metadata": {}}
    second = {"start": 3600.5, "end": 3602.0, "speaker": "bob", "metadata": {}}
    assert seed_transcript([first, second]) == ('[00:59:59 - 01:00:01]ann: "Well?"\n[01:00:00 - 01:00:02]bob: ""')


def test_every_label_has_a_wording_and_an_unknown_one_is_an_error():
    assert set(LABELS) <= set(ATTRIBUTES)
    with pytest.raises(ValueError, match=r"seed.attributes: nothing is written of \['sex'\]"):
        seed_transcript([], ["sex"])

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

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from nemo_speechllm.assets import AssetError, resolve
from nemo_speechllm.corpora.kokoro import (
    ENGLISH,
    INSTALL,
    LANGUAGES,
    OWN_VOICES,
    RATE,
    Kokoro,
    Speaker,
    Styles,
    draw_speaker,
    is_installed,
)

SPEAKER = Speaker("kokoro-en-train-0-000", ("af_one", "bm_two"), 0.75, 1.0)


def speakers(split: str, language: str, seed: int = 0) -> list[Speaker]:
    return [draw_speaker(seed, index, split, language) for index in range(200)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_speaker_is_a_function_of_seed_and_index(language):
    drawn = speakers("train", language)
    assert drawn == speakers("train", language)
    assert len({(s.voices, s.share) for s in [*drawn, *speakers("train", language, seed=1)]}) == 400
    assert all(s.voices[0] != s.voices[1] and 0.5 <= s.share <= 0.9 and 0.9 < s.shift < 1.1 for s in drawn)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_voices_of_held_out_speakers_are_in_no_other_split(language):
    names = [{s.name for s in speakers(split, language)} for split in ENGLISH]
    voices = [{v for s in speakers(split, language) for v in s.voices} for split in ENGLISH]
    assert not any(one & other for one, other in combinations(names, 2))
    shared = set(OWN_VOICES.get(language, ()))  # a language with few voices has them in every split
    assert all(one & other == shared for one, other in combinations(voices, 2))


def test_the_first_voice_gives_the_accent():
    assert {s.accent for s in speakers("train", "en")} == {"en-us", "en-gb"}
    assert {s.accent for language in OWN_VOICES for s in speakers("test", language)} == {"es", "fr-fr", "it"}


def test_a_blend_is_the_weighted_mean_of_two_voices(tmp_path: Path):
    one, two = (np.random.default_rng(seed).standard_normal((510, 1, 256)).astype(np.float32) for seed in (0, 1))
    one.tofile(tmp_path / "af_one.bin")
    two.tofile(tmp_path / "bm_two.bin")
    style = Styles(tmp_path).of(SPEAKER, tokens=7)
    assert style.shape == (1, 256) and style.dtype == np.float32
    assert np.allclose(style, 0.75 * one[6] + 0.25 * two[6])


@pytest.fixture(scope="module")
def network() -> Kokoro:
    if not is_installed():
        pytest.skip(INSTALL)
    try:
        return Kokoro(resolve("kokoro-82m"))
    except AssetError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("language, text", [("en", "Good evening, dear friends."), ("it", "Buona sera, cari amici.")])
def test_speakers_differ_and_speak_faster_when_told(network, language, text):
    first, second = speakers("train", language)[:2]
    slow, fast, other = (network.speak(text, *how) for how in ((first, 0.8), (first, 1.3), (second, 0.8)))
    assert 1.0 < len(slow) / RATE < 5.0
    assert len(fast) < 0.85 * len(slow)
    assert len(other) != len(slow) or not np.allclose(other, slow)


def test_a_text_without_a_sound_is_an_error(network):
    with pytest.raises(ValueError, match="there is nothing to say in the text ''"):
        network.speak("", draw_speaker(0, 0, "train", "en"), 1.0)

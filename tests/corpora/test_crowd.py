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

from pathlib import Path

import numpy as np
import pytest

from nemo_speechllm.assets import AssetError, resolve
from nemo_speechllm.corpora.acoustics import SAMPLE_RATE
from nemo_speechllm.corpora.crowd import Blends, Crowd, Warped
from nemo_speechllm.corpora.kokoro import INSTALL, is_installed
from nemo_speechllm.corpora.synthesis_languages import LANGUAGES
from nemo_speechllm.corpora.synthesis_voices import VOICES, missing_installs

NOWHERE = Path("no", "network")  # what needs no network does not look for it


@pytest.mark.parametrize("cast", [Blends(NOWHERE, "en"), Warped(LANGUAGES["ru"])], ids=["blends", "warped"])
def test_a_clip_is_a_function_of_seed_and_index(cast):
    crowd, again, other = (Crowd(cast, seed, "train", 50) for seed in (0, 0, 1))
    drawn = [crowd.draw(index) for index in range(300)]
    assert drawn == [again.draw(index) for index in range(300)]
    assert drawn[0] != other.draw(0)
    assert all(0.8 <= tempo <= 1.3 for _, tempo, _ in drawn)
    assert len({speaker for speaker, _, _ in drawn}) == 50


def test_the_manifest_names_the_speaker_and_the_scene():
    crowd = Crowd(Blends(NOWHERE, "en"), 0, "test", 50)
    speaker, _, scene = crowd.draw(3)
    assert crowd.columns(3, "Hello.") == {"speaker": speaker.name} | scene.columns
    assert speaker.name.startswith("kokoro-en-test-0-")


def test_where_nobody_speaks_there_is_sound_and_no_speaker():
    crowd = Crowd(Blends(NOWHERE, "en"), 0, "train", 50)
    wave = crowd(8, "")
    assert wave.dtype == np.float32 and 0.5 <= len(wave) / SAMPLE_RATE <= 8.0
    assert np.array_equal(wave, crowd(8, ""))
    assert "speaker" not in crowd.columns(8, "") and "noise" in crowd.columns(8, "")


def test_a_sentence_is_spoken_in_its_scene():
    if not is_installed():
        pytest.skip(INSTALL)
    try:
        crowd = Crowd(Blends(resolve("kokoro-82m"), "en"), 0, "dev", 50)
    except AssetError as error:
        pytest.skip(str(error))
    wave, (_, _, scene) = crowd(0, "Good evening, dear friends."), crowd.draw(0)
    assert 1.0 < len(wave) / SAMPLE_RATE < 5.0
    assert 20 * np.log10(np.max(np.abs(wave))) == pytest.approx(scene.peak_db, abs=0.1)


@pytest.mark.parametrize("language", LANGUAGES.values(), ids=LANGUAGES)
def test_warped_speakers_have_all_voices_and_are_in_one_split_only(language):
    assert set(language.all_voices) <= set(VOICES)
    drawn = {split: [Warped(language).draw(0, number, split) for number in range(300)] for split in ("train", "test")}
    assert {speaker.voice for speaker in drawn["train"]} == set(language.all_voices)
    assert all(0.82 <= speaker.shift <= 1.22 for speaker in drawn["train"])
    for attribute in ("name", "shift"):
        train, test = ({getattr(speaker, attribute) for speaker in drawn[split]} for split in drawn)
        assert len(train) == 300 and not train & test


@pytest.mark.parametrize("name", LANGUAGES["en"].more_voices)
def test_a_voice_of_the_crowd_speaks_at_the_tempo_it_is_told(name):
    if missing_installs([name]):
        pytest.skip(VOICES[name].install)
    pool = Warped(LANGUAGES["en"]).voices
    (slow, rate), (fast, _) = (pool.speak(name, "Good evening, dear friends.", speed, 0) for speed in (0.8, 1.3))
    assert 1.0 < len(slow) / rate < 5.0
    assert len(fast) < 0.85 * len(slow)

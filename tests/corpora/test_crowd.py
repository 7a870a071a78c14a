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
from nemo_speechllm.corpora.crowd import Crowd
from nemo_speechllm.corpora.kokoro import INSTALL, is_installed

NOWHERE = Path("no", "network")  # what needs no network does not look for it


def test_a_clip_is_a_function_of_seed_and_index():
    crowd, again, other = (Crowd(NOWHERE, seed, "train", 50, "en") for seed in (0, 0, 1))
    drawn = [crowd.draw(index) for index in range(300)]
    assert drawn == [again.draw(index) for index in range(300)]
    assert drawn[0] != other.draw(0)
    assert all(0.8 <= tempo <= 1.3 for _, tempo, _ in drawn)
    assert len({speaker for speaker, _, _ in drawn}) == 50


def test_the_manifest_names_the_speaker_and_the_scene():
    crowd = Crowd(NOWHERE, 0, "test", 50, "en")
    speaker, _, scene = crowd.draw(3)
    assert crowd.columns(3, "Hello.") == {"speaker": speaker.name} | scene.columns
    assert speaker.name.startswith("kokoro-en-test-0-")


def test_where_nobody_speaks_there_is_sound_and_no_speaker():
    crowd = Crowd(NOWHERE, 0, "train", 50, "en")
    wave = crowd(8, "")
    assert wave.dtype == np.float32 and 0.5 <= len(wave) / SAMPLE_RATE <= 8.0
    assert np.array_equal(wave, crowd(8, ""))
    assert "speaker" not in crowd.columns(8, "") and "noise" in crowd.columns(8, "")


def test_a_sentence_is_spoken_in_its_scene():
    if not is_installed():
        pytest.skip(INSTALL)
    try:
        crowd = Crowd(resolve("kokoro-82m"), 0, "dev", 50, "en")
    except AssetError as error:
        pytest.skip(str(error))
    wave, (_, _, scene) = crowd(0, "Good evening, dear friends."), crowd.draw(0)
    assert 1.0 < len(wave) / SAMPLE_RATE < 5.0
    assert 20 * np.log10(np.max(np.abs(wave))) == pytest.approx(scene.peak_db, abs=0.1)

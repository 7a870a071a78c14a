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

import sys
from pathlib import Path

import numpy as np
import pytest

from nemo_speechllm.corpora.synthesis_languages import LANGUAGES
from nemo_speechllm.corpora.synthesis_voices import VOICES, missing_installs, program_voice

SPEAK = """
import sys, numpy, soundfile
wav, percent, text = sys.argv[1:]
soundfile.write(wav, numpy.full(int(percent), len(text) / 100), 16000)
"""


@pytest.mark.parametrize("language", LANGUAGES.values(), ids=LANGUAGES)
def test_the_voices_of_every_language_are_known(language):
    assert set(language.voices) <= set(VOICES)


def test_a_program_gets_tempo_and_text_and_writes_the_speech():
    speak = program_voice(sys.executable, "-c", SPEAK, "{wav}", "{percent}", "{text}")
    wave, rate = speak("Ёж спит.", 1.2, 0)
    assert (len(wave), rate) == (120, 16000)
    assert np.allclose(wave, 0.08, atol=1e-4)


def test_a_program_that_fails_is_quoted():
    speak = program_voice(sys.executable, "-c", "import sys; sys.exit('no such voice')")
    with pytest.raises(RuntimeError, match="failed with status 1 for 'Hola.': no such voice"):
        speak("Hola.", 1.0, 0)


def test_a_program_that_writes_nothing_is_an_error():
    with pytest.raises(RuntimeError, match="failed with status 0 for 'Hola.'"):
        program_voice(sys.executable, "-c", "")("Hola.", 1.0, 0)


def test_what_is_missing_is_named_once_with_the_command_that_installs_it(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert missing_installs(["pico-es", "pico-it"]) == [VOICES["pico-es"].install]
    (tmp_path / "pico2wave").touch(mode=0o755)
    assert missing_installs(["pico-es", "pico-it"]) == []


@pytest.mark.parametrize(
    "name", [name for language in LANGUAGES.values() if language.code != "en" for name in language.voices]
)
def test_an_installed_voice_speaks_faster_when_told(name):
    if not VOICES[name].is_installed():
        pytest.skip(VOICES[name].install)
    speak, text = (
        VOICES[name].load(),
        "Добрый вечер, дорогие друзья." if name in LANGUAGES["ru"].voices else "Mamma mia, che bella giornata.",
    )
    (slow, rate), (fast, _) = speak(text, 0.8, 0), speak(text, 1.3, 0)
    assert rate >= 16000
    assert 0.01 < np.max(np.abs(slow)) <= 1
    assert len(fast) < 0.85 * len(slow)

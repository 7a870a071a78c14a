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

"""What the LLM reads beside the audio: the line's transcription, or what Whisper hears, where there is a voice."""

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from nemo_speechllm.models.transcriber import Transcriber
from nemo_speechllm.models.whisper_baseline import WhisperBaseline
from tests.questions import collate
from tests.tiny_desta2 import asked, voice


class TestTranscription:
    def test_without_one_in_the_manifest_it_is_whispers(self, make_desta2, whole_whisper_folder, make_audio):
        model, spoken = make_desta2(), voice(1.2)
        conversations = [
            asked(spoken, transcription=None),
            asked(make_audio(0.5)),
            asked(voice(0.7), transcription=""),
        ]
        (whisper,), given, empty = model.transcriber(collate(model, conversations))
        expected = WhisperBaseline(str(whole_whisper_folder)).generate([asked(spoken)])[0].text
        assert whisper == expected != ""
        assert (given, empty) == (["hello"], [""])

    def test_silence_noise_and_a_click_have_none(self, desta2_recipe):
        noise = 0.1 * np.random.default_rng(0).standard_normal(32000).astype(np.float32)
        audios = [np.zeros(16000), noise, np.eye(1, 400)[0]]
        transcriber = Transcriber(
            desta2_recipe.model.perception.encoder, desta2_recipe.model.transcription.min_voice_seconds
        )
        assert transcriber.transcribe([(torch.as_tensor(audio), "en") for audio in audios]) == ["", "", ""]

    def test_speech_anywhere_in_a_long_audio_is_found(self, desta2_recipe):
        transcriber = Transcriber(desta2_recipe.model.perception.encoder)
        samples = np.concatenate([np.zeros(33 * 16000, dtype=np.float32), voice(0.8)])
        assert transcriber._is_spoken(torch.from_numpy(samples))

    def test_it_is_kept_on_disk_by_the_audios_content(self, make_desta2, tmp_path, monkeypatch):
        section, samples = make_desta2().cfg.perception.encoder, torch.from_numpy(voice(1.0))
        silence = torch.zeros(8000)
        first = Transcriber(section)
        first.cache(str(tmp_path / "texts"))
        texts = first.transcribe([(samples, "en"), (silence, "en")])
        assert texts[0] and not texts[1] and len(list(tmp_path.glob("texts/*/*.txt"))) == 2

        again = Transcriber(section)
        again.cache(str(tmp_path / "texts"))
        monkeypatch.setattr(WhisperBaseline, "generate", lambda *args: pytest.fail("Whisper was asked again"))
        assert again.transcribe([(silence, "en"), (samples.clone(), "en")]) == texts[::-1]
        for other in ((samples, "fr"), (samples[:-1], "en")):
            with pytest.raises(pytest.fail.Exception):
                again.transcribe([other])

    def test_without_a_whisper_the_remedy_is_named(self):
        with pytest.raises(ValueError, match="give each manifest line its `transcription`"):
            Transcriber(OmegaConf.create({"pretrained": None})).transcribe([(torch.from_numpy(voice(1.0)), None)])

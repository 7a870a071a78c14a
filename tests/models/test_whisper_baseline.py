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

"""Whisper's own decoder behind ``generate``."""

import pytest
import torch

from nemo_speechllm.assets import AssetError
from nemo_speechllm.data.conversation import Audio, Conversation, Turn
from nemo_speechllm.models.whisper_baseline import WhisperBaseline


@pytest.fixture(scope="module")
def whisper() -> WhisperBaseline:
    return WhisperBaseline("whisper-base")


@pytest.fixture
def ask(make_audio):
    def conversation(seconds: float, lang: str | None = "en", n_audios: int = 1) -> Conversation:
        audios = [Audio(torch.from_numpy(make_audio(seconds, seed=int(10 * seconds)))) for _ in range(n_audios)]
        return Conversation("x", [Turn("user", [*audios, "?"])], {"lang": lang} if lang else {})

    return conversation


def test_answers_do_not_depend_on_the_batch(whisper, ask):
    conversations = [ask(0.5, "en"), ask(1.2, "fr"), ask(0.8, "en-US"), ask(1.0, None)]
    together = whisper.generate(conversations, max_new_tokens=6)
    alone = [whisper.generate([conversation], max_new_tokens=6)[0] for conversation in conversations]
    assert together == alone
    assert all(len(answer.ids) <= 6 and answer.truncated == (len(answer.ids) == 6) for answer in together)


def test_audio_beyond_a_window_is_decoded_to_its_end(whisper, ask, monkeypatch):
    seen = []
    monkeypatch.setattr(
        whisper.whisper,
        "generate",
        lambda input_features, **options: (
            seen.append((input_features.shape[-1], options["return_timestamps"])) or torch.zeros(1, 0)
        ),
    )
    whisper.generate([ask(31.0), ask(1.0)])
    assert sorted(seen) == [(3000, False), (3100, True)]


def test_refuses(whisper, ask):
    with pytest.raises(ValueError, match="one audio at a time, this has 2"):
        whisper.generate([ask(0.5, n_audios=2)])
    with pytest.raises(ValueError, match="xx"):
        whisper.generate([ask(0.5, "xx")])
    with pytest.raises(ValueError, match="beam_size is 0"):
        whisper.generate([ask(0.5)], beam_size=0)
    with pytest.raises(TypeError, match="conversation 1 is ndarray"):
        whisper.generate([ask(0.5).audios[0].load().numpy()])
    with pytest.raises(AssetError, match="no known model"):
        WhisperBaseline("whisper-bass")

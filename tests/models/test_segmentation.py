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

"""Long recordings are cut at pauses, and nothing of them is lost."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_speechllm.data.conversation import Audio, Conversation, Turn
from nemo_speechllm.models.segmentation import split_at_pauses, split_long_audio


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60 * 16000), st.sampled_from([1.0, 3.7, 10.0]))
def test_pieces_are_short_enough_and_whole(length, max_seconds):
    samples = torch.randn(length)
    pieces = split_at_pauses(samples, max_seconds)
    assert torch.equal(torch.cat(pieces), samples)
    assert all(0 < len(piece) <= max_seconds * 16000 for piece in pieces)


def test_the_cut_is_in_the_pause():
    samples = torch.randn(15 * 16000)
    samples[8 * 16000 : 8 * 16000 + 4800] = 0.0
    first, second = split_at_pauses(samples, 10.0)
    assert 8 * 16000 <= len(first) <= 8 * 16000 + 4800


def conversation(seconds: float, **metadata) -> Conversation:
    audio = Audio(torch.randn(int(seconds * 16000)))
    return Conversation("c", [Turn("user", [audio, "Transcribe."]), Turn("assistant", ["text"])], metadata)


def test_only_long_recordings_to_be_transcribed_are_cut():
    whole = conversation(25, task="asr")
    pieces = split_long_audio(whole, 10.0)
    assert len(pieces) == 4 and pieces[0].turns[0].text == "Transcribe." and pieces[0].answer is None
    samples = whole.audios[0].load()
    assert torch.equal(torch.cat([piece.audios[0].load() for piece in pieces]), samples)
    assert pieces[0].audios[0].load().data_ptr() == samples.data_ptr(), "pieces are views: nothing is held twice"
    assert len(split_long_audio(conversation(4, task="asr"), 10.0)) == 1
    for other in (conversation(25), Conversation("t", [Turn("user", ["hello"])], {"task": "asr"})):
        assert split_long_audio(other, 10.0) == [other]
    assert split_long_audio(whole, None) == [whole]

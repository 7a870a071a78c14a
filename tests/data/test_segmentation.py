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

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nemo_speechllm.data.conversation import Audio, Conversation, Turn
from nemo_speechllm.data.dataset import ConversationBatch
from nemo_speechllm.data.segmentation import split_at_pauses, split_long_audio


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


def batch_of(*conversations: Conversation) -> ConversationBatch:
    samples = [c.audios[0].load() for c in conversations]
    lengths = torch.tensor([len(s) for s in samples])
    return ConversationBatch(list(conversations), torch.nn.utils.rnn.pad_sequence(samples, batch_first=True), lengths)


def test_only_long_recordings_to_be_transcribed_are_cut():
    batch = batch_of(conversation(25, task="asr"), conversation(25), conversation(4, task="asr"))
    pieces, counts = split_long_audio(batch, 10.0)
    assert counts == [4, 1, 1] and len(pieces.conversations) == 6 == len(pieces.audio)
    assert pieces.audio_lengths.sum() == batch.audio_lengths.sum()
    assert pieces.conversations[0].turns[0].text == "Transcribe." and pieces.conversations[0].answer is None


@pytest.mark.parametrize("text", ["", "hello"])
def test_text_alone_passes_through(text):
    batch = ConversationBatch(
        [Conversation("t", [Turn("user", [text])])], torch.zeros(0, 0), torch.zeros(0, dtype=int)
    )
    pieces, counts = split_long_audio(batch, 10.0)
    assert counts == [1] and pieces.audio.shape == (0, 0)

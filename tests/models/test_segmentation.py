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
from nemo_speechllm.models.segmentation import Piece, batches_of, split_at_pauses, split_long_audio


def pieces_of(samples: torch.Tensor, max_seconds: float, block: int | None = None) -> list[torch.Tensor]:
    """The pieces of samples that come in blocks of a length, or all at once."""
    blocks = samples.split(block) if block else [samples]
    return list(split_at_pauses(blocks, len(samples), max_seconds))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60 * 16000), st.sampled_from([1.0, 3.7, 10.0]), st.integers(1000, 1 << 20))
def test_pieces_are_short_enough_and_whole_however_they_are_read(length, max_seconds, block):
    samples = torch.randn(length)
    pieces = pieces_of(samples, max_seconds)
    assert torch.equal(torch.cat(pieces), samples)
    assert all(0 < len(piece) <= max_seconds * 16000 for piece in pieces)
    assert list(map(len, pieces_of(samples, max_seconds, block))) == list(map(len, pieces))


def test_the_cut_is_in_the_pause():
    samples = torch.randn(15 * 16000)
    samples[8 * 16000 : 8 * 16000 + 4800] = 0.0
    first, second = pieces_of(samples, 10.0)
    assert 8 * 16000 <= len(first) <= 8 * 16000 + 4800


def test_no_more_is_read_than_the_next_piece_may_take():
    taken = []

    def blocks():
        for number in range(60):
            taken.append(number)
            yield torch.randn(16000)

    pieces = split_at_pauses(blocks(), 60 * 16000, 10.0)
    ends = 0
    for piece in pieces:
        ends += len(piece)
        assert len(taken) <= ends / 16000 + 6


def conversation(seconds: float, **metadata) -> Conversation:
    audio = Audio(torch.randn(int(seconds * 16000)))
    return Conversation("c", [Turn("user", [audio, "Transcribe."]), Turn("assistant", ["text"])], metadata)


def test_only_long_recordings_to_be_transcribed_are_cut():
    whole = conversation(25, task="asr")
    pieces = list(split_long_audio(whole, 10.0))
    first = pieces[0].conversation
    assert len(pieces) == 4 and first.turns[0].text == "Transcribe." and first.answer is None
    samples = whole.audios[0].load()
    parts = [piece.conversation.audios[0].load() for piece in pieces]
    assert torch.equal(torch.cat(parts), samples)
    assert parts[0].data_ptr() == samples.data_ptr(), "pieces are views: nothing is held twice"
    ends = [piece.start + piece.seconds for piece in pieces]
    assert [piece.start for piece in pieces] == pytest.approx([0.0, *ends[:-1]]) and ends[-1] == pytest.approx(25.0)
    assert [piece.is_last for piece in pieces] == [False, False, False, True]
    assert len(list(split_long_audio(conversation(4, task="asr"), 10.0))) == 1
    for other in (conversation(25), Conversation("t", [Turn("user", ["hello"])], {"task": "asr"})):
        assert list(split_long_audio(other, 10.0)) == [Piece(other)]
    assert list(split_long_audio(whole, None)) == [Piece(whole)]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(0.1, 9.0), max_size=20),
    st.integers(1, 5),
    st.none() | st.sampled_from([0.05, 3.0, 10.0, 100.0]),
)
def test_batches_are_bounded_in_pieces_and_in_padded_seconds(lengths, batch_size, batch_duration):
    pieces = [Piece(conversation(seconds, task="asr")) for seconds in lengths]
    batches = list(batches_of(pieces, batch_size, batch_duration))
    assert [piece for batch in batches for piece in batch] == pieces
    padded = [len(batch) * max(piece.seconds for piece in batch) for batch in batches]
    bound = batch_duration or float("inf")
    assert all(0 < len(batch) <= batch_size for batch in batches)
    assert all(seconds <= bound or len(batch) == 1 for seconds, batch in zip(padded, batches, strict=True))
    for batch, following in zip(batches, batches[1:], strict=False):  # none is smaller than it must be
        joined = [*batch, following[0]]
        assert len(joined) > batch_size or len(joined) * max(piece.seconds for piece in joined) > bound

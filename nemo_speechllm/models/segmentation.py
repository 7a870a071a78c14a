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

"""Long recordings: cut at pauses into pieces of the length that a model was trained on, while they are read."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nemo_speechllm.data.conversation import SAMPLE_RATE, Audio, Conversation
from nemo_speechllm.recipes.settings import Limits, whole_number

PAUSE_SECONDS = 0.2


@dataclass(frozen=True)
class Piece:
    """A piece of a recording that is to be transcribed, or a conversation that is answered as a whole.

    Attributes:
        conversation: asks about the piece alone.
        start: seconds at which it begins in its recording.
        is_last: nothing of the recording follows.
    """

    conversation: Conversation
    start: float = 0.0
    is_last: bool = True

    @property
    def seconds(self) -> float:
        """Of its audio."""
        return sum(audio.duration for audio in self.conversation.audios)


def is_cut(conversation: Conversation, max_seconds: float | None) -> bool:
    """Tell whether a recording is longer than ``max_seconds`` (None: none is) and may be answered in pieces.

    A conversation of the task ``asr`` with one audio may: the answers to its pieces, joined, are the transcript. A
    question about a recording is about all of it.
    """
    if max_seconds is None or conversation.task != "asr" or len(conversation.audios) != 1:
        return False
    return conversation.audios[0].duration > max_seconds


def split_long_audio(conversation: Conversation, max_seconds: float | None) -> Iterator[Piece]:
    """Yield the pieces of a recording that `is_cut`, of at most ``max_seconds``, or the conversation alone.

    Of a file no more is read than the piece takes that is asked for.

    Raises:
        nemo_speechllm.data.conversation.AudioError: the recording cannot be read.
    """
    if max_seconds is None or not is_cut(conversation, max_seconds):
        yield Piece(conversation)
        return
    question, (audio,), start = conversation.without_answer(), conversation.audios, 0
    length, blocks = audio.stream()
    for samples in split_at_pauses(blocks, length, max_seconds):
        piece = question.with_audios([Audio(samples, label=audio.name)])
        yield Piece(piece, start / SAMPLE_RATE, start + len(samples) == length)
        start += len(samples)


def split_at_pauses(blocks: Iterable[Tensor], length: int, max_seconds: float) -> Iterator[Tensor]:
    """Yield pieces of at most ``max_seconds``, about equally long, each cut at the quietest 0.2 s near its ideal end.

    Args:
        blocks: samples at 16 kHz, (T,) at a time, taken as they are needed.
        length: samples of all blocks.

    Returns:
        the pieces in order; together they are the samples, nothing is dropped.
    """
    limit = int(max_seconds * SAMPLE_RATE)
    # pieces of three quarters of the limit leave room to look for a pause on either side
    count = math.ceil(length / (0.75 * limit)) if length > limit else 1
    span = length / count
    reach = int((limit - span) / 2)
    samples, start = _Samples(blocks), 0
    for centre in (round(i * span) for i in range(1, count)):
        near = samples.peek(centre + reach - start)
        cut = _quietest(near, centre - start, reach)
        yield samples.take(cut)
        start += cut
    yield samples.take(length - start)


class _Samples:
    """Samples that come in blocks, as many at a time as are wanted."""

    def __init__(self, blocks: Iterable[Tensor]):
        self._blocks, self._held = iter(blocks), torch.zeros(0)

    def peek(self, count: int) -> Tensor:
        """Return the next ones; they stay."""
        while len(self._held) < count:
            block = next(self._blocks)
            self._held = torch.cat([self._held, block]) if len(self._held) else block
        return self._held[:count]

    def take(self, count: int) -> Tensor:
        """Return the next ones and go on behind them."""
        taken, self._held = self.peek(count), self._held[count:]
        return taken


def _quietest(samples: Tensor, centre: int, reach: int) -> int:
    """Middle of the quietest stretch within ``reach`` of a place."""
    window = int(PAUSE_SECONDS * SAMPLE_RATE)
    start = centre - reach
    power = samples[start : centre + reach].float().square()[None, None]
    if power.shape[-1] < window:
        return centre
    energy = nn.functional.avg_pool1d(power, window, stride=window // 20)
    return start + int(energy.argmin()) * (window // 20) + window // 2


def batches_of(pieces: Iterable[Piece], batch_size: int, batch_duration: float | None = None) -> Iterator[list[Piece]]:
    """Yield pieces that are answered together, in order; each is taken when it is needed.

    Args:
        pieces: of recordings, whosever they are.
        batch_size: the most there are in a batch.
        batch_duration: the most seconds that they have altogether, each counted as the longest of them, which the
            others are padded to; a longer piece is alone. None: any.

    Raises:
        ValueError: ``batch_size`` is no whole number, or less than 1.
    """
    size = whole_number("batch_size", batch_size, Limits(at_least=1))
    batch: list[Piece] = []
    for piece in pieces:
        padded = (len(batch) + 1) * max(item.seconds for item in (*batch, piece))
        if batch and batch_duration is not None and padded > batch_duration:
            yield batch
            batch = []
        batch.append(piece)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch

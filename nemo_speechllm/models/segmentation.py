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

"""Long recordings: cut at pauses into pieces of the length that a model was trained on."""

import math
from itertools import accumulate

from torch import Tensor, nn

from nemo_speechllm.data.conversation import SAMPLE_RATE, Audio, Conversation

PAUSE_SECONDS = 0.2


def split_at_pauses(samples: Tensor, max_seconds: float) -> list[Tensor]:
    """Pieces of at most ``max_seconds``, about equally long, each cut at the quietest 0.2 s near its ideal end.

    Args:
        samples: (T,) at 16 kHz.

    Returns:
        the pieces in order; together they are the samples, nothing is dropped.
    """
    limit = int(max_seconds * SAMPLE_RATE)
    if len(samples) <= limit:
        return [samples]
    # pieces of three quarters of the limit leave room to look for a pause on either side
    count = math.ceil(len(samples) / (0.75 * limit))
    span = len(samples) / count
    reach = int((limit - span) / 2)
    cuts = [_quietest(samples, round(i * span), reach) for i in range(1, count)]
    return list(samples.tensor_split(cuts))


def _quietest(samples: Tensor, centre: int, reach: int) -> int:
    """Middle of the quietest stretch within ``reach`` of a place."""
    window = int(PAUSE_SECONDS * SAMPLE_RATE)
    start = centre - reach
    power = samples[start : centre + reach].float().square()[None, None]
    if power.shape[-1] < window:
        return centre
    energy = nn.functional.avg_pool1d(power, window, stride=window // 20)
    return start + int(energy.argmin()) * (window // 20) + window // 2


def split_long_audio(conversation: Conversation, max_seconds: float | None) -> list[Conversation]:
    """Cut a recording that is to be transcribed and is longer than ``max_seconds``; None: none is.

    Only a conversation of the task ``asr`` with one audio is cut: the answers to its pieces, joined, answer the whole.
    A question about a recording is about all of it.

    Returns:
        the pieces, which share the samples of the recording, or the conversation alone.

    Raises:
        nemo_speechllm.data.conversation.AudioError: the recording cannot be read.
    """
    audios = conversation.audios
    if max_seconds is None or conversation.task != "asr" or len(audios) != 1:
        return [conversation]
    question, pieces = conversation.without_answer(), split_at_pauses(audios[0].load(), max_seconds)
    return [question.with_audios([Audio(piece)]) for piece in pieces]


def starts_of(pieces: list[Conversation]) -> list[float]:
    """Return when each piece of a recording begins in it, in seconds; the pieces are those of `split_long_audio`."""
    samples = [len(piece.audios[0].load()) for piece in pieces[:-1]]
    return [end / SAMPLE_RATE for end in accumulate(samples, initial=0)]

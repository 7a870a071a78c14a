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

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from nemo_speechllm.data.conversation import SAMPLE_RATE, Audio, Conversation, Turn
from nemo_speechllm.data.dataset import ConversationBatch

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


def split_long_audio(batch: ConversationBatch, max_seconds: float) -> tuple[ConversationBatch, list[int]]:
    """Cuts the recordings that are to be transcribed and are longer than ``max_seconds``.

    Only a conversation of the task ``asr`` with one audio is cut: the answers to its pieces, joined, answer the whole. A
    question about a recording is about all of it.

    Returns:
        the batch of pieces, and how many stand for each conversation of the given batch.
    """
    conversations, samples, counts = [], [], []
    audios = iter([row[:length] for row, length in zip(batch.audio, batch.audio_lengths.tolist())])
    for conversation in batch.conversations:
        own = [next(audios) for _ in conversation.audios]
        if conversation.metadata.get("task") == "asr" and len(own) == 1:
            own = split_at_pauses(own[0], max_seconds)
            conversations += [_with_audio(conversation, piece) for piece in own]
            counts.append(len(own))
        else:
            conversations.append(conversation)
            counts.append(1)
        samples += own
    lengths = torch.tensor([len(piece) for piece in samples], device=batch.audio.device)
    audio = pad_sequence(samples, batch_first=True) if samples else batch.audio
    return ConversationBatch(conversations, audio, lengths), counts


def _with_audio(conversation: Conversation, samples: Tensor) -> Conversation:
    """The same conversation about a piece of its audio, without its answer."""
    turns = [
        Turn(turn.role, [Audio(samples) if isinstance(part, Audio) else part for part in turn.parts])
        for turn in conversation.without_answer().turns
    ]
    return Conversation(conversation.id, turns, conversation.metadata)

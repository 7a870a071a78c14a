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

"""A prompt is a list of segments, text ids or audio embeddings; one function joins them for the LLM."""

from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from nemo_speechllm.prompts.segments import AudioSegment, Segment, TextSegment
from nemo_speechllm.randomness import named_random

IGNORE_INDEX = -100


@dataclass
class LLMInputs:
    """What the LLM reads: everything is padded on the left, so that all items end at the last position.

    Attributes:
        embeddings: (B, T, d_llm).
        attention_mask: (B, T), 1 where there is something.
        labels: (B, T), token ids where the loss is taken, ``IGNORE_INDEX`` elsewhere.
    """

    embeddings: Tensor
    attention_mask: Tensor
    labels: Tensor


def join_segments(
    prompts: list[list[Segment]], audio_embeddings: list[list[Tensor]], embed_tokens: nn.Module
) -> LLMInputs:
    """Embed and join the segments of each prompt.

    Whether a position is padding is known from its place, never from its id, so an end token that is also the padding
    token keeps its loss.

    Args:
        prompts: B lists of segments.
        audio_embeddings: for each prompt its audios' embeddings, each (T_audio, d_llm) without padding.
        embed_tokens: the LLM's embedding layer.
    """
    rows = [_join_one(*pair, embed_tokens) for pair in zip(prompts, audio_embeddings, strict=True)]
    size = max(len(labels) for _, labels in rows)
    embeddings, masks, padded_labels = [], [], []
    for embedded, labels in rows:
        missing = size - len(labels)
        embeddings.append(nn.functional.pad(embedded, (0, 0, missing, 0)))
        masks.append(nn.functional.pad(torch.ones_like(labels), (missing, 0)))
        padded_labels.append(nn.functional.pad(labels, (missing, 0), value=IGNORE_INDEX))
    return LLMInputs(torch.stack(embeddings), torch.stack(masks), torch.stack(padded_labels))


def _join_one(segments: list[Segment], audios: list[Tensor], embed_tokens: nn.Module) -> tuple[Tensor, Tensor]:
    """Return embeddings (T, d_llm) and labels (T,) of one prompt."""
    weight = cast(Tensor, embed_tokens.weight)
    embeddings, labels = [], []
    for segment in segments:
        if isinstance(segment, AudioSegment):
            embedded = audios[segment.index].to(weight.dtype)
            target = torch.full((len(embedded),), IGNORE_INDEX, device=weight.device)
        else:
            ids = torch.tensor(segment.ids, dtype=torch.long, device=weight.device)
            embedded = embed_tokens(ids if segment.read is None else torch.tensor(segment.read, device=weight.device))
            target = ids if segment.loss else torch.full_like(ids, IGNORE_INDEX)
        embeddings.append(embedded)
        labels.append(target)
    return torch.cat(embeddings), torch.cat(labels)


def mask_text(segments: list[Segment], fraction: float, mask_id: int, name: tuple) -> list[Segment]:
    """Let the model read a mask in place of some of the answer's tokens (2307.11795, text-token masking).

    What it is trained to produce stays as it is: it must find a masked token in the audio. End tokens are not masked.

    Args:
        segments: of one prompt.
        fraction: chance of each token to be masked.
        mask_id: token id that is read in its place.
        name: what the draw depends on, and nothing else: seed, epoch and id of the sample.
    """
    random = named_random(name)
    return [
        replace(segment, read=_masked(segment.ids, random, fraction, mask_id))
        if isinstance(segment, TextSegment) and segment.loss
        else segment
        for segment in segments
    ]


def _masked(ids: list[int], random: np.random.Generator, fraction: float, mask_id: int) -> list[int]:
    masked = random.random(len(ids) - 1) < fraction
    return [mask_id if hide else token for token, hide in zip(ids[:-1], masked, strict=True)] + ids[-1:]

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

"""What answers cost an LLM: cross-entropy at the positions that predict a token of an answer, and nowhere else."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from nemo_speechllm.modules.packing import can_pack, packed_rows
from nemo_speechllm.modules.segments import IGNORE_INDEX, LLMInputs
from nemo_speechllm.versions import named

ALIBI_LLMS = {"bloom", "mpt"}  # they have no positions but those that they count from the attention mask
LOGITS_AT_ONCE = 2**24  # of which cross-entropy keeps a copy in float32


def answer_nats(llm: PreTrainedModel, inputs: LLMInputs) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy of each row's labels, and how many there are, both (B,); nothing predicts the first.

    An LLM that can reads the rows packed, so that padding costs nothing; see `can_pack`.
    """
    predicts = (inputs.labels[:, 1:] != IGNORE_INDEX) & inputs.attention_mask[:, :-1].bool()
    logits = (_packed_logits if can_pack(llm) else _padded_logits)(llm, inputs, predicts)
    losses = cross_entropy(logits, inputs.labels[:, 1:][predicts])
    tokens = predicts.sum(1)
    rows = torch.arange(len(tokens), device=tokens.device).repeat_interleave(tokens)
    return losses.new_zeros(len(tokens)).index_add(0, rows, losses), tokens


def _packed_logits(llm: PreTrainedModel, inputs: LLMInputs, predicts: Tensor) -> Tensor:
    """Return the logits, (N, V), of the positions that predict something, a mask (B, T - 1)."""
    is_read = inputs.attention_mask.bool()
    places = is_read.flatten().cumsum(0).view_as(is_read)[:, :-1] - 1
    rows = packed_rows(is_read.sum(1).tolist(), inputs.embeddings.device)
    given = named(llm, inputs_embeds=inputs.embeddings[is_read][None], logits_to_keep=places[predicts], **rows)
    return llm(**given, use_cache=False).logits[0]


def _padded_logits(llm: PreTrainedModel, inputs: LLMInputs, predicts: Tensor) -> Tensor:
    """Return what `_packed_logits` does, of padded rows: the LLM computes logits from the first of these on."""
    read = predicts.shape[1] + 1
    first = int(predicts.any(0).float().argmax())
    positions = {"position_ids": (inputs.attention_mask.cumsum(1) - 1).clamp(min=0)}
    given = named(
        llm,
        inputs_embeds=inputs.embeddings,
        attention_mask=inputs.attention_mask,
        logits_to_keep=read - first,
        **({} if getattr(llm.config, "model_type", None) in ALIBI_LLMS else positions),
    )
    return llm(**given, use_cache=False).logits[:, :-1][predicts[:, first:]]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy in float32 of logits (N, V) and labels (N,), (N,).

    Of a large vocabulary it is taken part by part, each anew for its gradient.
    """
    size = max(1, LOGITS_AT_ONCE // logits.shape[-1])
    if len(logits) <= size:
        return _cross_entropy(logits, labels)
    parts = zip(logits.split(size), labels.split(size), strict=True)
    return torch.cat([checkpoint(_cross_entropy, *part, use_reentrant=False) for part in parts])


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(logits.float(), labels, reduction="none")

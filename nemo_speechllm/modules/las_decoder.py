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

"""The decoder of a listen-attend-spell model: text that attends to an encoder's states, and its training loss."""

from dataclasses import dataclass

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from transformers import T5Config, T5ForConditionalGeneration

from nemo_speechllm.segments import TextSegment


@dataclass
class DecoderText:
    """What the decoder reads: padded on the left, so that all items end at the last position.

    Attributes:
        ids: (B, L).
        attention_mask: (B, L), 1 where there is something.
        learned: (B, L), true where the loss is taken.
    """

    ids: Tensor
    attention_mask: Tensor
    learned: Tensor


def build_las_decoder(cfg: DictConfig, vocab_size: int, end_token_id: int) -> T5ForConditionalGeneration:
    """A Transformer decoder with cross-attention and random weights: Hugging Face's T5, whose encoder has no layers.

    T5 knows positions by their distance alone. So instructions of unequal length, padded on the left, are answered in one
    batch as they are one by one. What is left of T5's encoder normalises the audio states that are given as
    ``inputs_embeds`` and drops out some.

    Args:
        cfg: the recipe's ``model.decoder`` section: ``n_layers``, ``d_model``, ``n_heads``, ``ff_expansion_factor``,
            ``dropout``.
        vocab_size: of the tokenizer.
        end_token_id: ends an answer; also fills up what is padded.

    Raises:
        ValueError: ``d_model`` is no multiple of ``n_heads``.
    """
    if cfg.d_model % cfg.n_heads:
        raise ValueError(
            f"model.decoder.d_model={cfg.d_model} must be a multiple of model.decoder.n_heads={cfg.n_heads}"
        )
    config = T5Config(
        vocab_size=vocab_size,
        d_model=cfg.d_model,
        d_kv=cfg.d_model // cfg.n_heads,
        d_ff=cfg.d_model * cfg.ff_expansion_factor,
        num_layers=0,
        num_decoder_layers=cfg.n_layers,
        num_heads=cfg.n_heads,
        dropout_rate=cfg.dropout,
        pad_token_id=end_token_id,
        eos_token_id=end_token_id,
        tie_word_embeddings=False,  # they are tied all the same; what this turns off is T5's scaling of the output
    )
    decoder = T5ForConditionalGeneration(config)
    # T5's embeddings of size 1 are for Adafactor, whose steps grow with a weight; Adam's would take thousands to move them
    nn.init.normal_(decoder.get_input_embeddings().weight, std=cfg.d_model**-0.5)
    return decoder


def add_positions(states: Tensor) -> Tensor:
    """Audio states (B, T, d), brought to size 1, with sinusoids of their absolute positions (1706.03762, section 3.5).

    A Conformer knows positions by their distance alone, and so does the decoder: without this, what follows the first of
    two like-sounding words cannot be told from what follows the second.
    """
    _, time, width = states.shape
    pairs = torch.arange(0, width, 2, device=states.device)
    angles = torch.arange(time, device=states.device)[:, None] * 10000.0 ** (-pairs / width)
    positions = torch.stack([angles.sin(), angles.cos()], -1).flatten(1)[:, :width]
    return nn.functional.rms_norm(states, (width,)) + positions.to(states.dtype)


def join_text(prompts: list[list[TextSegment]], pad_id: int, device: torch.device | str = "cpu") -> DecoderText:
    """Joins the segments of each prompt and pads them on the left.

    Args:
        prompts: B lists of segments.
        pad_id: any token; whether a position is padding is known from its place.
    """
    ids = [[token for segment in prompt for token in segment.ids] for prompt in prompts]
    learned = [[segment.loss for segment in prompt for _ in segment.ids] for prompt in prompts]
    size = max(map(len, ids))
    rows = zip(ids, learned)
    padded = [([pad_id] * (size - len(i)) + i, [False] * (size - len(i)) + own) for i, own in rows]
    mask = [[0] * (size - len(row)) + [1] * len(row) for row in ids]
    return DecoderText(
        torch.tensor([row for row, _ in padded], device=device),
        torch.tensor(mask, device=device),
        torch.tensor([row for _, row in padded], device=device),
    )


def las_loss(logits: Tensor, text: DecoderText, instruction_weight: float, label_smoothing: float) -> Tensor:
    """Weighted mean cross-entropy of each token after those before it.

    Args:
        logits: (B, L, V), the prediction at each position of the next.
        text: what was read.
        instruction_weight: of the instruction's tokens; those learned have weight 1. The first token of all is not predicted.
        label_smoothing: share of the target that is spread over the vocabulary.
    """
    weights = torch.where(text.learned, 1.0, instruction_weight)[:, 1:] * text.attention_mask[:, :-1]
    losses = nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2).float(), text.ids[:, 1:], label_smoothing=label_smoothing, reduction="none"
    )
    return (losses * weights).sum() / weights.sum()

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
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, T5Config, T5ForConditionalGeneration
from transformers.modeling_outputs import Seq2SeqLMOutput
from transformers.models.t5.modeling_t5 import T5Attention, T5DenseActDense

from nemo_speechllm.modules.losses import Mean
from nemo_speechllm.prompts.segments import TextSegment
from nemo_speechllm.recipes.sections import TextDecoder
from nemo_speechllm.versions import named


@dataclass
class DecoderText:
    """What the decoder reads: instructions padded on the left, answers on the right, so that these begin at one place.

    Attributes:
        ids: (B, L).
        attention_mask: (B, L), 1 where there is something.
        learned: (B, L), true where the loss is taken.
        answer_start: position of the first token of each answer, which comes after ``[EOT]``; L where there are none.
    """

    ids: Tensor
    attention_mask: Tensor
    learned: Tensor
    answer_start: int


class LASDecoder(T5ForConditionalGeneration):
    """Hugging Face's T5, whose encoder has no layers, with absolute positions of the answer's tokens.

    T5 knows positions by their distance alone. So instructions of unequal length, padded on the left, are answered in
    one batch as they are one by one. But which of the spoken words comes next is a question of how many have been
    written: that place, counted from ``[EOT]``, is added to a token's embedding. What is left of T5's encoder
    normalises the audio states that are given as ``inputs_embeds`` and drops out some.
    """

    def forward(
        self,
        decoder_input_ids: Tensor,
        decoder_attention_mask: Tensor,
        decoder_answer_start: int,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """Return T5's output for ids (B, L), the last of those that ``decoder_attention_mask`` (B, known + L) covers.

        What is known is in the cache among ``kwargs``, which is found by its type: its name is between ``generate``
        and T5, and has changed from one version of transformers to the next.

        Args:
            decoder_answer_start: see `DecoderText`; named as ``generate`` wants what is not for the encoder.

        Raises:
            ValueError: the cache does not hold what the mask covers beside the ids.
        """
        known = decoder_attention_mask.shape[1] - decoder_input_ids.shape[1]
        cached = sum(value.get_seq_length() for value in kwargs.values() if isinstance(value, Cache))
        if known != cached:
            raise ValueError(
                f"the mask covers {known} tokens before the {decoder_input_ids.shape[1]} that are given, "
                f"the cache holds {cached}"
            )
        positions = known + torch.arange(decoder_input_ids.shape[1], device=decoder_input_ids.device)
        places = (positions - decoder_answer_start + 1).clamp(min=0)
        # embeddings of size 1 beside places of size 1 (1706.03762, section 3.4)
        embeddings = self.shared(decoder_input_ids) * self.config.d_model**0.5
        embeddings = embeddings + sinusoids(places, self.config.d_model).to(embeddings.dtype)
        given = named(super().forward, decoder_inputs_embeds=embeddings, decoder_attention_mask=decoder_attention_mask)
        return super().forward(**given, **kwargs)


def build_las_decoder(cfg: TextDecoder, vocab_size: int, end_token_id: int) -> LASDecoder:
    """Build a Transformer decoder with cross-attention and random weights.

    Args:
        cfg: the recipe's ``model.decoder`` section.
        vocab_size: of the tokenizer.
        end_token_id: ends an answer; also fills up what is padded.
    """
    sizes = named(
        T5Config,
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
    )
    # they are tied all the same; what this turns off is T5's scaling of the output
    decoder = LASDecoder(T5Config(**sizes | {"tie_word_embeddings": False}))
    _initialise_for_adam(decoder)
    return decoder


class ScaledQuery(nn.Linear):
    """The query of scaled dot-product attention (1706.03762, section 3.2.1).

    The scale is a factor, not the size of the weights.
    """

    def __init__(self, d_model: int, n_heads: int):
        super().__init__(d_model, d_model, bias=False)
        self.scale = (d_model // n_heads) ** -0.5
        nn.init.normal_(self.weight, std=d_model**-0.5)

    def forward(self, states: Tensor) -> Tensor:
        """Return the scaled queries (B, L, d_model) of states (B, L, d_model)."""
        return super().forward(states) * self.scale


def _initialise_for_adam(decoder: LASDecoder) -> None:
    """Shrink T5's initial weights to what Adam can move.

    T5's weights are for Adafactor, whose steps grow with a weight. Adam's do not: it would take thousands to move T5's
    embeddings, and twenty to double T5's queries, after which attention looks at one place and learns nothing more.
    """
    width, heads = decoder.config.d_model, decoder.config.num_heads
    nn.init.normal_(decoder.get_input_embeddings().weight, std=width**-0.5)
    attentions = [module for module in decoder.modules() if isinstance(module, T5Attention)]
    for attention in attentions:
        attention.q = ScaledQuery(width, heads)
    layers = [module.wo for module in decoder.modules() if isinstance(module, T5DenseActDense)]
    with torch.no_grad():  # what is added to the residual stream by all of them together has the size of one
        for linear in [*layers, *(attention.o for attention in attentions)]:
            linear.weight.mul_((len(layers) + len(attentions)) ** -0.5)


def sinusoids(positions: Tensor, width: int) -> Tensor:
    """Return sinusoids (T, width) of absolute positions (T,) (1706.03762, section 3.5)."""
    pairs = torch.arange(0, width, 2, device=positions.device)
    angles = positions[:, None] * 10000.0 ** (-pairs / width)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)


def add_positions(states: Tensor) -> Tensor:
    """Return audio states (B, T, d), brought to size 1, with sinusoids of their absolute positions.

    A Conformer knows positions by their distance alone, and so does the decoder: without this, what follows the first
    of two like-sounding words cannot be told from what follows the second.
    """
    _, time, width = states.shape
    positions = sinusoids(torch.arange(time, device=states.device), width)
    return nn.functional.rms_norm(states, (width,)) + positions.to(states.dtype)


def join_text(prompts: list[list[TextSegment]], pad_id: int, device: torch.device | str = "cpu") -> DecoderText:
    """Join the segments of each prompt, and pad instructions on the left, answers on the right.

    Args:
        prompts: B lists of segments; those that are learned come last, and are the answer.
        pad_id: any token; whether a position is padding is known from its place.
    """
    halves = [
        [[i for s in prompt if s.loss == learned for i in s.ids] for learned in (False, True)] for prompt in prompts
    ]
    start, size = (max(len(half) for half in column) for column in zip(*halves, strict=True))
    rows = [(start - len(asked), asked + answer, size - len(answer)) for asked, answer in halves]
    ids = [[pad_id] * left + row + [pad_id] * right for left, row, right in rows]
    mask = torch.tensor([[0] * left + [1] * len(row) + [0] * right for left, row, right in rows], device=device)
    learned = mask.bool() & (torch.arange(start + size, device=device) >= start)
    return DecoderText(torch.tensor(ids, device=device), mask, learned, start)


def las_loss(logits: Tensor, text: DecoderText, instruction_weight: float, label_smoothing: float) -> Mean:
    """Return the weighted mean cross-entropy of each token after those before it.

    Args:
        logits: (B, L, V), the prediction at each position of the next.
        text: what was read.
        instruction_weight: of the instruction's tokens; those learned have weight 1. The first token of all is not
            predicted.
        label_smoothing: share of the target that is spread over the vocabulary.
    """
    weights, answers = loss_weights(text, instruction_weight), loss_weights(text, 0.0)
    losses = nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2).float(), text.ids[:, 1:], label_smoothing=label_smoothing, reduction="none"
    )
    of_answers = (losses.detach() * answers).sum(1), answers.sum(1)
    return Mean((losses * weights).sum() / weights.sum(), weights.sum(), of_answers)


def loss_weights(text: DecoderText, instruction_weight: float) -> Tensor:
    """Return what each token but the first weighs in `las_loss`, (B, L - 1)."""
    weights = torch.where(text.learned, 1.0, instruction_weight)[:, 1:]
    return weights * text.attention_mask[:, :-1] * text.attention_mask[:, 1:]

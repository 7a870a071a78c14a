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

"""Q-Former: a fixed number of learned queries look at states of several encoder layers (2409.20007, section 2.2)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import BertConfig
from transformers.models.bert.modeling_bert import BertEncoder

from nemo_speechllm.modules.adapters import ADAPTERS, Adapter
from nemo_speechllm.modules.encoders import Encoder, valid_positions
from nemo_speechllm.versions import named


class Standardization(nn.Module):
    """Each feature minus its mean and divided by its deviation, over all that was seen in training.

    The present batch is included. After training an item does not depend on its batch. There are buffers and no
    parameters; of several ranks the first one's count, which DDP sends to the others.

    Args:
        n_features: of what is standardised.
    """

    count: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, n_features: int):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("variance", torch.ones(n_features))

    def forward(self, states: Tensor) -> Tensor:
        """Return states (N, n_features), normalised, in the same shape."""
        if self.training:
            self._count(states.detach().float())
        return ((states - self.mean) * (self.variance + 1e-5).rsqrt()).to(states.dtype)

    def _count(self, states: Tensor) -> None:
        """Add states to mean and variance (Chan et al. 1979)."""
        n, mean = len(states), states.mean(0)
        total, shift = self.count + n, mean - self.mean
        squares: Tensor = (
            self.variance * self.count + (states - mean).square().sum(0) + shift.square() * self.count * n / total
        )
        self.mean += shift * n / total
        self.variance.copy_(squares / total)
        self.count.copy_(total)


class QFormer(Adapter):
    """Each tapped layer has its own queries, which attend to its states through blocks that all layers share.

    What the k-th queries of all layers find is added up with weights that are learned for each k, and normalised. The
    blocks are those of BERT with cross-attention, as in the authors' code. Long audio is read window by window.

    Args:
        d_model: width of one layer's states, and of the result.
        n_taps: number of layers.
        n_layers: number of blocks.
        n_queries: embeddings for each window.
        n_heads: of attention.
        dropout: in the blocks, of attention as well.
        window: states in a window; None: all of an item's states are one.
        standardize: bring every feature of the states to mean 0 and variance 1 first (see `Standardization`). Most of
            a raw state is the same in every frame of every clip, and queries learn to hear the rest only slowly.
    """

    subsampling = None  # an embedding stands for no stretch of time

    def __init__(
        self,
        d_model: int,
        n_taps: int,
        n_layers: int = 2,
        n_queries: int = 64,
        n_heads: int = 12,
        dropout: float = 0.1,
        window: int | None = None,
        standardize: bool = False,
    ):
        super().__init__()
        self.d_out = d_model
        self.n_taps = n_taps
        self.n_queries = n_queries
        self.window = window
        self.standardization = Standardization(n_taps * d_model) if standardize else nn.Identity()
        self.queries = nn.Parameter(torch.randn(n_taps, n_queries, d_model))
        self.tap_weights = nn.Parameter(torch.zeros(n_queries, n_taps))
        settings = named(
            BertConfig,
            hidden_size=d_model,
            num_hidden_layers=n_layers,
            num_attention_heads=n_heads,
            intermediate_size=4 * d_model,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            is_decoder=True,  # as BERT calls what has cross-attention
            add_cross_attention=True,
        )
        self.blocks = BertEncoder(BertConfig(**settings | {"attn_implementation": "sdpa"}))
        self.norm = nn.LayerNorm(d_model)

    def forward(self, states: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Read each window of states with the queries.

        Args:
            states: (B, T, n_taps · d_model), the layers side by side.
            lengths: true lengths, (B,).

        Returns:
            embeddings (B, T', d_model), ``n_queries`` for each window of an item, and their number (B,).
        """
        items = [item[:length] for item, length in zip(states, lengths.tolist(), strict=True)]
        standard = self.standardization(torch.cat(items)).split(lengths.tolist())
        windows = [item.split(self.window or len(item)) for item in standard]
        flat = [window for of_item in windows for window in of_item]
        sizes = torch.tensor([len(window) for window in flat], device=states.device)
        answers = self._ask(pad_sequence(flat, batch_first=True), sizes)
        counts = [len(of_item) for of_item in windows]
        embeddings = [of_item.flatten(0, 1) for of_item in answers.split(counts)]
        return pad_sequence(embeddings, batch_first=True), torch.tensor(counts, device=states.device) * self.n_queries

    def _ask(self, windows: Tensor, sizes: Tensor) -> Tensor:
        """Ask windows (N, T, n_taps · d_model) of ``sizes`` states; return their answers, (N, n_queries, d_model)."""
        n = len(windows)
        memory = windows.unflatten(-1, (self.n_taps, -1)).permute(2, 0, 1, 3).flatten(0, 1)
        memory_mask = valid_positions(sizes, windows.shape[1])[:, None, None].repeat(self.n_taps, 1, 1, 1)
        given = named(
            self.blocks,
            # without a mask a decoder of BERT's would be causal; the queries have no order
            attention_mask=memory_mask.new_ones(1, 1, self.n_queries, self.n_queries),
            encoder_hidden_states=memory,
            encoder_attention_mask=memory_mask,
        )
        hidden_states = self.blocks(
            self.queries.repeat_interleave(n, dim=0).to(memory.dtype), **given
        ).last_hidden_state
        weights = self.tap_weights.softmax(dim=-1)
        return self.norm(torch.einsum("tnqd,qt->nqd", hidden_states.unflatten(0, (self.n_taps, n)), weights))


@ADAPTERS.register("qformer")
def _build_qformer(options: dict[str, Any], encoder: Encoder, stack: int) -> QFormer:
    if stack != 1:
        raise ValueError("a Q-Former reads the encoder's states one by one: set model.perception.stack to 1")
    return QFormer(encoder.d_model // encoder.n_taps, encoder.n_taps, window=encoder.states_per_window, **options)

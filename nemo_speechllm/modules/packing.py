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

"""Rows of unequal length as one sequence: an LLM computes nothing for padding, and attention stays within a row."""

from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

ROW_ATTENTION = "nemo_speechllm_rows"
LAYERS = {"full_attention", "sliding_attention"}  # what `row_attention` can do
OTHERS = {"ctrl", "doge"}  # they look into the mask, or count positions by themselves


def row_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Return the attention of packed rows, or with any other mask what Hugging Face's ``sdpa`` does.

    Args:
        query, key, value: (1, heads, positions, d), one row after the other.
        attention_mask: `spans` of the rows. A whole number is no mask to any other attention: where this one is not in
            use, that fails, and is not wrong in silence.
        sliding_window: keys that a query sees, its own among them; of other masks it is part.
    """
    if attention_mask is None or attention_mask.dtype != torch.int64:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, sliding_window=sliding_window, **options
        )
    outputs, start = [], 0
    for queries, first, keys in attention_mask[0, 0].tolist():
        seen = keys if sliding_window is None else min(keys, sliding_window + queries - 1)
        read = slice(first + keys - seen, first + keys)
        mask = None
        if queries > 1 and not queries == keys == seen <= (sliding_window or keys):
            mask = _band(queries, seen, sliding_window, query.device)
        row = query[:, :, start : start + queries], key[:, :, read], value[:, :, read]
        outputs.append(sdpa_attention_forward(module, *row, mask, **options)[0])
        start += queries
    return torch.cat(outputs, dim=1), None


def _band(queries: int, keys: int, window: int | None, device: torch.device) -> Tensor:
    """Return which of the keys the last so many positions see, (1, 1, queries, keys)."""
    distance = torch.arange(keys - queries, keys, device=device)[:, None] - torch.arange(keys, device=device)
    return ((distance >= 0) & (distance < (window or keys)))[None, None]


ALL_ATTENTION_FUNCTIONS.register(ROW_ATTENTION, row_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(ROW_ATTENTION, sdpa_mask)


def spans(queries: list[int], firsts: list[int], keys: list[int]) -> Tensor:
    """Return what `row_attention` must know of B packed rows, in the place of a mask, (1, 1, B, 3).

    Args:
        queries: of each row.
        firsts: where each row's keys begin.
        keys: that each row has, the last of them those of its queries.
    """
    return torch.tensor([queries, firsts, keys]).T[None, None]


def allow_packing(llm: PreTrainedModel) -> None:
    """Give an LLM `row_attention` if all that its positions learn of each other goes through it; see `can_pack`.

    Others stay as they are and read padded rows: those that have an attention of their own (ALiBi, soft caps), chunks,
    convolutions or a recurrent state, or look ahead.
    """
    config = llm.config
    follows = llm._supports_attention_backend and config._attn_implementation == "sdpa" and not llm._is_stateful
    looks_back = all(getattr(module, "is_causal", True) for module in llm.modules())
    layers = set(getattr(config, "layer_types", None) or LAYERS)
    is_plain = config is config.get_text_config() and config.model_type not in OTHERS
    if follows and looks_back and is_plain and layers <= LAYERS:
        llm.set_attn_implementation(ROW_ATTENTION)


def can_pack(llm: PreTrainedModel) -> bool:
    """Whether an LLM reads packed rows."""
    return bool(llm.config._attn_implementation == ROW_ATTENTION)


def can_read_tree(llm: PreTrainedModel, length: int) -> bool:
    """Whether an LLM reads a `PrefixTree`, whose longest row with its head has ``length`` tokens.

    A sliding window has to have room for it: the tree's mask knows of none.
    """
    window = getattr(llm.config, "sliding_window", None)
    return can_pack(llm) and (window is None or length <= window)


class PrefixTree:
    """Rows of tokens that go on from one head, as one sequence: what several begin with is read once.

    Each beginning of a row is a node; the first is the empty one, the head's last position.

    Args:
        rows: tokens; of the last in each nothing more is to be predicted, so it is not read.

    Attributes:
        tokens: to be read after the head, one of each node but the first.
        nodes: of each row, those that predict its tokens.
    """

    def __init__(self, rows: list[list[int]]):
        places: dict[tuple[int, ...], int] = {(): 0}
        self.nodes = [[places.setdefault((*row[:end],), len(places)) for end in range(len(row))] for row in rows]
        beginnings = list(places)[1:]
        self.tokens = [beginning[-1] for beginning in beginnings]
        self._depths = [len(beginning) for beginning in beginnings]
        self._parents = [places[beginning[:-1]] for beginning in beginnings]

    def arguments(self, head: int, device: torch.device) -> dict[str, Tensor]:
        """Return the arguments of an LLM after a head of so many positions: each sees what leads to it."""
        sees = torch.ones(head + len(self.tokens), head + len(self.tokens), dtype=torch.bool).tril()
        sees[head:, head:] = False
        for place, parent in enumerate(self._parents, head):
            sees[place] |= sees[head - 1 + parent]
            sees[place, place] = True
        depths = torch.tensor([*range(head), *(head - 1 + depth for depth in self._depths)], device=device)
        return {"attention_mask": sees[None, None].to(device), "position_ids": depths[None]}


def packed_rows(counts: list[int], device: torch.device) -> dict[str, Tensor]:
    """Return the arguments of an LLM that say which of the positions that it is given are a row's, so many of each."""
    firsts = [0, *accumulate(counts[:-1])]
    mask = spans(counts, firsts, counts)
    return {"attention_mask": mask, "position_ids": positions([0] * len(counts), counts, device)}


def positions(starts: list[int], counts: list[int], device: torch.device) -> Tensor:
    """Return the positions of packed rows, (1, L): so many of each row, from its start on."""
    return torch.cat([torch.arange(s, s + n, device=device) for s, n in zip(starts, counts, strict=True)])[None]


class RowCache(Cache):
    """What an LLM remembers of B rows: each has a stretch of its own in one buffer for each layer.

    Args:
        sizes: positions for which there is room in each row.

    Attributes:
        lengths: positions that each row holds; what is behind them is overwritten.
    """

    def __init__(self, sizes: list[int]):
        super().__init__(layers=[])
        self._firsts = [0, *accumulate(sizes)]
        self.lengths = [0] * len(sizes)
        self._slots, self._sources = torch.empty(0, dtype=torch.long), torch.empty(0, dtype=torch.long)
        self._buffers: list[tuple[Tensor, Tensor]] = []

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Put the states (1, heads, L, d) of the positions that `read` announced into their rows, and return all."""
        if layer_idx == len(self._buffers):
            self._buffers.append((self._room(key_states), self._room(value_states)))
        for buffer, states in zip(self._buffers[layer_idx], (key_states, value_states), strict=True):
            buffer[:, :, self._slots] = states[:, :, self._sources] if len(self._sources) else states
        return self._buffers[layer_idx]

    def _room(self, states: Tensor) -> Tensor:
        return states.new_empty(*states.shape[:2], self._firsts[-1], states.shape[3])

    def read(self, rows: list[int], counts: list[int], device: torch.device) -> dict[str, Tensor]:
        """Announce that some rows are read on, by so many positions; return arguments of the LLM for them."""
        before = [self.lengths[row] for row in rows]
        firsts = [self._firsts[row] for row in rows]
        for row, count in zip(rows, counts, strict=True):
            self.lengths[row] += count
        self._slots = positions([f + b for f, b in zip(firsts, before, strict=True)], counts, device)[0]
        self._sources = self._slots[:0]
        mask = spans(counts, firsts, [self.lengths[row] for row in rows])
        return {"attention_mask": mask, "position_ids": positions(before, counts, device)}

    def begin(self, head: int, counts: list[int], device: torch.device) -> dict[str, Tensor]:
        """Announce a head that all rows begin with, read once and before them, and so many more positions of each."""
        rows, heads = [*range(len(counts))], [head] * len(counts)
        self.lengths = [*heads]
        own = self.read(rows, counts, device)
        if head == 0:
            return own
        self._slots = torch.cat([positions(self._firsts[:-1], heads, device)[0], self._slots])
        self._sources = positions([0 for _ in rows] + [head], [*heads, sum(counts)], device)[0]
        return {
            "attention_mask": torch.cat([spans([head], [0], [head]), own["attention_mask"]], dim=2),
            "position_ids": torch.cat([positions([0], [head], device), own["position_ids"]], dim=1),
        }

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return 0: rows differ, and positions are given."""
        return 0

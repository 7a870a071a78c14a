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

"""Packed rows are read as each alone, at once and bit by bit, by every family of LLMs that can."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from nemo_speechllm.modules.packing import (
    ROW_ATTENTION,
    PrefixTree,
    RowCache,
    allow_packing,
    can_pack,
    can_read_tree,
    packed_rows,
)

SIZES = {
    **{"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 64, "pad_token_id": 0},
}
WINDOW = {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}
PACKED = {
    "llama": {},
    "mistral": {"sliding_window": 4},
    "qwen2": WINDOW | {"use_sliding_window": True},
    "qwen3": {"head_dim": 8},
    "gemma3_text": WINDOW | {"head_dim": 8},
    "phi3": {},
    "gpt2": {"n_embd": 32, "n_head": 4, "n_layer": 2},
    "granite": {},
}
PADDED = {
    "bloom": {"n_head": 4},  # ALiBi
    "gemma2": WINDOW | {"head_dim": 8},  # soft caps
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "mamba": {"state_size": 4},
    "qwen3_next": {"layer_types": ["linear_attention", "full_attention"]},
    "ctrl": {"n_embd": 32, "n_head": 4, "n_layer": 2},
    "bert": {},  # looks ahead
}
COUNTS = [9, 3, 12]


def tiny(family: str, **changes):
    torch.manual_seed(0)
    llm = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SIZES | changes)).eval()
    allow_packing(llm)
    return llm


@pytest.fixture(scope="module", params=PACKED)
def llm(request):
    return tiny(request.param, **PACKED[request.param])


@pytest.fixture(scope="module")
def rows(llm):
    width = llm.get_input_embeddings().weight.shape[1]
    return [torch.randn(1, count, width, generator=torch.Generator().manual_seed(count)) for count in COUNTS]


@torch.no_grad()
def alone(llm, rows) -> torch.Tensor:
    """What Hugging Face's own attention makes of each row, (24, V)."""
    llm.set_attn_implementation("sdpa")
    logits = [llm(inputs_embeds=row, use_cache=False).logits[0] for row in rows]
    llm.set_attn_implementation(ROW_ATTENTION)
    return torch.cat(logits)


def test_packed_rows_are_read_as_each_alone(llm, rows):
    assert can_pack(llm)
    keep = torch.tensor([0, 8, 9, 11, 12, 23])
    given = packed_rows(COUNTS, rows[0].device)
    packed = llm(inputs_embeds=torch.cat(rows, 1), logits_to_keep=keep, use_cache=False, **given).logits[0]
    torch.testing.assert_close(packed, alone(llm, rows)[keep])


@torch.no_grad()
def test_rows_are_read_on_from_where_they_were_left(llm, rows):
    """Each at its own pace, and anew from where it is taken back to."""
    expected, cache = alone(llm, rows).split(COUNTS), RowCache([12, 4, 14])

    def read(*parts: tuple[int, int, int]) -> None:
        embedded = torch.cat([rows[row][:, start:end] for row, start, end in parts], 1)
        given = cache.read([row for row, _, _ in parts], [end - start for _, start, end in parts], embedded.device)
        logits = llm(inputs_embeds=embedded, past_key_values=cache, use_cache=True, **given).logits[0]
        torch.testing.assert_close(logits, torch.cat([expected[row][start:end] for row, start, end in parts]))

    read((0, 0, 6), (1, 0, 2), (2, 0, 5))
    read((0, 6, 7), (1, 2, 3), (2, 5, 11))
    cache.lengths[2] = 7
    read((2, 7, 8), (0, 7, 9))
    read((2, 8, 12))
    assert cache.lengths == COUNTS


@torch.no_grad()
@pytest.mark.parametrize("head", [0, 1, 6])
def test_what_all_rows_begin_with_is_read_once(llm, rows, head):
    begun = [torch.cat([rows[2][:, :head], row], 1) for row in rows]
    lengths = [head + count for count in COUNTS]
    expected = [row[head:] for row in alone(llm, begun).split(lengths)]
    first = [count - 1 for count in COUNTS]
    cache = RowCache(lengths)

    def read(given: dict, *parts: torch.Tensor) -> torch.Tensor:
        return llm(inputs_embeds=torch.cat(parts, 1), past_key_values=cache, use_cache=True, **given).logits[0]

    own = [row[:, :count] for row, count in zip(rows, first, strict=True)]
    read_first = read(cache.begin(head, first, rows[0].device), rows[2][:, :head], *own)
    torch.testing.assert_close(read_first[head:], torch.cat([row[:-1] for row in expected]))
    then = read(cache.read([2, 0], [1, 1], rows[0].device), rows[2][:, -1:], rows[0][:, -1:])
    torch.testing.assert_close(then, torch.stack([expected[2][-1], expected[0][-1]]))
    assert cache.lengths == [head + 9, head + 2, head + 12]


@pytest.mark.parametrize("family", PADDED)
def test_what_learns_of_other_positions_otherwise_reads_padded_rows(family):
    assert not can_pack(tiny(family, **PADDED[family]))


@torch.no_grad()
def test_another_attention_does_not_take_spans_for_a_mask():
    llm = tiny("llama")
    llm.set_attn_implementation("sdpa")
    with pytest.raises(RuntimeError):
        llm(inputs_embeds=torch.randn(1, 24, 32), **packed_rows(COUNTS, torch.device("cpu")))


@torch.no_grad()
def test_what_rows_begin_with_alike_is_read_once(llm):
    answers, head = [[5, 9, 3], [5, 9, 2], [7, 2], [5], [7, 2]], torch.tensor([[4]])
    tree = PrefixTree(answers)
    assert tree.tokens == [5, 9, 7], "what is last in a row is not read"
    read = llm.get_input_embeddings()(torch.cat([head, torch.tensor([tree.tokens])], 1))
    assert can_read_tree(llm, 4)
    logits = llm(inputs_embeds=read, use_cache=False, **tree.arguments(1, read.device)).logits[0]
    for row, nodes in zip(answers, tree.nodes, strict=True):
        before = llm.get_input_embeddings()(torch.tensor([[4, *row[:-1]]]))
        torch.testing.assert_close(logits[nodes], alone(llm, [before]))


def test_a_tree_is_not_read_through_a_window_that_is_narrower_or_by_who_cannot_pack():
    narrow = tiny("mistral", **PACKED["mistral"])
    assert can_read_tree(narrow, 4) and not can_read_tree(narrow, 5)
    assert can_read_tree(tiny("llama"), 5) and not can_read_tree(tiny("bloom", **PADDED["bloom"]), 4)

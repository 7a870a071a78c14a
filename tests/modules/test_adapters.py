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

"""Adapters: nothing is dropped, nothing depends on the batch's padding."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from nemo_speechllm.modules.adapters import ConformerAdapter, FrameStacking, LLMProjection

WIDTH = 6


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 17), min_size=1, max_size=4),
    padding=st.integers(0, 9),
    n=st.integers(1, 8),
)
def test_stacking_depends_on_each_item_s_own_length(lengths, padding, n):
    stacking = FrameStacking(n)
    items = [torch.randn(length, WIDTH) for length in lengths]
    states = torch.full((len(items), max(lengths) + padding, WIDTH), 7.0)  # padding that must not be read
    for i, item in enumerate(items):
        states[i, : len(item)] = item
    stacked, stacked_lengths = stacking(states, torch.tensor(lengths))
    assert stacked.shape == (len(items), -(-states.shape[1] // n), n * WIDTH)
    assert stacked_lengths.tolist() == [-(-length // n) for length in lengths]
    for item, row, length in zip(items, stacked, stacked_lengths, strict=True):
        alone, _ = stacking(item[None], torch.tensor([len(item)]))
        assert torch.equal(row[:length], alone[0])
        assert torch.equal(row.flatten()[: item.numel()], item.flatten())  # every frame is there, in order
        assert not row.flatten()[item.numel() :].any()


@pytest.mark.parametrize("length", [1, 4, 5, 7])
def test_gradient_reaches_the_last_frame_and_no_padding(length):
    states = torch.randn(1, 9, WIDTH, requires_grad=True)
    stacked, _ = FrameStacking(4)(states, torch.tensor([length]))
    stacked.sum().backward()
    assert (states.grad[0, :length] == 1).all() and not states.grad[0, length:].any()


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 17), min_size=1, max_size=3), n=st.integers(1, 8))
def test_a_stack_is_the_sum_of_its_frames_one_by_one(lengths, n):
    stacking, states = FrameStacking(n), torch.randn(len(lengths), max(lengths), WIDTH)
    stacked, _ = stacking(states, torch.tensor(lengths))
    frames, frame_lengths = stacking.one_by_one(states, torch.tensor(lengths))
    assert frame_lengths.tolist() == lengths
    assert torch.equal(frames.unflatten(1, (-1, n)).sum(2), stacked)
    for item, length in zip(frames, lengths, strict=True):
        assert (item[:length].count_nonzero(-1) <= WIDTH).all() and item[:length].any(-1).all()
        assert not item[length:].any()


def conformer(subsampling_factor: int, norm: str = "layer_norm") -> ConformerAdapter:
    kinds = {1: "striding", 4: "striding", 8: "dw_striding"}
    cfg = {
        "n_layers": 2,
        "d_model": 32,
        "n_heads": 4,
        "subsampling": kinds[subsampling_factor],
        "subsampling_factor": subsampling_factor,
        "subsampling_conv_channels": 16,
        "ff_expansion_factor": 2,
        "conv_kernel_size": 9,
        "conv_norm_type": norm,
        "self_attention_model": "rel_pos",
        "dropout": 0.1,
    }
    torch.manual_seed(0)
    return ConformerAdapter(24, OmegaConf.create(cfg))


@torch.no_grad()
@pytest.mark.parametrize("norm", ["layer_norm", "batch_norm"])
@pytest.mark.parametrize("factor", [1, 4, 8])
def test_conformer_does_not_depend_on_the_batch(factor, norm):
    adapter = conformer(factor, norm).eval()
    assert adapter.subsampling == factor and adapter.d_out == 32
    lengths = torch.tensor([16, 33, 50])
    states = torch.full((3, 100, 24), 3.0)
    for i, length in enumerate(lengths):
        states[i, :length] = torch.randn(length, 24)
    for padded in (states[:, :50], states):
        hidden, hidden_lengths = adapter(padded, lengths)
        for i, length in enumerate(lengths):
            alone, (alone_length,) = adapter(states[i : i + 1, :length], lengths[i : i + 1])
            assert hidden_lengths[i] == alone_length == -(-length // factor)
            torch.testing.assert_close(hidden[i, :alone_length], alone[0, :alone_length], atol=1e-5, rtol=0)


def test_conformer_trains_every_parameter():
    adapter = conformer(1)
    hidden, _ = adapter(torch.randn(2, 20, 24), torch.tensor([20, 13]))
    hidden.square().sum().backward()
    assert all(p.grad is not None for p in adapter.parameters())


@pytest.mark.parametrize("size", [0.02, 1.0, 40.0])
def test_projection_gives_the_size_of_the_token_embeddings(size):
    embeddings = torch.randn(500, 64) * size
    projection = LLMProjection(16, embeddings)
    out = projection(torch.randn(3, 7, 16) * 100)
    assert out.shape == (3, 7, 64)
    rms = out.square().mean(-1).sqrt()
    torch.testing.assert_close(rms, embeddings.square().mean().sqrt().expand_as(rms), rtol=1e-3, atol=0)
    assert projection.scale.requires_grad

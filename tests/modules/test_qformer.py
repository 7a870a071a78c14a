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

"""The Q-Former: its size, its windows, and what it must not see."""

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from nemo_speechllm.modules.adapters import LLMProjection
from nemo_speechllm.modules.qformer import QFormer, Standardization

WIDTH, TAPS, QUERIES = 16, 3, 4


@pytest.fixture
def qformer() -> QFormer:
    torch.manual_seed(0)
    return QFormer(WIDTH, TAPS, n_queries=QUERIES, n_heads=2, window=10).eval()


def pad(items: list[Tensor], extra: int = 0) -> tuple[Tensor, Tensor]:
    """A batch whose padding must not be read."""
    batch = pad_sequence(items, batch_first=True, padding_value=7.0)
    return torch.nn.functional.pad(batch, (0, 0, 0, extra), value=7.0), torch.tensor([len(item) for item in items])


def test_it_has_the_parameters_of_the_published_size():
    """About 22.3 M with whisper-small's width, four taps and an LLM of width 4096."""
    qformer = QFormer(768, n_taps=4, n_layers=2, n_queries=64, n_heads=12)
    attention, feed_forward, norm = 4 * (768 * 768 + 768), 2 * 768 * 3072 + 3072 + 768, 2 * 768
    blocks = 2 * (2 * attention + feed_forward + 3 * norm)
    projection = LLMProjection(768, torch.zeros(1, 4096))
    count = sum(parameter.numel() for module in (qformer, projection) for parameter in module.parameters())
    scale = 1  # the projection's own, which the paper's lacks
    assert count == blocks + 4 * 64 * 768 + 64 * 4 + norm + (768 * 4096 + 4096) + scale
    assert round(count / 1e6, 1) == 22.3


@torch.no_grad()
def test_alone_in_a_batch_and_over_padded_are_the_same(qformer):
    items = [torch.randn(length, TAPS * WIDTH) for length in (3, 10, 27, 1)]
    for batch in (pad(items), pad(items, extra=20)):
        embeddings, lengths = qformer(*batch)
        assert lengths.tolist() == [QUERIES, QUERIES, 3 * QUERIES, QUERIES]
        for item, row, length in zip(items, embeddings, lengths, strict=True):
            torch.testing.assert_close(row[:length], qformer(*pad([item]))[0][0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_each_window_of_a_long_item_is_read_by_itself(qformer):
    item = torch.randn(25, TAPS * WIDTH)
    whole, _ = qformer(*pad([item]))
    pieces = [qformer(*pad([piece]))[0][0] for piece in item.split(10)]
    torch.testing.assert_close(whole[0], torch.cat(pieces), atol=1e-5, rtol=0)


@torch.no_grad()
def test_without_training_every_tap_counts_alike_and_weights_are_a_query_s_own(qformer):
    states, lengths = pad([torch.randn(8, TAPS * WIDTH)])
    plain = qformer(states, lengths)[0]
    torch.testing.assert_close(qformer.tap_weights.softmax(-1), torch.full((QUERIES, TAPS), 1 / TAPS))
    qformer.tap_weights[1, 2] = 50.0
    changed = qformer(states, lengths)[0]
    assert [torch.equal(a, b) for a, b in zip(plain[0], changed[0], strict=True)] == [True, False, True, True]
    # the second query now hears the third layer alone
    states[..., : 2 * WIDTH] = torch.randn_like(states[..., : 2 * WIDTH])
    torch.testing.assert_close(qformer(states, lengths)[0][0, 1], changed[0, 1])


def test_every_query_sees_every_other(qformer):
    states, lengths = pad([torch.randn(8, TAPS * WIDTH)])
    qformer(states, lengths)[0][0, 0].square().sum().backward()
    assert (qformer.queries.grad.abs().amax(-1) > 0).all()


def test_gradient_reaches_every_parameter(qformer):
    qformer(*pad([torch.randn(12, TAPS * WIDTH)]))[0].pow(3).sum().backward()
    assert all(parameter.grad is not None for parameter in qformer.parameters())


def test_features_are_standardised_over_all_that_training_has_seen():
    standardization, batches = Standardization(5), [3 * torch.randn(size, 5) + 7 for size in (40, 1, 60)]
    for batch in batches:
        last = standardization(batch)
    seen = torch.cat(batches)
    expected = (batches[2] - seen.mean(0)) / (seen.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(last, expected)
    torch.testing.assert_close(standardization.eval()(batches[2][:1]), expected[:1])


@torch.no_grad()
def test_what_is_standardised_does_not_depend_on_padding_and_statistics_are_kept():
    states, lengths = pad([5 * torch.randn(length, TAPS * WIDTH) + 3 for length in (12, 30)])
    padded = torch.nn.functional.pad(states, (0, 0, 0, 9), value=1e4)
    trained = []
    for batch in (states, padded):
        torch.manual_seed(0)
        model = QFormer(WIDTH, TAPS, n_queries=QUERIES, n_heads=2, window=10, standardize=True)
        model(batch, lengths)
        trained.append(model.eval())
    torch.testing.assert_close(trained[0](states, lengths), trained[1](padded, lengths))
    restored = QFormer(WIDTH, TAPS, n_queries=QUERIES, n_heads=2, window=10, standardize=True).eval()
    restored.load_state_dict(trained[0].state_dict())
    torch.testing.assert_close(restored(states, lengths), trained[0](states, lengths))

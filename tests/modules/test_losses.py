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

"""What a loss counts, and that none leaves a parameter without its gradient; several processes are in
tests/models/test_distributed.py."""

import torch
from torch import nn

from nemo_speechllm.modules.losses import Mean, count_targets, joined_mean, no_loss, over_all, parts_of_all


def test_a_single_process_s_part_is_its_loss():
    losses = {"lm_loss": Mean(torch.tensor(2.0, requires_grad=True), 7), "ctc_loss": Mean(torch.tensor(3.0), 0)}
    assert parts_of_all(losses, ["lm_loss", "ctc_loss", "other_loss"]) == {
        name: loss.value for name, loss in losses.items()
    }
    assert over_all({"loss": torch.tensor(2.0)}, ["loss", "other_loss"]) == {"loss": torch.tensor(2.0)}


def test_a_batch_read_in_parts_has_one_mean_over_its_tokens_and_its_answers_in_order():
    nats, tokens = torch.tensor([6.0, 1.0, 2.0]), torch.tensor([3.0, 1.0, 1.0])
    parts = [Mean((nats[rows].sum() / tokens[rows].sum()), tokens[rows].sum(), (nats[rows], tokens[rows]))
             for rows in ([1, 2], [0])]  # fmt: skip
    joined = joined_mean(parts, [1, 2, 0])
    assert joined.value == nats.sum() / tokens.sum() and joined.count == tokens.sum()
    assert torch.equal(joined.of_answers[0], nats) and torch.equal(joined.of_answers[1], tokens)


def test_a_transcript_without_a_word_counts_as_one():
    assert count_targets([[1, 2, 3], [], torch.tensor([4])]) == 5
    assert count_targets([]) == 0


def test_no_loss_is_zero_and_has_a_gradient_for_every_parameter_and_the_states():
    module, states = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)), torch.randn(2, 3, requires_grad=True)
    loss = no_loss(module, states)
    assert loss.item() == 0
    loss.backward()
    assert all(torch.equal(leaf.grad, torch.zeros_like(leaf)) for leaf in [states, *module.parameters()])

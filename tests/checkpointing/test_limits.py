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

"""A model that is far larger than its weights is refused before it is built, whatever it would have cost."""

import threading

import pytest
import torch
from torch import nn

from nemo_speechllm.checkpointing.limits import limited_parameters


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(2**14, 2**14),
        lambda: torch.ones(2**28, dtype=torch.float32),
        lambda: torch.arange(0, 2**29, 2, dtype=torch.float32),
        lambda: torch.arange(2**28),
        lambda: torch.rand(2, 2**27),
        lambda: torch.full((2**28,), 3.0),
        lambda: torch.outer(torch.ones(2**14), torch.ones(2**14)),
        lambda: torch.ones(2**14, 1) * torch.ones(2**14),
        lambda: torch.ones(2**14, 1) @ torch.ones(1, 2**14),
        lambda: torch.ones(4, 2**13, 1) @ torch.ones(4, 1, 2**13),
        lambda: torch.arange(2**14)[:, None] >= torch.arange(2**14),
        lambda: torch.tril(torch.ones(2**14, 2**14)),
        lambda: torch.ones(1).repeat(2**28),
        lambda: torch.eye(2**14),
        lambda: torch.ones(2**14).expand(2**14, 2**14).contiguous(),
        lambda: nn.functional.pad(torch.ones(1), (0, 2**28)),
        lambda: torch.linspace(0, 1, 2**28),
    ],
)
def test_a_table_is_refused_before_it_is_filled(make):
    with pytest.raises(ValueError, match="far (more|larger) than its weights"), limited_parameters(10, 1):
        make()
    with limited_parameters(2**30, 1):
        assert torch.zeros(2**10).numel() == 2**10


def test_a_model_of_the_weights_is_built_and_one_far_larger_is_named_by_its_part():
    with limited_parameters(2**20, 10):
        nn.Linear(512, 512)
        with pytest.raises(ValueError, match=r"(Linear.weight has the shape|tensor of) "):
            nn.Sequential(*(nn.Linear(2**12, 2**12) for _ in range(8)))
    assert nn.Linear(2**12, 2**12).in_features == 2**12, "there is a limit inside alone"


def test_so_are_far_more_tensors_than_there_are_weights():
    with limited_parameters(2**20, 0), pytest.raises(ValueError, match="far larger than its weights"):
        for _ in range(20_001):
            nn.Module().register_buffer("one", torch.empty(0))


def test_another_thread_builds_what_it_likes():
    built = []

    def build() -> None:
        built.extend(nn.Linear(1, 1) for _ in range(10_001))

    with limited_parameters(0, 0):
        thread = threading.Thread(target=build)
        thread.start()
        thread.join()
    assert len(built) == 10_001, "of two tensors each"

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

"""Numbers that are drawn by name, and generators that go on where they stood."""

import random

import numpy as np
import torch

from nemo_speechllm.randomness import named_random, random_states, set_random_states


def test_what_is_drawn_depends_on_the_name_alone():
    first, _ = named_random((0, 1, "a")).random(2)
    named_random((0, 1, "b")).random(5)
    assert named_random((0, 1, "a")).random() == first
    assert (
        len({named_random((seed, epoch, name)).random() for seed in (0, 1) for epoch in (0, 1) for name in "ab"}) == 8
    )


def test_generators_go_on_where_they_stood():
    states = random_states()
    drawn = [(random.random(), np.random.rand(), float(torch.rand(()))) for _ in range(2)]
    set_random_states(states)
    assert drawn == [(random.random(), np.random.rand(), float(torch.rand(()))) for _ in range(2)]
    assert isinstance(states["numpy"][1], list) and isinstance(states["torch"], torch.Tensor), (
        "plain values and tensors"
    )

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

"""A single process answers itself; several are in tests/models/test_distributed.py."""

import torch

from nemo_speechllm.modules.collectives import any_rank, gathered, summed, united, world_size


def test_a_single_process_answers_itself():
    values, mask = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([True, False])
    assert world_size() == 1 and gathered("a") == ["a"]
    assert any_rank(True, torch.device("cpu")) and not any_rank(False, torch.device("cpu"))
    assert torch.equal(united(mask), mask)
    total = summed(values)
    assert torch.equal(total, values) and not total.requires_grad

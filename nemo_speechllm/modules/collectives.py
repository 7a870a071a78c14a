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

"""What the processes of a training tell one another; a single process answers itself."""

from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def world_size() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if _together() else 1


def any_rank(flag: bool, device: torch.device) -> bool:
    """Tell whether a flag is set in any process."""
    if not _together():
        return flag
    flags = torch.tensor(int(flag), device=device)
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    return bool(flags)


def summed(values: Tensor) -> Tensor:
    """Return the sum of all processes' values, of one shape; no gradient goes through it."""
    total = values.detach().clone()
    if _together():
        dist.all_reduce(total)
    return total


def united(mask: Tensor) -> Tensor:
    """Return a boolean mask that is true where it is in any process."""
    if not _together():
        return mask
    bits = mask.to(torch.uint8)
    dist.all_reduce(bits, dist.ReduceOp.MAX)
    return bits.bool()


def gathered(item: T) -> list[T]:
    """Return every process's item, in order of rank."""
    if not _together():
        return [item]
    items: list[T] = [item] * dist.get_world_size()
    dist.all_gather_object(items, item)
    return items


def _together() -> bool:
    return dist.is_available() and dist.is_initialized()

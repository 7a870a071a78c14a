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

"""What a loss weighs where several processes train together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from nemo_speechllm.modules.collectives import summed, world_size


@dataclass(frozen=True)
class Mean:
    """A loss and how many tokens, frames or whatever it counts it is the mean of.

    Attributes:
        of_answers: of a loss of answers: each one's own, in nats, and its tokens, both (B,), without gradient.
    """

    value: Tensor
    count: Tensor | float
    of_answers: tuple[Tensor, Tensor] | None = None


def joined_mean(means: Sequence[Mean], rows: Sequence[int]) -> Mean:
    """Return the mean of a batch that was read in parts.

    Args:
        means: of the parts, each with ``of_answers``.
        rows: the places in the batch of the answers of all parts, in their order.
    """
    counts = torch.stack([torch.as_tensor(mean.count) for mean in means])
    value = (torch.stack([mean.value for mean in means]) * counts).sum() / counts.sum()
    order = torch.tensor(rows).argsort()
    nats, tokens = zip(*[mean.of_answers for mean in means if mean.of_answers is not None], strict=True)
    return Mean(value, counts.sum(), (torch.cat(nats)[order], torch.cat(tokens)[order]))


def parts_of_all(losses: dict[str, Mean], names: Sequence[str], is_repeated: bool = False) -> dict[str, Tensor]:
    """Return this process's parts of losses that are means over the counts of all processes, times their number.

    DDP averages gradients. So a token weighs as much beside many others as beside few, and the gradient is that of one
    process with the whole batch.

    Args:
        losses: of this process's batch, by name.
        names: of the losses that any process may have; the same in all of them.
        is_repeated: another process has the same batch, which then counts for nothing here.
    """
    if world_size() == 1:
        return {name: loss.value for name, loss in losses.items()}
    device = next(iter(losses.values())).value.device
    counts = {name: 0.0 if is_repeated else loss.count for name, loss in losses.items()}
    own = {name: torch.as_tensor(counts.get(name, 0.0)).to(device, torch.float64) for name in names}
    totals = dict(zip(names, summed(torch.stack([own[name] for name in names])), strict=True))
    return {
        name: loss.value * (own[name] * world_size() / totals[name].clamp(min=1e-9)).to(loss.value.dtype)
        for name, loss in losses.items()
    }


def over_all(parts: dict[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """Return what one process would have with the whole batch, for a log: the means of all processes' parts.

    Args:
        parts: of this process's batch, by name.
        names: of the parts that any process may have; the same in all of them.
    """
    if world_size() == 1:
        return parts
    device = next(iter(parts.values())).device
    values = [parts.get(name, torch.tensor(0.0)).detach().to(device, torch.float64) for name in names]
    means = dict(zip(names, summed(torch.stack(values)) / world_size(), strict=True))
    return {name: means[name] for name in parts}


def count_targets(targets: Iterable[Sequence | Tensor]) -> int:
    """Return how many tokens a loss of CTC is the mean of; a transcript without a word counts as one."""
    return sum(max(1, len(target)) for target in targets)


def no_loss(module: nn.Module, states: Tensor) -> Tensor:
    """Return 0, of which states and every parameter of a module have a gradient: DDP would wait for a missing one.

    Parameters in parts are left out: their layers run in every process.
    """
    whole = (parameter for parameter in module.parameters() if not isinstance(parameter, DTensor))
    return sum((parameter.sum() for parameter in whole), states.sum()) * 0.0

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

"""Validation by several processes: each takes whole batches of those that one process would make."""

from collections.abc import Iterator
from itertools import islice
from typing import cast

from lhotse import CutSet
from lhotse.dataset.sampling.base import CutSampler
from torch.utils.data import DataLoader, IterableDataset, Sampler


class ShardedBatches(Sampler):
    """Every ``world_size``-th batch of a sampler that makes them as for one process, from the ``rank``-th on.

    So every example counts once, beside the same others. Where the last round is short, the processes that are left
    over get its first batch, with the attribute ``is_repeated``: DDP and NeMo's encoders count on all of them taking
    as many steps.

    Args:
        sampler: of sets of cuts.
        rank, world_size: of this process.
    """

    def __init__(self, sampler: CutSampler, rank: int, world_size: int):
        self.sampler, self.rank, self.world_size = sampler, rank, world_size

    def __iter__(self) -> Iterator[CutSet]:
        batches = (batch for batch in self.sampler)  # iter() of a sampler of Lhotse's would begin anew
        while turn := list(islice(batches, self.world_size)):
            if self.rank < len(turn):
                yield turn[self.rank]
            else:
                repeated = CutSet(list(turn[0]))
                repeated.is_repeated = True
                yield repeated

    def set_epoch(self, epoch: int) -> None:
        """Lhotse's; the order of a pass may depend on it."""
        self.sampler.set_epoch(epoch)


def share_batches(dataloader: DataLoader, rank: int, world_size: int) -> DataLoader:
    """Return a dataloader of this process's `ShardedBatches`.

    Raises:
        ValueError: its data are a stream, in which batches are not known before they are read.
    """
    if isinstance(dataloader.dataset, IterableDataset):
        raise ValueError("validation by several processes needs force_map_dataset: true in model.validation_ds")
    return DataLoader(
        dataloader.dataset,
        sampler=ShardedBatches(cast(CutSampler, dataloader.sampler), rank, world_size),
        batch_size=None,
        num_workers=dataloader.num_workers,
        pin_memory=dataloader.pin_memory,
    )

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

"""Which batches a process takes: in validation of those that one process would make, and where a training goes on."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import cast

from lhotse import CutSet
from lhotse.dataset.sampling.base import CutSampler
from nemo.utils import logging
from torch.utils.data import DataLoader, IterableDataset, Sampler

Share = tuple[int, int]  # processes, and how many batches each of them took


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


def skip_batches(dataloader: DataLoader, epoch: int, shares: Sequence[Share]) -> None:
    """Let the next pass over a Lhotse dataloader begin after the batches that were taken; no audio is read for that.

    Processes may have come or gone since: what is left is shared among those that there are now.

    Args:
        dataloader: from `nemo_speechllm.data.dataloader.build_dataloader`.
        epoch: which pass it is; a sampler shuffles each one differently.
        shares: what was taken, in order.
    """
    if isinstance(dataloader.dataset, IterableDataset):
        logging.warning(
            "tarred and Shar data are read as a stream that cannot be wound forward: the resumed run draws its data "
            "from the beginning of train_ds.shard_seed's order; set another shard_seed to see other data first"
        )
        return
    sampler = cast(CutSampler, dataloader.sampler)
    place = sampler.rank, sampler.world_size
    sampler.set_epoch(epoch)
    sampler.rank, sampler.world_size = 0, shares[0][0] if shares else sampler.world_size
    iter(sampler)
    for processes, batches in shares:
        sampler.world_size = processes
        for _ in range(batches):
            if next(sampler, None) is None:
                break
    sampler.rank, sampler.world_size = place
    # a restored sampler's next iter() goes on from where it stands; subclasses' methods refuse NeMo's constraints
    CutSampler.load_state_dict(sampler, CutSampler.state_dict(sampler))

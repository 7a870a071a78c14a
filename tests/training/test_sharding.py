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

import pytest
from lhotse import CutSet
from lhotse.testing.dummies import dummy_cut

from nemo_speechllm.training.sharding import ShardedBatches


@pytest.mark.parametrize("count", range(7))
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_batch_is_one_processs(count, world_size):
    batches = [CutSet([dummy_cut(number)]) for number in range(count)]
    shards = [list(ShardedBatches(batches, rank, world_size)) for rank in range(world_size)]
    assert len({len(shard) for shard in shards}) == 1
    counted = [cut.id for shard in shards for batch in shard if not hasattr(batch, "is_repeated") for cut in batch]
    assert sorted(counted) == sorted(cut.id for batch in batches for cut in batch)

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

"""Training data as a dataloader gives them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from tests.several_processes import train  # noqa: F401
from tests.tiny_models import *  # noqa: F403  # fixtures


@pytest.fixture
def shuffled_data(make_manifest: Callable[..., Path]) -> Callable[[int, bool], DictConfig]:
    """``shuffled_data(workers, bucketing)`` → a ``train_ds`` section of seven recordings, two in a batch."""
    manifest = make_manifest((0.1, 0.2, 0.3, 0.1, 0.2, 0.3, 0.1))

    def make(workers: int, bucketing: bool) -> DictConfig:
        return OmegaConf.create(
            {
                "manifest_filepath": str(manifest),
                "batch_size": 2,
                "shuffle": True,
                "seed": 0,
                "shard_seed": 0,
                "num_workers": workers,
                "sample_rate": 16000,
                "use_bucketing": bucketing,
                "num_buckets": 2,
            }
        )

    return make

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

"""What a training has logged, read back."""

from pathlib import Path

import pytest
from torch.utils.tensorboard import SummaryWriter

from nemo_speechllm.evaluation.training_curves import read_curves


def log(folder: Path, **curves: dict[int, float]) -> None:
    with SummaryWriter(folder) as writer:
        for name, curve in curves.items():
            for step, value in curve.items():
                writer.add_scalar(name, value, step)


def test_the_curves_of_a_resumed_run_are_one(tmp_path):
    log(tmp_path / "first", train_loss={1: 4.0, 2: 3.0, 3: 2.5})
    log(tmp_path / "second", train_loss={3: 2.0, 4: 1.0}, val_listening={4: 1.5})
    expected = {"train_loss": {1: 4.0, 2: 3.0, 3: 2.0, 4: 1.0}, "val_listening": {4: 1.5}}
    assert read_curves(tmp_path) == expected


def test_a_folder_without_a_training_is_named(tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path} holds no scalars of a training"):
        read_curves(tmp_path)

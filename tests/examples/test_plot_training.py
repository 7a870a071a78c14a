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

"""``examples/plot_training.py`` on TensorBoard's files of a training."""

import sys

import pytest
from matplotlib.image import imread
from torch.utils.tensorboard import SummaryWriter

from nemo_speechllm.command_line import exit_status


def log(folder, **curves: dict[int, float]) -> None:
    with SummaryWriter(folder) as writer:
        for name, curve in curves.items():
            for step, value in curve.items():
                writer.add_scalar(name, value, step)


@pytest.fixture
def plot(load_script, monkeypatch, capsys):
    """``plot(folder)`` → status, output, error output."""

    def run(folder):
        monkeypatch.setattr(sys, "argv", ["plot_training.py", str(folder)])
        return exit_status(load_script("plot_training").main), *capsys.readouterr()

    return run


def test_the_curves_of_a_run_are_drawn(plot, tmp_path):
    log(tmp_path / "a", train_loss={1: 4.0, 2: 3.0}, val_loss_right_audio={2: 2.0}, val_loss_other_audio={2: 3.0})
    status, output, _ = plot(tmp_path)
    assert status == 0 and output.splitlines()[-1] == str(tmp_path / "training.png")
    assert imread(tmp_path / "training.png").std() > 0


def test_a_folder_without_a_training_is_named(plot, tmp_path):
    status, _, errors = plot(tmp_path)
    assert status == 1 and f"{tmp_path} holds no scalars of a training" in errors.splitlines()[-1]

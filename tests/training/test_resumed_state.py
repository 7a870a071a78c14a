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

"""A checkpoint that was forged, or is of something else, is one error that names the file and says what to do."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from nemo_speechllm.checkpointing.errors import CheckpointError
from nemo_speechllm.models import SALM


@pytest.fixture
def fit(tiny_salm_config, make_manifest, make_trainer) -> Callable[..., int]:
    """``fit(checkpoint=None, save=None)`` → steps of a training of two, or from a checkpoint three; its last
    checkpoint is saved."""
    for name in ("train", "validation"):
        tiny_salm_config.model[f"{name}_ds"].manifest_filepath = str(make_manifest(name=f"{name}.jsonl"))

    def run(checkpoint: Path | None = None, save: Path | None = None) -> int:
        trainer = make_trainer(max_steps=3 if checkpoint else 2, limit_val_batches=0)
        torch.manual_seed(0)
        trainer.fit(SALM(tiny_salm_config.model, trainer), ckpt_path=checkpoint)
        if save:
            trainer.save_checkpoint(save)
        return trainer.global_step

    return run


def put(place: str, value: Any) -> Callable[[dict], None]:
    """Return what puts a value in the place of another one, by a dotted path."""

    def forge(checkpoint: dict) -> None:
        *above, last = [int(part) if part.isdecimal() else part for part in place.split("/")]
        holder: Any = checkpoint
        for part in above:
            holder = holder[part]
        holder[last] = value

    forge.__name__ = f"{place}={str(value)[:20]}"
    return forge


def without(place: str) -> Callable[[dict], None]:
    """Return what takes an entry of the checkpoint away."""

    def forge(checkpoint: dict) -> None:
        del checkpoint[place]

    forge.__name__ = f"no {place}"
    return forge


def first_moment_of_another_form(checkpoint: dict) -> None:
    next(iter(checkpoint["optimizer_states"][0]["state"].values()))["exp_avg"] = torch.zeros(2, 3)


def no_first_moment(checkpoint: dict) -> None:
    for state in checkpoint["optimizer_states"][0]["state"].values():
        del state["exp_avg"]


def moment_that_is_no_number(checkpoint: dict) -> None:
    next(iter(checkpoint["optimizer_states"][0]["state"].values()))["exp_avg_sq"].fill_(torch.nan)


def weight_of_few_numbers(checkpoint: dict) -> None:
    name, weight = next(item for item in checkpoint["state_dict"].items() if item[1].numel() > 1)
    checkpoint["state_dict"][name] = torch.zeros(1).expand(weight.shape)


PROGRESS = "loops/fit_loop/epoch_loop.batch_progress"
FORGERIES = [
    *(without(key) for key in ("loops", "optimizer_states", "lr_schedulers", "pytorch-lightning_version", "epoch")),
    *(put(key, value) for key in ("loops", "optimizer_states", "lr_schedulers") for value in ("x", {"a": 1})),
    *(put("pytorch-lightning_version", value) for value in ("new", None)),
    *(put("global_step", value) for value in ("1", -1, 10**400, None)),
    *(put(f"{PROGRESS}/current/processed", value) for value in ("1", 10**12, -4)),
    put("loops/fit_loop", {}),
    put("optimizer_states/0/param_groups/0/lr", "much"),
    put("optimizer_states/0/param_groups/0/lr", float("nan")),
    put("optimizer_states/0/param_groups", []),
    put("optimizer_states/0/state/999", {}),
    put("lr_schedulers/0/get_lr", 7),
    put("lr_schedulers/0/last_epoch", None),
    put("lr_schedulers/0/base_lrs", "many"),
    put("rng_states", "x"),
    put("rng_states/0/python", (7, (1,) * 625, None)),
    put("rng_states/0/numpy", ["MT19937", [10**30] * 624, 0, 0, 0.0]),
    *(
        put("shares", value)
        for value in ("x", [2], [["1", 2]], [[0, 2]], [[1, 10**9]], [[10**9, 2]], [[2, -1], [1, 3]])
    ),
    put("gradients", {"perception.projection.linear.weight": torch.zeros(2)}),
    put("callbacks", {"x": {"kth_best_model_path": "checkpoints/../../../mine.txt"}}),
    put("callbacks", []),
    put("state_dict/x", 7),
    *(first_moment_of_another_form, no_first_moment, moment_that_is_no_number, weight_of_few_numbers),
]


def test_a_forged_checkpoint_is_one_error_with_its_file(fit, tmp_path):
    fit(save=tmp_path / "whole.ckpt")
    assert fit(tmp_path / "whole.ckpt") == 3
    whole = torch.load(tmp_path / "whole.ckpt", weights_only=True)
    taken = []
    for number, forge in enumerate(FORGERIES):
        forged = copy.deepcopy(whole)
        forge(forged)
        torch.save(forged, tmp_path / f"forged{number}.ckpt")
        try:
            fit(tmp_path / f"forged{number}.ckpt")
            taken.append(forge.__name__)
        except CheckpointError as error:
            assert f"forged{number}.ckpt" in str(error) and "Take another checkpoint" in str(error), forge.__name__
    assert not taken


@pytest.mark.parametrize(
    "forge",
    [
        without("pytorch-lightning_version"),
        put("pytorch-lightning_version", 7),
        put("hyper_parameters", "x"),
        put("hyper_parameters", {"cfg": 7}),
        put("hyper_parameters", {}),
        put("state_dict", {}),
    ],
    ids=lambda forge: forge.__name__,
)
def test_nor_is_a_model_made_of_one(forge, make_salm, tmp_path):
    model = make_salm()
    checkpoint = {"state_dict": model.state_dict(), "hyper_parameters": {"cfg": OmegaConf.to_container(model.cfg)}}
    checkpoint |= {"pytorch-lightning_version": "2.4.0", "global_step": 1, "epoch": 0}
    forge(checkpoint)
    torch.save(checkpoint, tmp_path / "forged.ckpt")
    with pytest.raises(CheckpointError, match=r"forged\.ckpt.*Take another checkpoint|forged\.ckpt.*does not fit"):
        SALM.load_from_checkpoint(tmp_path / "forged.ckpt")

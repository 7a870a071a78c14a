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

"""What a ``.ckpt`` says of a training is compared with the training that takes it up, before anything is taken up.

Lightning believes a checkpoint: of one that was forged or belongs to something else it sets attributes, counters and
tensors as they come, and fails much later, elsewhere, or not at all.
"""

import math
from collections.abc import Callable, Mapping
from functools import wraps
from inspect import signature
from pathlib import PurePath
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.connectors.checkpoint_connector import _CheckpointConnector
from torch import Tensor, nn
from torch.optim import Optimizer

from nemo_speechllm.checkpointing.errors import CheckpointError
from nemo_speechllm.modules.collectives import world_size
from nemo_speechllm.randomness import random_states, set_random_states
from nemo_speechllm.training.non_finite import NonFiniteError
from nemo_speechllm.training.sharding import Share

STAGES = ("resume_start", "restore_model", "restore_datamodule", "restore_callbacks", "restore_training_state")
MAX_INTEGER = 2**63
MAX_ACCUMULATION = 1000  # batches of one step
MAX_PROCESSES = 2**16
REMEDY = (
    "Take another checkpoint of the same run; or train in a new folder (name=...), from these weights with "
    "+init_from_ptl_ckpt=..."
)


def name_failures(trainer: Trainer) -> None:
    """Let whatever goes wrong while this trainer takes up a checkpoint be a `CheckpointError` that names the file."""
    connector = trainer._checkpoint_connector
    for name in STAGES:
        vars(connector)[name] = _named(connector, getattr(_CheckpointConnector, name).__get__(connector))
    vars(connector)["restore_optimizers_and_schedulers"] = lambda: _restore_optimizers(connector)


def _named(connector: _CheckpointConnector, stage: Callable) -> Callable:
    @wraps(stage)
    def restore(*args: Any) -> None:
        path = args[0] if args else connector._ckpt_path
        try:
            stage(*args)
        except NonFiniteError:
            raise
        except Exception as error:
            if isinstance(error, CheckpointError) and str(path) in str(error):
                raise
            cause = str(error) if isinstance(error, CheckpointError) else f"{type(error).__name__}: {error}"
            raise CheckpointError(f"{path} cannot be taken up by this training: {cause[:2000]}. {REMEDY}") from error

    return restore


def _restore_optimizers(connector: _CheckpointConnector) -> None:
    """Do what Lightning does, after a look at what the optimizers and schedules are to be told."""
    trainer, checkpoint = connector.trainer, connector._loaded_checkpoint
    optimizers = _of_length(checkpoint, "optimizer_states", len(trainer.optimizers))
    for optimizer, saved in zip(trainer.optimizers, optimizers, strict=True):
        _check_optimizer(optimizer, saved)
    schedules = [config.scheduler for config in trainer.lr_scheduler_configs]
    for schedule, saved in zip(schedules, _of_length(checkpoint, "lr_schedulers", len(schedules)), strict=True):
        _check_like(saved, schedule.state_dict(), "lr_schedulers")
        hidden = sorted(key for key in saved if callable(getattr(type(schedule), str(key), None)))
        if hidden:
            raise ValueError(f"its lr_schedulers would replace {hidden} of {type(schedule).__name__}")
    _CheckpointConnector.restore_optimizers_and_schedulers(connector)


def check_saved(checkpoint: dict[str, Any], trainer: Trainer, model: LightningModule) -> None:
    """Compare counters, random states, gradients and callbacks with those of the training that takes them up.

    Raises:
        ValueError: one of them is missing, of another kind, form or length, or no number; it is named.
    """
    step = checkpoint.get("global_step", -1)
    _check_like(step, 0, "global_step")
    _check_like(checkpoint.get("epoch"), 0, "epoch")
    loops: Any = checkpoint.get("loops")
    _check_like(loops, {"fit_loop": {}}, "loops", all_keys=True)
    _check_like(loops["fit_loop"], trainer.fit_loop.state_dict(), "loops.fit_loop")
    processed = batches_taken(checkpoint)
    if processed > MAX_ACCUMULATION * (step + 1):
        raise ValueError(f"its loops tell of {processed} batches in {step} steps")
    shares_of(checkpoint)
    _check_random_states(checkpoint.get("rng_states"), model)
    parameters = dict(model.named_parameters())
    for name, gradient in (checkpoint.get("gradients") or {}).items():
        if name in parameters:
            _check_like(gradient, parameters[name].detach(), f"gradients.{name}")
    _check_paths(checkpoint.get("callbacks"), "callbacks")


def batches_taken(checkpoint: dict[str, Any]) -> int:
    """Return how many batches of its epoch each process had taken when a checkpoint was written."""
    return checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["processed"]


def shares_of(checkpoint: dict[str, Any]) -> tuple[Share, ...]:
    """Return how many batches of its epoch so many processes took; see `skip_batches`.

    Raises:
        ValueError: they are not that, or others than the counters'.
    """
    taken = batches_taken(checkpoint)
    states = checkpoint.get("rng_states")
    of_old = [[len(states) if isinstance(states, list) else world_size(), taken]]
    saved: Any = checkpoint.get("shares", of_old)
    _check_like(saved, [], "shares")
    for share in saved:
        _check_like(share, (1, 0), "shares")
    if not all(0 < processes <= MAX_PROCESSES for processes, _ in saved) or sum(count for _, count in saved) != taken:
        raise ValueError(f"its shares are {saved}, and its loops tell of {taken} batches")
    return tuple((processes, batches) for processes, batches in saved)


def _check_random_states(saved: Any, model: LightningModule) -> None:
    current = random_states(model.device)
    for states in saved if isinstance(saved, list) else [saved]:
        if states is not None:  # those of the GPU: of as many as there were
            _check_like(states, current | {"torch.cuda": []}, "rng_states", all_keys=True)
            try:
                set_random_states(states, model.device)
            finally:
                set_random_states(current, model.device)


def _check_paths(saved: Any, name: str) -> None:
    """Refuse paths that lead out of a folder: Lightning removes old checkpoints by what callbacks say."""
    if isinstance(saved, Mapping):
        for key, value in saved.items():
            _check_paths(key, name)
            _check_paths(value, f"{name}.{key}")
    elif isinstance(saved, str) and ".." in PurePath(saved).parts:
        raise ValueError(f"its {name} names {saved!r}, which leads out of its folder")


def _of_length(checkpoint: dict[str, Any], name: str, length: int) -> list:
    saved = checkpoint.get(name)
    if not isinstance(saved, list | tuple) or len(saved) != length:
        raise ValueError(f"its {name} are {_form(saved)}, and here are {length}")
    return list(saved)


def _check_optimizer(optimizer: Optimizer, saved: Any) -> None:
    current = optimizer.state_dict()
    _check_like(saved, {"state": {}, "param_groups": current["param_groups"]}, "optimizer_states", all_keys=True)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    expected = _state_keys(optimizer)
    for index, state in saved["state"].items():
        name = f"optimizer_states.state.{index}"
        if not isinstance(index, int) or not 0 <= index < len(parameters):
            raise ValueError(f"its {name} belongs to none of the {len(parameters)} weights that are trained")
        _check_like(state, dict.fromkeys(expected), name, all_keys=True)
        for key, value in state.items():
            # a factored moment has fewer dimensions than its weight, a count has none
            form = parameters[index].detach() if _has_dimensions_of(value, parameters[index]) else value
            _check_like(value, form, f"{name}.{key}")


def _has_dimensions_of(value: Any, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.dim() >= parameter.dim() and value.numel() > 1


def _state_keys(optimizer: Optimizer) -> set[str]:
    """Return what an optimizer notes of a weight, found with one of a single number."""
    weight = nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    arguments = signature(type(optimizer)).parameters
    other = type(optimizer)([weight], **{key: value for key, value in optimizer.defaults.items() if key in arguments})
    other.step()
    return set(other.state_dict()["state"].get(0, {}))


def _check_like(saved: Any, expected: Any, name: str, all_keys: bool = False) -> None:
    """Compare what was saved with what the training itself has in its place.

    Args:
        all_keys: none of the dictionary's keys may be missing; below it, and else, versions may differ in them.

    Raises:
        ValueError: it is of another kind, form or length, or no finite number.
    """
    if expected is None:
        expected = saved  # to be set later: of whatever kind, but a finite number
    if isinstance(expected, Mapping):
        if not isinstance(saved, Mapping):
            raise ValueError(f"its {name} are {_form(saved)}, not settings by name")
        missing = sorted(map(str, set(expected) - set(saved))) if all_keys else []
        if missing:
            raise ValueError(f"its {name} lack {missing}")
        for key in expected.keys() & saved.keys():
            _check_like(saved[key], expected[key], f"{name}.{key}")
    elif isinstance(expected, list | tuple):
        if not isinstance(saved, list | tuple) or (expected and len(saved) != len(expected)):
            raise ValueError(f"its {name} are {_form(saved)}, and here {_form(expected)}")
        for index, pair in enumerate(zip(saved, expected, strict=False)):
            _check_like(*pair, f"{name}.{index}")
    elif isinstance(expected, Tensor):
        if not isinstance(saved, Tensor) or saved.shape != expected.shape or not bool(torch.isfinite(saved).all()):
            raise ValueError(f"its {name} is {_form(saved)}, and here {_form(expected)}")
    elif not _is_alike(saved, expected):
        raise ValueError(f"its {name} is {_form(saved)}, and here {_form(expected)}")


def _is_alike(saved: Any, expected: Any) -> bool:
    if isinstance(expected, bool) or isinstance(saved, bool) or not isinstance(expected, int | float):
        return type(saved) is type(expected)
    if isinstance(expected, int):
        return isinstance(saved, int) and -MAX_INTEGER < saved < MAX_INTEGER and (saved >= 0 or expected < 0)
    return isinstance(saved, int | float) and (
        saved == expected or (abs(saved) < MAX_INTEGER and math.isfinite(saved))
    )


def _form(value: Any) -> str:
    if isinstance(value, Tensor):
        finite = "" if bool(torch.isfinite(value).all()) else " with values that are not finite"
        return f"a tensor {tuple(value.shape)}{finite}"
    if isinstance(value, list | tuple | dict | set):
        return f"a {type(value).__name__} of {len(value)}"
    return "missing" if value is None else repr(value)[:60]

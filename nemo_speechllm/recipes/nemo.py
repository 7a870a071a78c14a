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

"""Sections whose settings are NeMo's: here it is only said which there are, so that a misspelt one is named."""

from dataclasses import dataclass
from typing import Any, ClassVar

from nemo_speechllm.recipes.settings import arguments_of, parameters_of, setting, written

MODULES = "nemo.collections.asr.modules"
SCHEDULE_KEYS = ("name", "monitor", "reduce_on_plateau")  # what NeMo reads beside the schedule's own arguments

conformer_arguments = arguments_of(f"{MODULES}.ConformerEncoder", "feat_in")


@dataclass
class SpectrogramAugmentation:
    """NeMo's SpecAugment: ``freq_masks``, ``freq_width``, ``time_masks``, ``time_width``, …"""

    beside: ClassVar = arguments_of(f"{MODULES}.SpectrogramAugmentation")

    _target_: str | None = written()


def _arguments_of_target(given: dict[str, Any]) -> list[str] | None:
    target = str(given.get("_target_"))
    return arguments_of(target)(given) if target.startswith(f"{MODULES}.") else None


@dataclass
class Built:
    """What NeMo builds of the class that ``_target_`` names, of the arguments beside it."""

    beside: ClassVar = _arguments_of_target

    _target_: str | None = written()


def _schedule_keys(given: dict[str, Any]) -> list[str] | None:
    from nemo.core.optim.lr_scheduler import AVAILABLE_SCHEDULERS

    schedule = AVAILABLE_SCHEDULERS.get(given.get("name"))
    known = None if schedule is None or "args" in given else parameters_of(schedule, "optimizer")
    return None if known is None else [*SCHEDULE_KEYS, *known]


@dataclass
class Schedule:
    """Of the learning rate."""

    beside: ClassVar = _schedule_keys


def _optimizer_keys(given: dict[str, Any]) -> list[str] | None:
    from nemo.core.optim.optimizers import AVAILABLE_OPTIMIZERS

    optimizer = AVAILABLE_OPTIMIZERS.get(given.get("name", "adam"))
    known = None if optimizer is None or {"args", "_target_"} & set(given) else parameters_of(optimizer, "params")
    return None if known is None else ["name", *known]


@dataclass
class Optimizer:
    """And its schedule; the learning rate is ``lr``."""

    beside: ClassVar = _optimizer_keys

    sched: Schedule | None = setting(None)

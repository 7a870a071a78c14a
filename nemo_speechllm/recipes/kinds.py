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

"""A recipe's numbers, and its true and false: what a user puts in their place must be of their kind.

Of its own sections the package knows every type (see `settings`). What NeMo, Lightning and torch read is known by the
recipe's own value.
"""

from collections.abc import Mapping
from typing import Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from nemo_speechllm.recipes.settings import KINDS, SettingError

# may be of another kind than a recipe's: "auto" or a list, a mapping, Lhotse's "trng", Lightning's "link"
FREE = ("devices", "logger", "seed", "shard_seed", "save_last")


def check_kinds(written: DictConfig, changed: DictConfig) -> None:
    """Refuse a change that puts something else in the place of a number, or of true or false; null may stand anywhere.

    Args:
        written: the recipe as its file has it.
        changed: the same with a user's changes; interpolations are not followed.

    Raises:
        SettingError: key, value and what is expected are named.
    """
    _check(OmegaConf.to_container(written), OmegaConf.to_container(changed), "")


def written_recipe() -> DictConfig:
    """Return the recipe of the running Hydra script as its file has it, with the groups that were chosen beside it."""
    hydra = HydraConfig.get()
    groups = [each for each in hydra.overrides.task if each.lstrip("+").partition("=")[0] in hydra.runtime.choices]
    return compose(hydra.job.config_name, groups)


def _check(written: Any, changed: Any, above: str) -> None:
    if not isinstance(written, Mapping) or not isinstance(changed, Mapping):
        return
    for name, default in written.items():
        key, value = f"{above}{name}", changed.get(name)
        _check(default, value, f"{key}.")
        if name not in FREE and isinstance(default, bool | int | float) and not _is_alike(value, default):
            wanted = KINDS[bool if isinstance(default, bool) else float]
            raise SettingError(f"{key} is {value!r}; it must be {wanted}, as the recipe's {default}, or null")


def _is_alike(value: Any, default: bool | int | float) -> bool:
    if value is None or isinstance(value, str) and (value == "???" or "${" in value):
        return True
    if isinstance(default, bool):
        return isinstance(value, bool) or value in (0, 1)
    return isinstance(value, int | float) and not isinstance(value, bool)

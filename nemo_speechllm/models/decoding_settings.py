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


"""What a decoding section of NeMo's scripts asks for that is not its default, and a speech LM would ignore."""

from dataclasses import is_dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

DECODING_SECTIONS = ("ctc_decoding", "rnnt_decoding", "multitask_decoding")
SET_BY_SCRIPTS = ("rnnt_decoding.fused_batch_size=-1",)  # their default


def differing_settings(decoding_cfg: Any) -> list[str]:
    """Return the settings (``name=value``) that are not the defaults of the config's class; of a plain dict all."""
    given = OmegaConf.create({} if decoding_cfg is None else decoding_cfg)
    kind = OmegaConf.get_type(given)
    return _differences(given, OmegaConf.structured(kind) if is_dataclass(kind) else OmegaConf.create())


def differing_beside(decoding_cfg: Any) -> list[str]:
    """Return what is asked for in the sections beside this one: a script that hands on one would ignore the others."""
    settings = decoding_cfg._get_parent() if isinstance(decoding_cfg, DictConfig) else None
    if not isinstance(settings, DictConfig):
        return []
    others = [name for name in DECODING_SECTIONS if name in settings and name != decoding_cfg._key()]
    differing = [f"{name}.{setting}" for name in others for setting in differing_settings(settings[name])]
    if settings.get("att_context_size") is not None:
        differing.append(f"att_context_size={settings.att_context_size}")
    return [setting for setting in differing if setting not in SET_BY_SCRIPTS]


def _differences(given: DictConfig, default: DictConfig, path: str = "") -> list[str]:
    differing = []
    for key, value in given.items():
        name, usual = str(key), default.get(key)
        if isinstance(value, DictConfig) and isinstance(usual, DictConfig):
            differing += _differences(value, usual, f"{path}{name}.")
        elif value != usual:
            differing.append(f"{path}{name}={value}")
    return differing

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

"""Data sections: Lhotse's settings as NeMo reads them, and ours."""

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from nemo_speechllm.recipes.settings import SettingError, complete, setting

# what NeMo reads beside the settings of its Lhotse dataloader: in a section, and in an entry of its `input_cfg`
SECTION_KEYS = ("use_lhotse", "defer_setup", "val_dl_idx", "test_dl_idx", "tags")
SOURCE_KEYS = ("type", "weight", "tags", "paths", "language", "num_shards")
SOURCE_TYPES = ("nemo", "nemo_tarred", "lhotse", "lhotse_shar", "multimodal_conversation", "txt", "txt_jsonl", "group")


def _lhotse_keys() -> list[str]:
    from nemo.collections.common.data.lhotse.dataloader import LhotseDataLoadingConfig

    return [each.name for each in fields(LhotseDataLoadingConfig)]


def _parts(given: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the sections of which a section with ``multi_config`` is made."""
    return {name: part for name, part in given.items() if given.get("multi_config") and isinstance(part, dict)}


def _section_keys(given: dict[str, Any]) -> list[str] | None:
    if given.get("use_lhotse") is False:  # one of NeMo's older dataloaders
        return None
    return [*SECTION_KEYS, *_lhotse_keys(), *_parts(given)]


def _source_keys(given: dict[str, Any]) -> list[str] | None:
    return [*SOURCE_KEYS, *_lhotse_keys()] if given.get("type", "nemo") in SOURCE_TYPES else None


def _check_field_names(settings: dict[str, Any], key: str) -> None:
    """Refuse what can be no key of a manifest's line: every line would be taken for one without it."""
    for name in ("text_field", "lang_field"):
        if not isinstance(settings.get(name), str | None):
            raise SettingError(f"{key}.{name} is {settings[name]!r}; it must be the name of a manifest's key")


def _check_sources(settings: dict[str, Any], key: str) -> None:
    sources = settings.get("input_cfg")
    for number, source in enumerate(sources if isinstance(sources, list) else []):
        complete(Source, source, f"{key}.input_cfg[{number}]")


@dataclass
class Source:
    """An entry of ``input_cfg``, or a group of them."""

    beside: ClassVar = _source_keys

    @staticmethod
    def check(settings: dict[str, Any], key: str) -> None:
        """Check the entries of a group."""
        _check_field_names(settings, key)
        _check_sources(settings, key)


@dataclass
class Data:
    """``train_ds``, ``validation_ds`` or ``test_ds``."""

    beside: ClassVar = _section_keys

    skip_bad_audio: bool = setting(False)  # leave out what cannot be read, and say so; else it is an error

    @staticmethod
    def check(settings: dict[str, Any], key: str) -> None:
        """Check the entries of ``input_cfg`` and the parts of ``multi_config``."""
        _check_field_names(settings, key)
        _check_sources(settings, key)
        for name, part in _parts(settings).items():
            complete(Data, part, f"{key}.{name}")

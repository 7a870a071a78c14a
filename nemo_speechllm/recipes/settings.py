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

"""Sections of a recipe are dataclasses: a setting's type, default and range stand there once, and are checked here.

A section's fields are its settings, made by `setting`; a field whose type is a dataclass is a section below it. Keys
that belong to NeMo may stand beside a section's own where it names them in ``beside``; their values are NeMo's to
check.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields, is_dataclass
from functools import cache
from inspect import Parameter, signature
from numbers import Integral
from types import NoneType, UnionType
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nemo_speechllm.command_line import nearest_of
from nemo_speechllm.errors import InputError

NAMED = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
PLAIN: dict[Any, tuple[type, ...]] = {bool: (bool,), int: (int,), float: (int, float)}
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", dict: "a mapping"}


class SettingError(ValueError):
    """A recipe has a setting that nothing reads or that cannot be; the message names the key and the remedy."""


@dataclass(frozen=True)
class Limits:
    """What a setting's values may be, beside their type; of a list, each of its items.

    Attributes:
        at_least, above, at_most, below: of a number.
        one_of: of a text.
        length: of a list.
        types: the sections of a section that is one of several, by its ``type``; the first is meant where none is
            given.
        other: the section of any other type, a plug-in's; None: there is no other type.
        is_written: it is no setting but what a save or NeMo writes: where it is absent it stays absent.
    """

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    one_of: tuple[str, ...] = ()
    length: int | None = None
    types: Mapping[str, type] | None = None
    other: type | None = None
    is_written: bool = False

    def allow(self, value: Any) -> bool:
        """Tell whether a value of the right type is within the limits."""
        if isinstance(value, list):
            return self.length in (None, len(value)) and all(map(self.allow, value))
        if isinstance(value, str):
            return not self.one_of or value in self.one_of
        if isinstance(value, bool) or not isinstance(value, int | float):
            return True
        return (
            math.isfinite(value)
            and (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        """Say the limits as words behind the name of a type."""
        if self.at_least is not None and self.at_most is not None:
            return f"from {self.at_least:g} to {self.at_most:g}"
        named = {"at least": self.at_least, "above": self.above, "at most": self.at_most, "below": self.below}
        return " and ".join(f"{name} {limit:g}" for name, limit in named.items() if limit is not None)


def setting(default: Any = MISSING, **limits: Any) -> Any:
    """Return a field of a section.

    Args:
        default: of none, the setting must be given. Lists, mappings and dataclasses are copied for each section.
        limits: those of `Limits`.
    """
    metadata = {"limits": Limits(**limits)}
    if isinstance(default, type):
        return field(default_factory=default, metadata=metadata)
    if isinstance(default, list | dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


def written() -> Any:
    """Return a field of what a save or NeMo writes into a model's config."""
    return setting(None, is_written=True)


def complete(section: type, given: Any, key: str = "model") -> DictConfig:
    """Return a section whole: what is given of it, checked, and the defaults of the rest.

    Args:
        section: its dataclass.
        given: a mapping, a config, or an instance of the dataclass; interpolations are resolved.
        key: of the section in the recipe, for errors.

    Raises:
        SettingError: a key is unknown (the nearest known one is named), a value is not of its type or out of range, or
            one that has no default is missing.
    """
    config = given if OmegaConf.is_config(given) else OmegaConf.create(given)  # a part of a recipe keeps its parent
    return OmegaConf.create(_complete(section, OmegaConf.to_container(config, resolve=True), key))


def _complete(section: type, given: Any, key: str) -> dict[str, Any]:
    settings = {each.name: each for each in fields(section)}
    if not isinstance(given, dict):
        raise SettingError(f"{key} is {given!r}; it must be a section with settings such as {list(settings)[:5]}")
    others = _others_beside(section, given, key)
    types, checker = _types_of(section), OmegaConf.structured(section)
    values = {
        name: _value(each, types[name], given.get(name, MISSING), f"{key}.{name}", checker)
        for name, each in settings.items()
        if name in given or not _limits(each).is_written
    }
    check = getattr(section, "check", None)
    if check is not None:
        check(values | others, key)
    return values | others


def _others_beside(section: type, given: dict[str, Any], key: str) -> dict[str, Any]:
    """Return what of a section is NeMo's; refuse what is nobody's."""
    settings = {each.name for each in fields(section)}
    others = {name: value for name, value in given.items() if name not in settings}
    known = _known(section, given) if others else settings
    unknown = [] if known is None else [name for name in others if name not in known]
    if unknown:
        raise SettingError(
            f"{key} has no setting {unknown[0]!r}; {nearest_of(str(unknown[0]), sorted(known or settings))}"
        )
    return others


def _known(section: type, given: dict[str, Any]) -> set[str] | None:
    """Return the keys that a section may have; None: any."""
    settings = {each.name for each in fields(section)}
    if not hasattr(section, "beside"):
        return settings
    beside = section.beside(given)
    return None if beside is None else {*settings, *beside}


def _value(each: Field, kind: Any, value: Any, key: str, checker: DictConfig) -> Any:
    """Return a setting's value, or a section's values, from what is given of it; `MISSING`: nothing is."""
    limits, (kind, is_optional) = _limits(each), _without_none(kind)
    is_section = is_dataclass(kind) or limits.types is not None
    if value == MISSING and not (is_section and each.default is not None):
        if OmegaConf.is_missing(checker, each.name):
            raise SettingError(f"{key} is missing, and has no default; give {key}=...")
        return OmegaConf.to_container(checker)[each.name]  # type: ignore[index, call-overload]
    if value == MISSING:  # a section that need not be given, but its own settings may
        value = {}
    if value is None and is_optional:
        return None
    if limits.types:
        return _of_type(limits, limits.types, value, key)
    if is_dataclass(kind):
        return _complete(cast(type, kind), value, key)
    read = _read(checker, each.name, kind, value)
    if read is None or not limits.allow(read):
        raise SettingError(f"{key} is {value!r}; it must be {_wanted(limits, kind, is_optional)}")
    return read


def _read(checker: DictConfig, name: str, kind: Any, value: Any) -> Any:
    """Return a value as its type; None: it is of another (OmegaConf would read texts as numbers)."""
    items, item = (value, get_args(kind)[0]) if get_origin(kind) is list else ([value], kind)
    if item in PLAIN and not (isinstance(items, list) and all(_is_plain(each, item) for each in items)):
        return None
    try:
        checker[name] = value
    except OmegaConfBaseException:
        return None
    return OmegaConf.to_container(checker)[name]  # type: ignore[index, call-overload]


def _is_plain(value: Any, kind: type) -> bool:
    """Tell whether a value is of a type as it is; True is no number."""
    return isinstance(value, PLAIN[kind]) and isinstance(value, bool) == (kind is bool)


def _of_type(limits: Limits, types: Mapping[str, type], given: Any, key: str) -> dict[str, Any]:
    """Return a section that is one of several, by its ``type``.

    A recipe that is made of another may have inherited settings of another type; those that stand at their default or
    are null say nothing and are left out.
    """
    if not isinstance(given, dict):
        raise SettingError(f"{key} is {given!r}; it must be a section with a `type`, one of {', '.join(types)}")
    kind = given.get("type", next(iter(types)))
    section = types.get(kind, limits.other)
    if section is None:
        raise SettingError(f"{key}.type is {kind!r}; it must be one of {', '.join(types)}")
    known = _known(section, given) or set(given)
    defaults = {each.name: each.default for other in types.values() for each in fields(other)}
    inherited = {name for name in given if name in defaults and name not in known}
    for name in inherited:
        if given[name] is not None and given[name] != defaults[name]:
            raise SettingError(f"{key}.{name} is {given[name]!r}, but nothing of type {kind} reads it; leave it out")
    settings = {name: value for name, value in given.items() if name not in inherited}
    return _complete(section, settings | {"type": kind}, key)


def _wanted(limits: Limits, kind: Any, is_optional: bool) -> str:
    """Say what a setting must be."""
    words = [_named(limits, kind), str(limits), "or null" if is_optional else ""]
    return ", ".join(word for word in words if word)


def _named(limits: Limits, kind: Any) -> str:
    if limits.one_of and kind is str:
        return f"one of {', '.join(limits.one_of)}"
    if get_origin(kind) is list:
        (item,) = get_args(kind)
        count = "" if limits.length is None else f" {limits.length}"
        each = f"one of {', '.join(limits.one_of)}" if limits.one_of else KINDS[item]
        return f"a list of{count} values, each {each}"
    return KINDS[get_origin(kind) or kind]


def _limits(each: Field) -> Limits:
    return each.metadata["limits"]


def _without_none(kind: Any) -> tuple[Any, bool]:
    """Return a type without None, and whether there was one."""
    if get_origin(kind) not in (Union, UnionType):
        return kind, False
    (other,) = (part for part in get_args(kind) if part is not NoneType)
    return other, True


@cache
def _types_of(section: type) -> dict[str, Any]:
    return get_type_hints(section)


def whole_number(name: str, value: Any, limits: Limits, otherwise: str = "") -> int:
    """Return an argument of a call that must be a whole number; any integer will do, numpy's as well.

    Args:
        name: of the argument.
        value: what was given.
        limits: of the number.
        otherwise: what a message says besides, such as what leaving it out means.

    Raises:
        ValueError: it is none, or beyond the limits.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or not limits.allow(int(value)):
        raise InputError(f"{name} is {value!r}; it must be {_wanted(limits, int, is_optional=False)}{otherwise}")
    return int(value)


def as_config(given: DictConfig | dict[str, Any]) -> DictConfig:
    """Return a section that may be given as a plain mapping, as NeMo's methods take it."""
    return OmegaConf.create(given) if isinstance(given, dict) else given


def limits_of(section: type, name: str) -> Limits:
    """Return the limits of one of a section's settings."""
    return next(_limits(each) for each in fields(section) if each.name == name)


def arguments_of(name: str, *without: str) -> Callable[[dict[str, Any]], list[str] | None]:
    """Return what a section may have beside its own settings: the arguments of a class, but for those that we give.

    Args:
        name: full name of the class, which is imported when it is first needed.
        without: arguments that are no settings.
    """

    def known(given: dict[str, Any]) -> list[str] | None:
        from nemo.utils.model_utils import import_class_by_path

        return parameters_of(import_class_by_path(name), *without)

    return known


def parameters_of(function: Callable, *without: str) -> list[str] | None:
    """Return the names of the parameters of a function, or of a class and those it hands on to; None: it takes any."""
    bases = function.__mro__ if isinstance(function, type) else ()
    chain = [vars(base)["__init__"] for base in bases if "__init__" in vars(base)] or [function]
    names: dict[str, None] = {}
    for each in chain:
        parameters = signature(each).parameters
        named = (name for name, one in parameters.items() if one.kind in NAMED and name not in ("self", *without))
        names |= dict.fromkeys(named)
        if not any(one.kind is Parameter.VAR_KEYWORD for one in parameters.values()):
            return list(names)
    return None

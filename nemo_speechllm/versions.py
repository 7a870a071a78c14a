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

"""Other versions of the libraries than the tested ones: what may differ is named, not found out by wrong answers."""

import functools
import inspect
import warnings
from collections.abc import Callable
from importlib import metadata
from typing import Any

from packaging.requirements import Requirement
from torch import nn

from nemo_speechllm.package_info import __package_name__

MISSING = "missing"
CACHE = "cache"  # of transformers 5.24 and newer
PAST_KEY_VALUES = "past_key_values"  # of older ones, and of remote code written for them


class UntestedVersionWarning(UserWarning):
    """A library is installed in a version that this package was not tested with."""


def named(callee: Callable, **arguments: Any) -> dict[str, Any]:
    """Return the arguments, for ``callee(**named(callee, …))``, if the callee's signature names every one of them.

    The models and settings of Hugging Face take ``**kwargs``: an argument that another version has renamed would be
    ignored, and the answers would be wrong.

    Args:
        callee: a function, a class or a module, whose ``forward`` is looked at.
        arguments: what it must take by these names.

    Raises:
        TypeError: the callee does not name one of them; what it calls so, if anything, is a question of its version.
    """
    function = _function(callee)
    unknown = sorted(arguments.keys() - _parameters(function))
    if unknown:
        raise TypeError(
            f"{function.__module__}.{function.__qualname__} takes no argument {', '.join(unknown)} and would "
            f"ignore it without a word. {_advice(function.__module__.partition('.')[0])}"
        )
    return arguments


def cache_argument(llm: nn.Module, cache: Any) -> dict[str, Any]:
    """Return the cache of keys and values by the name that the LLM's forward has for it, which is one of its version.

    Raises:
        TypeError: it names none.
    """
    return named(llm, **{CACHE if CACHE in _parameters(_function(llm)) else PAST_KEY_VALUES: cache})


def _function(callee: Callable) -> Callable:
    function = callee.forward if isinstance(callee, nn.Module) else callee
    return getattr(function, "__func__", function)


@functools.cache
def _parameters(function: Callable) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


def _advice(library: str) -> str:
    tested = [requirement for requirement in _requirements() if requirement.name == library]
    return "".join(f"{library} is {_installed(library)}; what was tested: {_install([str(r)])}" for r in tested)


def _install(requirements: list[str]) -> str:
    return "pip install " + " ".join(f"'{requirement}'" for requirement in requirements)


def _requirements() -> list[Requirement]:
    """Return what the package requires without extras; nothing where it is not installed, but lies on the path."""
    try:
        requirements = map(Requirement, metadata.requires(__package_name__) or [])
    except metadata.PackageNotFoundError:
        return []
    return [r for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]


def untested_versions() -> list[tuple[Requirement, str]]:
    """Return the requirements of this package that what is installed does not meet, each with the installed version.

    A local build (``2.13.0+cpu``) counts as its public version, what is not installed as ``missing``.
    """
    found = [(requirement, _installed(requirement.name)) for requirement in _requirements()]
    return [(r, version) for r, version in found if version == MISSING or not r.specifier.contains(version, True)]


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return MISSING


@functools.cache
def warn_of_untested_versions() -> None:
    """Warn once a process, by name, of libraries whose installed versions this package was not tested with."""
    untested = untested_versions()
    if untested:
        listed = "; ".join(f"{r.name} {version} (tested: {r.specifier})" for r, version in untested)
        warnings.warn(
            f"{__package_name__} was not tested with {listed}: answers may differ. "
            f"To get what was tested: {_install([str(r) for r, _ in untested])}",
            UntestedVersionWarning,
            stacklevel=3,
        )

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

"""Parts that a recipe names: where a new encoder, adapter or skill is added without a change to what builds it."""

from collections.abc import Callable, Iterator, Mapping
from typing import Generic, TypeVar

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """Parts of one kind by the name that a recipe calls them.

    Args:
        key: where a recipe has the name, for messages, e.g. ``model.perception.encoder.type``.

    Example:
        >>> SHAPES = Registry("shape")
        >>> @SHAPES.register("square")
        ... def square(side):
        ...     return side * side
        >>> SHAPES["square"](3)
        9
    """

    def __init__(self, key: str):
        self.key = key
        self._parts: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that adds a part under a name, and gives it back as it is.

        Raises:
            ValueError: the name is taken.
        """

        def add(part: T) -> T:
            if name in self._parts:
                raise ValueError(f"{self.key}: {name!r} is taken; give the new one another name")
            self._parts[name] = part
            return part

        return add

    def __getitem__(self, name: str) -> T:
        """Return the part of a name.

        Raises:
            ValueError: there is none.
        """
        if name not in self._parts:
            raise ValueError(f"{self.key} is {name!r}; known are {sorted(self._parts)}")
        return self._parts[name]

    def __contains__(self, name: object) -> bool:
        return name in self._parts

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

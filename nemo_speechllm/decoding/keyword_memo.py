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

"""What is made of a keyword list, once for all utterances that share it."""

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class KeywordMemo(Generic[T]):
    """Keeps what was made of the last keyword list: thousands of words take a second, and utterances share them."""

    def __init__(self) -> None:
        self._last: tuple[list[str], T] | None = None

    def get(self, keywords: list[str], make: Callable[[list[str]], T]) -> T:
        """Return what ``make`` makes of a list, which it is asked for where the list is another than the last."""
        if self._last is None or self._last[0] != keywords:
            self._last = [*keywords], make(keywords)  # a copy: the caller may change his
        return self._last[1]

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

"""What is asked of an LLM and what it answers; an engine is whatever turns the one into the other."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Request:
    """What is asked about a clip: its ``id`` and the user's ``message``."""

    id: str
    message: str


@dataclass(frozen=True)
class Completion:
    """The LLM's ``text``, and whether it was cut at the limit of new tokens."""

    text: str
    truncated: bool


# Requests to completions with the requests' ids, as they are finished, in any order.
Engine = Callable[[Sequence[Request]], Iterator[tuple[str, Completion]]]

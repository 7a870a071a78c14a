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

"""Work shared among forks of this process, one for each core."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

from tqdm import tqdm

Item, Found = TypeVar("Item"), TypeVar("Found")


def tried(try_one: Callable[[Item], Found], items: Sequence[Item], what: str) -> Iterator[tuple[Item, Found]]:
    """Yield each item with what was found of it, as soon as it is; a bar on stderr counts them.

    Args:
        try_one: runs in a fork: a module's function, or a `functools.partial` of one, that can be pickled.
        items: what is tried.
        what: the bar's name.
    """
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("fork")) as pool:
        items_of = {pool.submit(try_one, item): item for item in items}
        for future in tqdm(as_completed(items_of), total=len(items), desc=what):
            yield items_of[future], future.result()

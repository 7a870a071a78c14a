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

"""Memory that is free, and that glibc keeps: of batches of ever other lengths more and more, in pieces."""

import ctypes
import os
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGE = 1 << 20  # bytes


def give_back_free_memory() -> None:
    """Give what was freed back to the system, and have large tensors given back from now on when they are freed.

    Other C libraries do so by themselves, or have no call for it.
    """
    if libc := _glibc():
        libc.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    """Return the C library, told to keep tensors apart from its heap: by itself it learns to mix them."""
    libc = ctypes.CDLL(None) if os.name == "posix" else None
    if libc is None or not hasattr(libc, "malloc_trim"):
        return None
    libc.mallopt(_MMAP_THRESHOLD, LARGE)
    libc.mallopt(_TRIM_THRESHOLD, 64 * LARGE)
    return libc

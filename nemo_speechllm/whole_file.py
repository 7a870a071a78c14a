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

"""A file appears whole or not at all."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a file to write to, which takes the name ``path`` at the end; after an error there is none.

    Raises:
        OSError: it cannot be written; the message names ``path``.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")  # threads and machines may write the same file
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(partial)):  # of what is written, not of writing
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        if partial.exists():
            partial.unlink()

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

"""A file of finished work, one JSON object a line, that is taken up again after a kill."""

import json
import os
from pathlib import Path
from typing import Any


class Journal:
    """A ``.jsonl`` file that only grows. A line that a kill tore is no row of it, and is overwritten by the next one.

    One process at a time may write it; others may read it meanwhile.

    Args:
        path: of the file; its folder is made if missing.
        what: a row in words, for messages.

    Attributes:
        rows: those that are on disk, in the order they were appended.

    Raises:
        ValueError: a line is damaged; the message names file and line.
    """

    def __init__(self, path: str | Path, what: str = "a row"):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._size = 0  # bytes of whole lines
        self.rows = self._read(what)

    def append(self, rows: list[dict[str, Any]]) -> None:
        """Add rows and makes sure that they are on disk."""
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        with open(self.path, "ab") as output:
            output.truncate(self._size)
            output.write(lines)
            output.flush()
            os.fsync(output.fileno())
        self._size += len(lines)
        self.rows += rows

    def _read(self, what: str) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        self._size = len(whole)
        rows = []
        for number, line in enumerate(whole.split(b"\n")[:-1], 1):
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise ValueError(
                    f"{self.path}:{number}: not {what} ({error}); remove the folder and start again"
                ) from error
        return rows

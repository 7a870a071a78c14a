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

"""One process at a time writes into a folder of results."""

import json
import os
import socket
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from nemo_speechllm.metrics.report import write_json

SECONDS_FOR_CHILDREN = 10  # that a killed process may leave behind: data loading workers end some seconds after it


class FolderInUse(RuntimeError):
    """Another process writes into a folder; the message names both."""


class FolderLock:
    """A folder held for writing, until `release`, the end of a ``with`` or the end of the process, however it ends.

    It is the operating system's lock on ``.lock`` in the folder. ``.lock.json`` beside it says who holds it. The
    process that holds a folder may take it again: what an interactive session left half done is not in its own way.

    Args:
        folder: made if missing.
        what: is written, for the message: ``training``, ``evaluation``.
        name: of the lock, where several processes write different files of one folder.

    Raises:
        FolderInUse: another process holds it.
    """

    def __init__(self, folder: str | Path, what: str, name: str = ""):
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        owner = folder / f".lock{name}.json"
        path = str((folder / f".lock{name}").resolve())
        self._lock = FileLock(path, is_singleton=True, thread_local=False)
        try:
            self._lock.acquire(timeout=0 if _is_running(owner) else SECONDS_FOR_CHILDREN)
        except Timeout as error:
            raise FolderInUse(
                f"{folder} is in use by another {what}{_described(owner)}; wait for its end or stop it, "
                "or give this one a folder of its own"
            ) from error
        write_json(owner, {"pid": os.getpid(), "host": socket.gethostname()})

    def release(self) -> None:
        """Let others write."""
        self._lock.release()

    def __enter__(self) -> "FolderLock":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.release()


def _read(owner: Path) -> dict[str, str | int]:
    try:
        return json.loads(owner.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # not there yet
        return {}


def _is_running(owner: Path) -> bool:
    holder = _read(owner)
    if holder.get("host") != socket.gethostname():
        return bool(holder)
    try:
        os.kill(int(holder["pid"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True


def _described(owner: Path) -> str:
    holder = _read(owner)
    return f" (process {holder['pid']} on {holder['host']})" if holder else ""

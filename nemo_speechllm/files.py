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

"""Files that others rely on: written whole or not at all, grown line by line, held by one process at a time."""

import csv
import hashlib
import io
import json
import os
import socket
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

SECONDS_FOR_CHILDREN = 10  # that a killed process may leave behind: data loading workers end some seconds after it


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


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give a folder to write to, which takes the name ``path`` at the end; after an error there is none.

    Raises:
        FileExistsError: there is something already.
    """
    check_new_folder(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".partial-") as partial:
        folder = Path(partial) / path.name
        folder.mkdir()
        yield folder
        folder.rename(path)


def check_new_folder(path: Path) -> None:
    """Refuse a folder to be written that holds something already.

    Raises:
        FileExistsError: it does, or is a file.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise FileExistsError(f"{path} is there already; give the name of a new folder, or remove it")


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, which appears whole or not at all."""
    with whole_file(Path(path)) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: dict[str, Any]) -> None:
    """Write an object as indented JSON, dataclasses in it `as_object`. The file appears whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, default=as_object) + "\n")


def as_object(record: Any) -> dict[str, Any]:
    """Return a dataclass as what it is in JSON: its fields by name, but for those that are None unless known.

    Raises:
        TypeError: it is no dataclass.
    """
    values = {field: getattr(record, field.name) for field in fields(record)}
    return {field.name: value for field, value in values.items() if value is not None or field.default is MISSING}


def write_csv(path: str | Path, rows: list[dict[str, Any]]) -> None:
    """Write rows that all have the same keys as CSV with a head line. The file appears whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def claim_record(path: Path, record: dict[str, Any], what: str) -> None:
    """Note beside results what they depend on, or refuse to add to those that depend on something else.

    Args:
        path: of the note.
        record: names and values; JSON types.
        what: the results, for the message.

    Raises:
        ValueError: the note is there and differs; the message names what.
    """
    if not path.exists():
        write_json(path, record)
        return
    recorded = json.loads(path.read_text(encoding="utf-8"))
    differing = [key for key in sorted({*record, *recorded}) if record.get(key) != recorded.get(key)]
    if differing:
        changes = "; ".join(f"{key} was {_told(recorded, key)}, is {_told(record, key)}" for key in differing)
        raise ValueError(f"{path.parent} holds {what} ({changes}); give another output_dir, or remove the folder")


def _told(record: dict[str, Any], key: str) -> str:
    return "not set" if record.get(key) is None else repr(record[key])


def file_digest(path: str | Path) -> str:
    """Return SHA-256 of a file's content, for the record of what depends on it."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


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
        """Add rows and make sure that they are on disk."""
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

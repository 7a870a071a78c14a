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

"""Folders of converted models: built once, by one process, and looked at again before they are used."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock
from tqdm import tqdm

from nemo_speechllm.files import whole_file

logger = logging.getLogger(__name__)

MARKER = "nemo_speechllm_asset.json"


def default_cache_dir() -> Path:
    """Return the folder of converted models: ``$NEMO_SPEECHLLM_CACHE`` or ``~/.cache/nemo_speechllm``."""
    return Path(os.environ.get("NEMO_SPEECHLLM_CACHE") or "~/.cache/nemo_speechllm").expanduser()


# ------------------------------------------------------------------------------------------------------------ cache
def cached(folder: Path, provenance: dict, build: Callable[[Path], None]) -> Path:
    """Return ``folder`` as built from ``provenance``: the finished one if there is one, else built aside and renamed.

    ``build`` keeps its temporary files inside the folder it fills, so that one clean-up removes what a kill leaves.
    """
    if _is_finished(folder, provenance):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if _is_finished(folder, provenance):  # by another process, while we waited
            return folder
        building = folder.with_name(f".{folder.name}.building")
        shutil.rmtree(building, ignore_errors=True)  # of a process that was killed: we hold the lock
        building.mkdir()
        build(building)
        records = {file.name: _record(file) for file in building.iterdir()}
        _write_marker(building, provenance, records)
        _replace_folder(building, folder)
    return folder


def _is_finished(folder: Path, provenance: dict) -> bool:
    """Tell whether the folder holds what was built: a file whose size or time changed since is read again, whole."""
    marker = folder / MARKER
    if not marker.is_file():
        return False
    try:
        marked = json.loads(marker.read_text(encoding="utf-8"))
        records = dict(marked.pop("files"))
        if marked != provenance:
            return False
        current = {name: _current_record(folder / name, record) for name, record in records.items()}
    except (ValueError, KeyError, TypeError, AttributeError):  # edited by hand or damaged: build the folder again
        return False
    if any(record is None for record in current.values()):
        changed = [name for name, record in current.items() if record is None]
        logger.warning("%s: %s changed since it was made; it is made again", folder, ", ".join(changed))
        return False
    if current != records:
        _refresh_marker(folder, provenance, current)
    return True


def _record(file: Path) -> dict:
    stat = file.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256(file)}


def _current_record(file: Path, record: dict | int) -> dict | None:
    """Return what is to be written of a file; None if it is not the one that was recorded.

    Older markers hold its size alone.
    """
    if not file.is_file():
        return None
    stat = file.stat()
    if isinstance(record, int):
        return _record(file) if stat.st_size == record else None
    if (stat.st_size, stat.st_mtime_ns) == (record["size"], record["mtime_ns"]):
        return record
    current = _record(file)
    return current if current["sha256"] == record["sha256"] else None


def _write_marker(folder: Path, provenance: dict, records: dict) -> None:
    """Write what the folder holds.

    Let everybody read it whom the umask lets: safetensors and pip are stricter.
    """
    with whole_file(folder / MARKER) as partial:
        partial.write_text(json.dumps(provenance | {"files": records}, indent=2) + "\n", encoding="utf-8")
        for name in records:
            (folder / name).chmod(partial.stat().st_mode)


def _refresh_marker(folder: Path, provenance: dict, records: dict) -> None:
    try:
        _write_marker(folder, provenance, records)
    except OSError:  # another user's cache: its files are right, but it is not ours to write to
        (folder / f".{MARKER}.{os.getpid()}").unlink(missing_ok=True)


def _replace_folder(new: Path, folder: Path) -> None:
    """Rename ``new`` to ``folder``; a folder cannot be renamed over a full one, so an old one steps aside first."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(new, folder)
    shutil.rmtree(old, ignore_errors=True)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, with a progress bar where it takes more than two seconds."""
    digest = hashlib.sha256()
    with (
        open(path, "rb") as stream,
        tqdm(total=path.stat().st_size, unit="B", unit_scale=True, desc=path.name, delay=2, leave=False) as bar,
    ):
        while block := stream.read(1 << 22):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()

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

"""The members of a ``.nemo`` of unknown origin: plain files of sizes that a checkpoint has.

They are checked before anything is built of them, as its config (`config`) and weights (`weights`) are. Every function
there and here raises ``ValueError`` with the cause in words; `ReferencedModel.restore_from` adds the file
and the remedy.
"""

import gzip
import re
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, cast

CONFIG_NAME, WEIGHTS_NAME = "model_config.yaml", "model_weights.ckpt"
MAX_MEMBERS = 100  # there are about ten
# A gzipped file may unpack to so many times its size, and so many bytes more: real ones stay below 6 times.
MAX_EXPANSION, FREE_EXPANSION = 20, 64 * 2**20
MAX_CONFIG_BYTES, MAX_CONFIG_NODES, MAX_CONFIG_DEPTH = 2**20, 50_000, 32


def unpack(path: Path, folder: Path, config_only: bool = False) -> None:
    """Fill ``folder`` with the members of a ``.nemo``, plain or gzipped, all of them files beside one another.

    Args:
        path: the file.
        folder: empty.
        config_only: stop when the config is there.

    Raises:
        ValueError: a member is no plain file or has a name that leads elsewhere, there are too many, they unpack to
            far more than the file holds, or config or weights are missing.
        tarfile.TarError, EOFError, OSError, zlib.error: the file is damaged.
    """
    with _opened(path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        for number, member in enumerate(archive):
            if member.isdir() and member.name in (".", "./"):
                continue
            name = _checked_name(member, number)
            if config_only and name != CONFIG_NAME:
                continue
            with _content(archive, member) as source, open(folder / name, "xb") as target:
                shutil.copyfileobj(source, target)
            if config_only:
                return
        while stream.read(2**20):  # gzip's checksum stands at the end
            pass
    missing = [name for name in (CONFIG_NAME, WEIGHTS_NAME) if not (folder / name).exists()]
    if missing:
        raise tarfile.ReadError(f"it lacks {' and '.join(missing)}")


def saved_config_bytes(path: Path) -> bytes | None:
    """Return the text of a ``.nemo``'s config, unchecked, not parsed; None where there is none, or too much of it."""
    try:
        with _opened(path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                if (
                    member.isreg()
                    and member.name.removeprefix("./") == CONFIG_NAME
                    and member.size <= MAX_CONFIG_BYTES
                ):
                    return _content(archive, member).read()
    except Exception:  # whatever is wrong with the file, the restore that follows says it
        return None
    return None


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = archive.extractfile(member)
    assert content is not None, "of a plain file there is always one"
    return content


class _Limited:
    """A stream that refuses to give more than so many bytes."""

    def __init__(self, stream: BinaryIO | gzip.GzipFile, limit: int):
        self._stream, self._left = stream, limit

    def read(self, size: int = -1) -> bytes:
        """Read as a file does."""
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise ValueError(
                f"it unpacks to more than {MAX_EXPANSION} times its size, which no weights do: it was made to fill "
                "the disk"
            )
        return data


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    limit = FREE_EXPANSION + MAX_EXPANSION * path.stat().st_size
    with open(path, "rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream = _Limited(gzip.GzipFile(fileobj=file) if gzipped else file, limit)
        yield cast(BinaryIO, stream)  # a tar file that is read as a stream asks for no other method


def _checked_name(member: tarfile.TarInfo, number: int) -> str:
    name = member.name.removeprefix("./")
    if number > MAX_MEMBERS:
        raise ValueError(f"it has more than {MAX_MEMBERS} members; a checkpoint has about ten")
    if not name or name in (".", "..") or re.search(r"[/\\\0]", name):
        raise ValueError(
            f"its member {member.name!r} leads out of the archive or into a folder; members are plain files"
        )
    if not member.isreg() or member.issparse():
        raise ValueError(
            f"its member {member.name!r} is a link, a device, a folder or a sparse file; members are plain files"
        )
    return name

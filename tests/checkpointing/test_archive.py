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

"""A ``.nemo`` is unpacked whole into one folder, or it is said what of it is wrong; nothing is written elsewhere."""

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from nemo_speechllm.checkpointing.archive import (
    CONFIG_NAME,
    FREE_EXPANSION,
    MAX_CONFIG_BYTES,
    MAX_MEMBERS,
    WEIGHTS_NAME,
    saved_config_bytes,
    unpack,
)

MEMBERS = {f"./{CONFIG_NAME}": b"target: x\n", f"./{WEIGHTS_NAME}": b"weights", "./a_tokenizer.json": b"{}"}


def tar_of(members: dict[str, bytes], **kinds: bytes) -> bytes:
    """A tar file; ``kinds`` are types of members by name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.type = len(content), kinds.get(name, tarfile.REGTYPE)
            member.linkname = "/etc/hostname" if member.type in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path) -> Path:
    """An empty one to unpack into, in a folder that is else empty."""
    (tmp_path / "of_its_own" / "folder").mkdir(parents=True)
    return tmp_path / "of_its_own" / "folder"


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzipped"])
def test_members_come_back_as_they_are(tmp_path, folder, pack):
    path = tmp_path / "m.nemo"
    path.write_bytes(pack(tar_of(MEMBERS)))
    unpack(path, folder)
    assert {f"./{file.name}": file.read_bytes() for file in folder.iterdir()} == MEMBERS
    assert saved_config_bytes(path) == MEMBERS[f"./{CONFIG_NAME}"]


def test_the_config_alone(tmp_path, folder):
    path = tmp_path / "m.nemo"
    path.write_bytes(tar_of(MEMBERS))
    unpack(path, folder, config_only=True)
    assert [file.name for file in folder.iterdir()] == [CONFIG_NAME]


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "a/b", "a\\b", "..", "./../outside"])
def test_a_member_that_leads_elsewhere_is_named(tmp_path, folder, name):
    path = tmp_path / "m.nemo"
    path.write_bytes(tar_of({name: b"x"} | MEMBERS))
    with pytest.raises(ValueError, match="leads out of the archive or into a folder"):
        unpack(path, folder)
    assert list(folder.parent.iterdir()) == [folder] and not list(folder.iterdir())


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE]
)
def test_a_member_that_is_no_file_is_named(tmp_path, folder, kind):
    path = tmp_path / "m.nemo"
    path.write_bytes(tar_of({"it": b""} | MEMBERS, it=kind))
    with pytest.raises(ValueError, match="'it' is a link, a device, a folder or a sparse file"):
        unpack(path, folder)
    assert not list(folder.iterdir())


def test_too_many_members_are_refused(tmp_path, folder):
    path = tmp_path / "m.nemo"
    path.write_bytes(tar_of(MEMBERS | {f"./{number}": b"" for number in range(MAX_MEMBERS)}))
    with pytest.raises(ValueError, match=f"more than {MAX_MEMBERS} members"):
        unpack(path, folder)


def test_what_unpacks_to_far_more_than_its_size_is_refused_and_does_not_fill_the_disk(tmp_path, folder):
    path = tmp_path / "m.nemo"
    path.write_bytes(gzip.compress(tar_of({"./zeros": bytes(FREE_EXPANSION + 2**23)} | MEMBERS), compresslevel=1))
    with pytest.raises(ValueError, match="made to fill the disk"):
        unpack(path, folder)
    assert sum(file.stat().st_size for file in folder.iterdir()) <= FREE_EXPANSION + 2**23


@pytest.mark.parametrize("name", [CONFIG_NAME, WEIGHTS_NAME])
def test_what_is_missing_is_named(tmp_path, folder, name):
    path = tmp_path / "m.nemo"
    path.write_bytes(tar_of({key: content for key, content in MEMBERS.items() if key != f"./{name}"}))
    with pytest.raises(tarfile.ReadError, match=f"it lacks {name}"):
        unpack(path, folder)


def test_a_gzipped_file_whose_end_was_changed_is_damaged(tmp_path, folder):
    content = bytearray(gzip.compress(tar_of(MEMBERS)))
    content[-6] ^= 1  # of the checksum
    path = tmp_path / "m.nemo"
    path.write_bytes(content)
    with pytest.raises(OSError, match="CRC"):
        unpack(path, folder)


def test_a_config_that_is_not_there_or_too_large_is_not_read(tmp_path):
    path = tmp_path / "m.nemo"
    for content in (b"no archive", tar_of({"./other": b""}), tar_of({CONFIG_NAME: bytes(MAX_CONFIG_BYTES + 1)})):
        path.write_bytes(content)
        assert saved_config_bytes(path) is None

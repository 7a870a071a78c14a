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

"""Folders of converted models are whole, those of this version, and readable; through a real pip and real locks."""

import json
import multiprocessing
import shutil
from pathlib import Path

import pytest

from nemo_speechllm.assets import resolve
from nemo_speechllm.assets.cache import MARKER
from tests.tiny_assets import weights_digest, write_gguf


def test_default_cache_follows_the_environment(registry, tmp_path, monkeypatch):
    monkeypatch.setenv("NEMO_SPEECHLLM_CACHE", str(tmp_path / "elsewhere"))
    assert resolve("tiny") == tmp_path / "elsewhere" / "tiny"


@pytest.mark.parametrize(
    "damage", ["no marker", "marker cut", "marker of another kind", "weights cut", "killed while building"]
)
def test_half_written_folder_is_built_again(registry, tmp_path, damage):
    cache = tmp_path / "cache"
    folder = resolve("tiny", cache)
    expected = weights_digest(folder)
    if damage == "no marker":
        (folder / MARKER).unlink()
    elif damage == "marker cut":
        (folder / MARKER).write_text('{"asset": "ti')
    elif damage == "marker of another kind":
        (folder / MARKER).write_text("[]")
    elif damage == "weights cut":
        (folder / "model.safetensors").write_bytes(b"cut")
    else:
        folder.rename(cache / ".tiny.building")
        (cache / ".tiny.building" / MARKER).unlink()

    assert weights_digest(resolve("tiny", cache)) == expected
    assert not (cache / ".tiny.building").exists()


def _resolve_in_process(cache: Path, reference: Path, barrier, results) -> None:
    barrier.wait()
    folder = resolve(reference, cache)
    results.put((str(folder), (folder / "model.safetensors").stat().st_ino))


def test_two_processes_at_once_build_one_folder(tmp_path):
    write_gguf(tmp_path / "tiny.gguf")
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    arguments = (tmp_path / "cache", tmp_path / "tiny.gguf", barrier, results)
    processes = [context.Process(target=_resolve_in_process, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    answers = [results.get(timeout=300) for _ in processes]
    for process in processes:
        process.join()
    assert answers[0] == answers[1], "the second process must find the first one's very files"


def test_others_may_read_what_the_umask_lets_them(registry, tmp_path):
    folder = resolve("tiny", tmp_path / "cache")
    (tmp_path / "plain").touch()
    (tmp_path / "folder").mkdir()
    everything = [*(tmp_path / "cache").rglob("*")]
    assert (folder / "model.safetensors") in everything
    for path in everything:
        expected = tmp_path / ("folder" if path.is_dir() else "plain")
        assert path.stat().st_mode == expected.stat().st_mode, path


def test_a_cache_of_an_older_version_becomes_readable_and_is_kept(registry, tmp_path):
    folder = resolve("tiny", tmp_path / "cache")
    marker = json.loads((folder / MARKER).read_text())
    marker["files"] = {name: record["size"] for name, record in marker["files"].items()}
    (folder / MARKER).write_text(json.dumps(marker))
    (folder / "model.safetensors").chmod(0o600)
    before = (folder / "model.safetensors").stat().st_ino
    shutil.rmtree(registry)
    assert resolve("tiny", tmp_path / "cache") == folder
    assert (folder / "model.safetensors").stat().st_ino == before
    assert (folder / "model.safetensors").stat().st_mode == (folder / MARKER).stat().st_mode
    assert all(len(record["sha256"]) == 64 for record in json.loads((folder / MARKER).read_text())["files"].values())


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_of_the_same_size_whose_content_changed_is_made_again(registry, tmp_path, name):
    folder = resolve("tiny", tmp_path / "cache")
    expected = (folder / name).read_bytes()
    (folder / name).write_bytes(bytes([expected[0] ^ 1]) + expected[1:])
    assert (resolve("tiny", tmp_path / "cache") / name).read_bytes() == expected


def test_a_file_that_was_only_touched_is_kept(registry, tmp_path):
    folder = resolve("tiny", tmp_path / "cache")
    before = (folder / "model.safetensors").stat().st_ino
    (folder / "model.safetensors").touch()
    shutil.rmtree(registry)
    assert resolve("tiny", tmp_path / "cache") == folder
    assert (folder / "model.safetensors").stat().st_ino == before

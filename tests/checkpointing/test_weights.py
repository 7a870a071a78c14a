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

"""What a file of weights may hold."""

import os
import pickle
import zipfile

import pytest
import torch

from nemo_speechllm.checkpointing.weights import check_tensors, check_weights_file, load_weights, non_finite_names


@pytest.fixture
def path(tmp_path):
    """A file that ``torch.save`` wrote."""
    torch.save({"a": torch.arange(1000.0), "b": torch.ones(2, 3)}, tmp_path / "weights.ckpt")
    return tmp_path / "weights.ckpt"


def test_what_was_saved_comes_back(path):
    assert check_weights_file(path) >= 2
    weights = load_weights(path)
    assert torch.equal(weights["a"], torch.arange(1000.0)) and torch.equal(weights["b"], torch.ones(2, 3))


def test_a_flipped_bit_and_a_missing_end_are_named(path):
    content = bytearray(path.read_bytes())
    place = content.index(torch.arange(1000.0).numpy().tobytes()) + 100
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="weights.ckpt is damaged: the checksum of"):
        check_weights_file(path)
    os.truncate(path, len(content) // 2)
    with pytest.raises(ValueError, match="weights.ckpt is no zip file of torch.save, or it is cut off"):
        check_weights_file(path)


def test_a_compressed_file_is_refused(path, tmp_path):
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(tmp_path / "b.ckpt", "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    with pytest.raises(ValueError, match="b.ckpt has compressed entries"):
        check_weights_file(tmp_path / "b.ckpt")


def test_code_is_not_run_and_torch_s_way_around_it_is_not_told(tmp_path):
    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"a": Payload()}, tmp_path / "weights.ckpt")
    with pytest.raises(pickle.UnpicklingError, match="holds code or other objects than tensors") as raised:
        load_weights(tmp_path / "weights.ckpt")
    assert "weights_only" not in str(raised.value) and not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([torch.ones(1)], "holds a list, not weights by name"),
        ({"a": 1}, "holds 'a', which is no dense tensor"),
        ({1: torch.ones(1)}, "holds 1, which is no dense tensor"),
        ({"a": torch.ones(2, 2).to_sparse()}, "holds 'a', which is no dense tensor"),
        ({"a": torch.ones(2, device="meta")}, "holds 'a', which is no dense tensor"),
    ],
)
def test_weights_are_dense_tensors_by_name(state, message):
    with pytest.raises(ValueError, match=message):
        check_tensors(state, "weights.ckpt")


def test_weights_of_no_numbers_are_named():
    broken = {"nan": torch.tensor([1.0, torch.nan]), "inf": torch.tensor([-torch.inf]), "good": torch.ones(1)}
    assert non_finite_names(broken | {"count": torch.ones(1, dtype=torch.long)}) == ["nan", "inf"]


def test_weights_are_as_large_as_what_is_stored(tmp_path):
    torch.save({"a": torch.ones(1).expand(1000, 1000)}, tmp_path / "weights.ckpt")
    with pytest.raises(ValueError, match=r"'a' of shape \(1000, 1000\), of which only 4 bytes are stored"):
        load_weights(tmp_path / "weights.ckpt")
    tied = torch.ones(4, 4)
    torch.save({"a": tied, "b": tied, "c": tied.T, "d": tied[:2]}, tmp_path / "weights.ckpt")
    assert set(load_weights(tmp_path / "weights.ckpt")) == set("abcd")

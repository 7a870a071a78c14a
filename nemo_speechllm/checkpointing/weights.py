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

"""The weights of a checkpoint: what a file of them may hold, and what its values may be."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nemo_speechllm.checkpointing.config import short

MAX_PICKLE_BYTES = 64 * 2**20  # names and shapes; the weights themselves lie beside the pickle


def check_weights_file(path: Path) -> int:
    """Return the number of tensors in a weights file.

    A file that is not what ``torch.save`` writes, or whose checksums are wrong, is refused.

    Raises:
        ValueError: see above.
        zipfile.BadZipFile: it is damaged.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path.name} is no zip file of torch.save, or it is cut off")
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError(f"{path.name} has compressed entries, which torch.save does not write")
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError(f"{path.name} says that it holds more than its size")
        if any(entry.filename.endswith(".pkl") and entry.file_size > MAX_PICKLE_BYTES for entry in entries):
            raise ValueError(f"{path.name} has a pickle of more than {MAX_PICKLE_BYTES} bytes")
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"{path.name} is damaged: the checksum of {damaged} is wrong")
    return len(entries)


def load_weights(path: Path, map_location: Any = "cpu") -> dict[str, Tensor]:
    """Return tensors by name; nothing in the file is run, whatever the environment says.

    Raises:
        ValueError: it holds something else than dense tensors.
        pickle.UnpicklingError: it asks for code.
    """
    try:
        state = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:  # torch goes on to tell how its guard is switched off
        raise pickle.UnpicklingError(f"{path.name} holds code or other objects than tensors") from error
    check_tensors(state, path.name)
    return state


def check_tensors(state: Any, file: str) -> None:
    """Check that what was read from a file are dense tensors by name, each as large as what is stored of it.

    Raises:
        ValueError: it is something else, or a tensor that stands for more numbers than there are.
    """
    if not isinstance(state, dict):
        raise ValueError(f"{file} holds a {type(state).__name__}, not weights by name")
    for name, tensor in state.items():
        is_dense = isinstance(tensor, Tensor) and tensor.layout == torch.strided and not tensor.is_meta
        if not isinstance(name, str) or not is_dense:
            raise ValueError(f"{file} holds {short(name)}, which is no dense tensor")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError(
                f"{file} holds {short(name)} of shape {tuple(tensor.shape)}, of which only "
                f"{tensor.untyped_storage().nbytes()} bytes are stored"
            )


def non_finite_names(state: dict[str, Tensor]) -> list[str]:
    """Return the names of the tensors that hold NaN or infinity."""
    return [
        name for name, tensor in state.items() if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())
    ]

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

"""Recognises a module by its weights, so that a checkpoint can hold a reference instead of a copy."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from nemo_speechllm import assets
from nemo_speechllm.files import whole_file

WHOLE = "sha256:"  # of all weights; the fingerprints of older checkpoints, of a sample of them, begin with nothing
SAMPLES_PER_TENSOR = 256
CHUNK = 2**24  # values hashed at a time
REMEMBERED_BYTES = 64 * 2**20  # of smaller modules the fingerprint is computed faster than it is looked up

# Of each module: how its tensors stood, and their fingerprint then.
_known: WeakKeyDictionary[nn.Module, tuple[tuple, str]] = WeakKeyDictionary()


def weight_fingerprint(module: nn.Module, files: Sequence[Path] = ()) -> str:
    """Return a hash of all of a module's weights.

    Of every tensor the name, the shape and all values (rounded to bfloat16, so that the precision a model is loaded in
    does not matter) enter the hash. LoRA weights are left out and the names are those of the model before LoRA was
    added. It takes about a second for a billion parameters, and is computed once: as long as the tensors are unchanged
    it is remembered, and across processes as long as the files are. Of a module whose weights are in parts it is that
    of before.

    Args:
        module: any module; its ``state_dict`` is read.
        files: which its weights were just loaded from, if they were. The fingerprint of a large module is kept in the
            cache of models under their paths, sizes and times, and a sample of the weights.

    Returns:
        ``sha256:`` and 64 hexadecimal digits.
    """
    if module in _known and any(isinstance(part, FSDPModule) for part in module.modules()):
        return _known[module][1]
    sample = sampled_fingerprint(module)
    stamp = (sample, *(_stamp(name, tensor) for name, tensor in _base_weights(module)))
    known = _known.get(module)
    if known is None or known[0] != stamp:
        known = stamp, _remembered(module, files, sample)
        _known[module] = known
    return known[1]


def matches_fingerprint(module: nn.Module, expected: str, actual: str) -> bool:
    """Tell whether weights are those of a fingerprint, be it an older checkpoint's.

    Args:
        module: whose weights they are.
        expected: what the checkpoint says.
        actual: the module's `weight_fingerprint`.
    """
    return expected == (actual if expected.startswith(WHOLE) else sampled_fingerprint(module))


def sampled_fingerprint(module: nn.Module) -> str:
    """Return what checkpoints held before `weight_fingerprint`: a hash of 256 evenly spaced values of every tensor.

    Returns:
        32 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, tensor in _base_weights(module):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        flat = tensor.detach().flatten()
        step = max(1, flat.numel() // SAMPLES_PER_TENSOR)
        digest.update(_rounded_bytes(flat[::step][:SAMPLES_PER_TENSOR]))
    return digest.hexdigest()[:32]


def state_digest(module: nn.Module) -> str:
    """Return SHA-256 of every value in a module's ``state_dict``: of a speech LM, of what its checkpoint holds.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def is_adapter_key(name: str) -> bool:
    """Tell whether a parameter name belongs to a LoRA layer that PEFT injected."""
    return ".lora_" in name


def base_name(name: str) -> str:
    """Return a parameter's name before PEFT wrapped its layer."""
    return name.replace(".base_layer.", ".")


def _base_weights(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield names and tensors without LoRA, in the names' order."""
    state = ((base_name(name), tensor) for name, tensor in module.state_dict().items() if not is_adapter_key(name))
    yield from sorted(state, key=lambda item: item[0])


def _stamp(name: str, tensor: Tensor) -> tuple:
    version = None if tensor.is_inference() else tensor._version
    return name, tensor.shape, tensor.dtype, tensor.data_ptr(), version


def _remembered(module: nn.Module, files: Sequence[Path], sample: str) -> str:
    """Return the fingerprint, of a large module looked up under the files it came from."""
    if (
        sum(tensor.numel() * tensor.element_size() for _, tensor in _base_weights(module)) < REMEMBERED_BYTES
        or not files
    ):
        return _whole_fingerprint(module)
    stats = [(str(file.resolve()), file.stat()) for file in files]
    facts = [(path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino) for path, stat in stats]
    key = hashlib.sha256(f"{sample}{sorted(facts)}".encode()).hexdigest()
    record = assets.default_cache_dir() / "fingerprints" / key
    if record.is_file() and len(fingerprint := record.read_text()) == len(WHOLE) + 64:
        return fingerprint
    fingerprint = _whole_fingerprint(module)
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(record) as partial:
            partial.write_text(fingerprint)
    except OSError:  # a cache that is another user's is read, not written
        pass
    return fingerprint


def _whole_fingerprint(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in _base_weights(module):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        for chunk in tensor.detach().flatten().split(CHUNK):
            digest.update(_rounded_bytes(chunk))
    return WHOLE + digest.hexdigest()


def _rounded_bytes(values: Tensor) -> bytes:
    return values.to(device="cpu", dtype=torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes()

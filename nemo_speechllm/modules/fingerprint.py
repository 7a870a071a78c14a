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

import torch
from torch import nn

SAMPLES_PER_TENSOR = 256


def weight_fingerprint(module: nn.Module) -> str:
    """Short hash of a module's weights.

    Of every tensor the name, the shape and 256 evenly spaced values (rounded to bfloat16, so that the precision a model
    is loaded in does not matter) enter the hash: cheap for billions of parameters, and any fine-tuning changes it. LoRA
    weights are left out and the names are those of the model before LoRA was added.

    Args:
        module: any module; its ``state_dict`` is read.

    Returns:
        32 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted((base_name(name), tensor) for name, tensor in module.state_dict().items()):
        if is_adapter_key(name):
            continue
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        flat = tensor.detach().flatten()
        step = max(1, flat.numel() // SAMPLES_PER_TENSOR)
        sample = flat[::step][:SAMPLES_PER_TENSOR].to(device="cpu", dtype=torch.bfloat16)
        digest.update(sample.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:32]


def state_digest(module: nn.Module) -> str:
    """SHA-256 of every value in a module's ``state_dict``: of a speech LM, exactly of what its checkpoint holds.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def is_adapter_key(name: str) -> bool:
    """Whether a parameter name belongs to a LoRA layer that PEFT injected."""
    return ".lora_" in name


def base_name(name: str) -> str:
    """A parameter's name before PEFT wrapped its layer."""
    return name.replace(".base_layer.", ".")

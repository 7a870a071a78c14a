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

"""Named randomness: what is drawn depends on a name, never on what was drawn before; and where generators stand."""

import hashlib
import random
from typing import Any, cast

import numpy as np
import torch


def named_random(name: tuple) -> np.random.Generator:
    """Return a generator that depends on ``name`` alone (seed, epoch and id of a sample, say), in any process."""
    return np.random.default_rng(list(hashlib.sha256(repr(name).encode()).digest()))


def random_states(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Return where the generators of Python, NumPy and PyTorch stand, as tensors and plain values.

    Args:
        device: whose generator is meant beside the CPU's.
    """
    algorithm, keys, *position = cast(tuple[str, np.ndarray, int, int, float], np.random.get_state())
    on_gpu = torch.device(device).type == "cuda"
    return {
        "python": random.getstate(),
        "numpy": (algorithm, keys.tolist(), *position),
        "torch": torch.get_rng_state(),
        "torch.cuda": [torch.cuda.get_rng_state(device)] if on_gpu else [],
    }


def set_random_states(states: dict[str, Any], device: torch.device | str = "cpu") -> None:
    """Put the generators where `random_states` found them."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"].cpu())
    if states["torch.cuda"] and torch.device(device).type == "cuda":
        torch.cuda.set_rng_state(states["torch.cuda"][0].cpu(), device)

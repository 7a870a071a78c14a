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

"""What may be built of a checkpoint of unknown origin: no model far larger than its weights."""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode

# Built parameters may take so many times the bytes of the file's (float16 comes back as float32), and so many more.
MAX_GROWTH, FREE_BYTES, FREE_TENSORS = 4, 256 * 2**20, 20_000


@contextmanager
def limited_parameters(weight_bytes: int, tensors: int) -> Iterator[None]:
    """Let this thread build no model whose parameters take far more than the weights there are for them.

    Args:
        weight_bytes: size of the files that hold the model's weights.
        tensors: how many the checkpoint holds.

    Raises:
        ValueError: a parameter or buffer goes beyond; it is raised where it is made, before it is filled.
    """
    most = MAX_GROWTH * weight_bytes + FREE_BYTES
    left = {"bytes": most, "tensors": MAX_GROWTH * tensors + FREE_TENSORS}
    thread = threading.get_ident()

    def count(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        if tensor is None or tensor.is_meta or threading.get_ident() != thread:
            return
        left["bytes"] -= tensor.numel() * tensor.element_size()
        left["tensors"] -= 1
        if min(left.values()) < 0:
            raise ValueError(
                f"its config asks for a model far larger than its weights: {type(module).__name__}.{name} has the "
                f"shape {tuple(tensor.shape)}"
            )

    handles = [register_module_parameter_registration_hook(count), register_module_buffer_registration_hook(count)]
    try:
        with _LimitedTensors(most):
            yield
    finally:
        for handle in handles:
            handle.remove()


class _LimitedTensors(TorchDispatchMode):
    """Lets this thread make no tensor of more bytes; a table of positions, say, is filled before it is registered."""

    # those that say in a list how large their result is
    FACTORIES = frozenset(
        "empty zeros ones full rand randn new_empty new_zeros new_ones new_full expand_copy empty_strided".split()
    )
    PAIRWISE = frozenset("mul add sub div pow bmm eq ne ge gt le lt".split())

    def __init__(self, most_bytes: int):
        super().__init__()
        self.most_bytes = most_bytes

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function unless what it makes would be too large."""
        kwargs = kwargs or {}
        on_meta = torch.device(kwargs.get("device") or "cpu").type == "meta"
        numbers = 0 if on_meta else self._numbers(getattr(function, "overloadpacket", function).__name__, args)
        if 4 * numbers > self.most_bytes:  # most are of four bytes
            raise ValueError(f"its config asks for a tensor of {numbers} numbers, far more than its weights have")
        return function(*args, **kwargs)

    def _numbers(self, name: str, args: Any) -> int:
        if name in self.FACTORIES:
            return math.prod(next((arg for arg in args if isinstance(arg, list | tuple)), ()))
        if name == "arange":
            start, end, step = args if len(args) == 3 else (0, args[-1], 1) if len(args) == 1 else (*args, 1)
            return int(abs(end - start) / abs(step or 1))
        if name in ("eye", "linspace"):
            return args[0] * (args[1] if len(args) > 1 else args[0]) if name == "eye" else args[2]
        tensors = [arg for arg in args if isinstance(arg, Tensor)]
        if not tensors or any(tensor.is_meta for tensor in tensors):
            return 0
        shapes = [tensor.shape for tensor in tensors]
        if name == "mm":
            return shapes[0][0] * shapes[1][1]
        if name in ("clone", "copy_", "tril", "triu"):
            return math.prod(shapes[0])
        if name in ("repeat", "constant_pad_nd"):
            return _repeated(name, shapes[0], args[1])
        if name in self.PAIRWISE and len(shapes) == 2:
            return math.prod(max(pair) for pair in zip_longest(*map(reversed, shapes), fillvalue=1))
        return 0


def _repeated(name: str, shape: torch.Size, numbers: list[int]) -> int:
    if name == "repeat":
        return math.prod(shape) * math.prod(numbers)
    added = [sum(numbers[2 * index : 2 * index + 2]) for index in range(len(numbers) // 2)]
    return math.prod(size + more for size, more in zip_longest(reversed(shape), added, fillvalue=0))

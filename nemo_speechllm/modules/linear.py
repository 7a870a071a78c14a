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

"""Linear layers of float32 by oneDNN, where the library that PyTorch has for them leaves half of a processor idle.

MKL multiplies by AVX-512 on Intel's processors alone; on AMD's, whose AVX-512 oneDNN does use, it takes twice the time
(docs/results/speed.md). The results differ by what rounding does.
"""

import os
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

CPU_INFO = Path("/proc/cpuinfo")
POSITIONS = 16  # for which packed weights are laid out: a few rows' next tokens; what is right for more differs little

# Each number of positions has kernels of its own, also in bfloat16, of which oneDNN and what PyTorch calls it by keep
# 1 024 each: hundreds of MiB. They read these once, before the first product.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
os.environ.setdefault("LRU_CACHE_CAPACITY", "64")


@cache
def is_faster() -> bool:
    """Whether this is a processor of AMD's with AVX-512, and PyTorch multiplies by MKL."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkl.is_available():
        return False
    return torch.backends.mkldnn.is_available() and CPU_INFO.is_file() and "AuthenticAMD" in CPU_INFO.read_text()


def use_onednn(module: nn.Module) -> None:
    """Let all linear layers of a module multiply by oneDNN, in place, where that `is_faster`.

    What they are called, hold and save stays. Other types than float32 and other devices multiply as before.
    """
    if is_faster():
        for layer in module.modules():
            if type(layer) is nn.Linear:
                layer.__class__ = OneDNNLinear


class OneDNNLinear(nn.Linear):
    """A linear layer that oneDNN multiplies."""

    def forward(self, input: Tensor) -> Tensor:
        """Return (…, out_features) of inputs (…, in_features)."""
        if not _is_for_onednn(input, self.weight):
            return super().forward(input)
        if torch.is_grad_enabled():
            return _Product.apply(input, self.weight, self.bias)
        return _product(input, self.weight, self.bias)


class PackedLinear(nn.Linear):
    """A linear layer whose weights lie in memory as oneDNN reads them, and which is neither trained nor saved.

    Short inputs, such as each row's next token, take half the time: their weights are not laid out anew. On another
    device, or of another type, it is an ordinary layer again.
    """

    @classmethod
    def pack(cls, layer: nn.Linear) -> nn.Linear:
        """Make one of a layer, in place."""
        packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), POSITIONS)
        layer.weight = nn.Parameter(packed, requires_grad=False)
        layer.__class__ = cls
        return layer

    def forward(self, input: Tensor) -> Tensor:
        """Return (…, out_features) of inputs (…, in_features).

        Raises:
            RuntimeError: a gradient is wanted.
        """
        if torch.is_grad_enabled() and any(part.requires_grad for part in (input, *self.parameters())):
            raise RuntimeError(
                "packed weights give no gradients: load the model without answers_only, or ask under torch.no_grad()"
            )
        return _product(input.float(), self.weight, self.bias)

    def _apply(self, fn: Any, recurse: bool = True) -> "PackedLinear":
        moved = fn(torch.empty(0))
        if moved.device.type == "cpu" and moved.dtype == torch.float32:
            return self
        self.weight = self._dense
        self.__class__ = OneDNNLinear  # type: ignore[assignment]
        return self._apply(fn, recurse)

    @property
    def _dense(self) -> nn.Parameter:
        return nn.Parameter(self.weight.detach().to_dense(), requires_grad=False)

    def __reduce__(self) -> tuple:  # copies and pickles: what is laid out has no bytes of its own that could be read
        return _laid_out, (self._dense, self.bias)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "weight"] = self._dense.detach()

    def _load_from_state_dict(self, *arguments: Any) -> None:
        self.weight = self._dense
        super()._load_from_state_dict(*arguments)
        self.pack(self)


def pack_weights(module: nn.Module) -> None:
    """Lay out the weights of all linear layers as oneDNN reads them, in place, where that `is_faster`.

    A layer whose weights are another's too keeps these beside its own.
    """
    if not is_faster():
        return
    for layer in module.modules():
        if type(layer) is OneDNNLinear and _is_for_onednn(layer.weight, layer.weight):
            PackedLinear.pack(layer)


def is_packed(module: nn.Module) -> bool:
    """Whether weights of a module are packed."""
    return any(isinstance(layer, PackedLinear) for layer in module.modules())


def _laid_out(weight: nn.Parameter, bias: nn.Parameter | None) -> nn.Linear:
    outputs, inputs = weight.shape
    layer = nn.Linear(inputs, outputs, bias=False, device="meta").eval()
    layer.weight = weight
    layer.register_parameter("bias", bias)
    return PackedLinear.pack(layer)


class _Product(torch.autograd.Function):
    """A linear layer's products, forward and backward; an input is kept for the weights' gradient alone."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        of_input, of_weight = ctx.needs_input_grad[:2]
        ctx.save_for_backward(input if of_weight else None, weight if of_input else None)
        return _product(input, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        rows = gradient.flatten(0, -2)
        of_input = None if weight is None else _product(gradient, weight.t(), None)
        of_weight = None if input is None else _product(rows.t(), input.flatten(0, -2).t(), None)
        return of_input, of_weight, rows.sum(0) if ctx.needs_input_grad[2] else None


def _product(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")


def _is_for_onednn(input: Tensor, weight: Tensor) -> bool:
    """Whether plain tensors of float32 are multiplied as they are, on a CPU, and nothing is traced or transformed."""
    return (
        type(input) in (Tensor, nn.Parameter)
        and type(weight) in (Tensor, nn.Parameter)
        and input.dtype == weight.dtype == torch.float32
        and input.device.type == weight.device.type == "cpu"
        and input.dim() > 1
        and input.numel() > 0
        and bool(torch.backends.mkldnn.enabled)
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not torch._C._are_functorch_transforms_active()
    )

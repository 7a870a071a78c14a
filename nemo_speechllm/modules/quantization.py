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

"""Weights of 8 bits for CPUs: linear layers of a quarter of the size, which a small machine multiplies sooner."""

import torch
from torch import Tensor, nn

from nemo_speechllm.modules.linear import OneDNNLinear
from nemo_speechllm.modules.llm import merge_lora

CONFORMER_INPUT = "pre_encode"  # NeMo's Conformer asks whether it is an nn.Linear, and calls it otherwise if not
LARGEST = 127


class Int8Linear(nn.Module):
    """A linear layer whose weights and inputs are whole numbers of 8 bits while they are multiplied.

    Each output has a scale of its own, and each position of the input, which is taken when it is read (the dynamic
    quantisation of LLM.int8(), 2208.07339, section 2.1, "vector-wise").

    Args:
        layer: what it computes about the same as.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        weight, scale = _rounded(layer.weight.detach().float())
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale.squeeze(1))
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().float())

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (…, out_features) of inputs (…, in_features)."""
        rows, scale = _rounded(inputs.float().reshape(-1, self.in_features))
        outputs = torch._int_mm(rows, self.weight.t()).float() * scale * self.scale
        if self.bias is not None:
            outputs += self.bias
        return outputs.view(*inputs.shape[:-1], self.out_features)


def _rounded(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows as whole numbers, and by what these are to be multiplied, (…, 1)."""
    scale = rows.abs().amax(-1, keepdim=True).clamp(min=1e-12) / LARGEST
    return (rows / scale).round().to(torch.int8), scale


def to_int8(model: nn.Module) -> None:
    """Hold the weights of all linear layers in 8 bits, in place and on the CPU; LoRA is merged into the layers first.

    Embeddings, convolutions and norms stay as they are. Such a model answers; it is not trained any more.
    """
    model.to(device="cpu", dtype=torch.float32).requires_grad_(False)
    merge_lora(model)
    for parent in list(model.modules()):
        for name, layer in parent.named_children():
            if (type(layer) is nn.Linear or type(layer) is OneDNNLinear) and name != CONFORMER_INPUT:
                setattr(parent, name, Int8Linear(layer).train(layer.training))


def is_int8(model: nn.Module) -> bool:
    """Whether a model's linear layers hold 8 bits."""
    return any(isinstance(module, Int8Linear) for module in model.modules())

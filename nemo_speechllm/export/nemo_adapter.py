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

"""A modality adapter that NeMo's SALM has none like: frame stacking, Conformer, projection at the LLM's scale."""

from typing import Any

import torch
from torch import Tensor, nn

from nemo_speechllm.modules.adapters import ConformerAdapter, FrameStacking, LLMProjection


class ProjectedConformer(nn.Module):
    """What follows the encoder in this package's perception, as NeMo's ``AudioPerceptionModule`` calls it.

    Args:
        d_in: width of the encoder's states.
        d_llm: of the LLM.
        stack: frames joined into one.
        conformer: arguments of NeMo's ``ConformerEncoder``; None: the projection alone.
    """

    def __init__(self, d_in: int, d_llm: int, stack: int = 1, conformer: dict[str, Any] | None = None):
        super().__init__()
        self.stacking = FrameStacking(stack)
        self.adapter = ConformerAdapter(d_in * stack, conformer) if conformer is not None else None
        self.projection = LLMProjection(self.adapter.d_out if self.adapter else d_in * stack, torch.ones(1, d_llm))
        self.subsampling_factor = stack * (self.adapter.subsampling or 1 if self.adapter else 1)

    def forward(self, audio_signal: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Return (B, d_llm, T'), lengths (B,) of states (B, d_in, T), lengths (B,)."""
        hidden, length = self.stacking(audio_signal.transpose(1, 2), length)
        if self.adapter is not None:
            hidden, length = self.adapter(hidden, length)
        return self.projection(hidden).transpose(1, 2), length

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

"""The part between a speech encoder and an LLM: fewer frames, the LLM's width, the LLM's scale."""

from collections.abc import Callable
from typing import Any

import torch
from nemo.collections.asr.modules import ConformerEncoder
from nemo.collections.asr.parts.submodules.subsampling import StackingSubsampling
from torch import Tensor, nn

from nemo_speechllm.modules.encoders import Encoder, valid_positions
from nemo_speechllm.registry import Registry


class FrameStacking(nn.Module):
    """Joins every n consecutive frames into one of n times the width (2307.11795, section 3).

    An item's last group is filled with zeros, so no frame is dropped and the result depends on the item's own length
    only, not on how far the batch is padded.

    Args:
        n: frames per stacked frame.
    """

    def __init__(self, n: int):
        super().__init__()
        self.n = n

    def forward(self, states: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Stack states (B, T, D), lengths (B,): (B, ceil(T / n), n · D), ceil(lengths / n)."""
        batch, time, width = states.shape
        valid = valid_positions(lengths, time)
        states = nn.functional.pad(states * valid[..., None], (0, 0, 0, -time % self.n))
        return states.reshape(batch, -1, self.n * width), -(-lengths // self.n)

    def one_by_one(self, states: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return each frame in its place of its stack, the others zero: (B, T, D) → (B, n · ceil(T / n), n · D).

        What is linear in a stack is the sum over its frames of what is seen here; lengths (B,) stay.
        """
        stacked, _ = self(states, lengths)
        frames = stacked.unflatten(-1, (self.n, -1))
        places = torch.eye(self.n, dtype=frames.dtype, device=frames.device)
        return torch.einsum("btnd,nm->btnmd", frames, places).flatten(3, 4).flatten(1, 2), lengths


class Adapter(nn.Module):
    """Encoder states (B, T, d_in) and lengths (B,) → (B, T', d_out) and lengths (B,).

    Attributes:
        d_out: width of what it gives.
        subsampling: how many of its input's frames become one; None: it gives so many for a whole window.
    """

    d_out: int
    subsampling: int | None


# Builders: the section without ``type``, the encoder, and how many of its states are stacked into a frame.
ADAPTERS: Registry[Callable[[dict[str, Any], Encoder, int], Adapter]] = Registry("model.perception.adapter.type")


class ConformerAdapter(Adapter):
    """SALM's modality adapter (2310.09424, section 2): a small NeMo Conformer over the encoder's states.

    Args:
        d_in: width of the states.
        conformer: arguments of NeMo's ``ConformerEncoder`` (``n_layers``, ``d_model``, ``subsampling``,
            ``subsampling_factor`` …); ``feat_in`` is set here.
    """

    def __init__(self, d_in: int, conformer: dict[str, Any]):
        super().__init__()
        self.conformer = ConformerEncoder(feat_in=d_in, **conformer)
        self.d_out = self.conformer.d_model
        self.subsampling = self.conformer.subsampling_factor

    def forward(self, states: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Adapt states (B, T, d_in), lengths (B,): (B, T', d_out), lengths (B,)."""
        if isinstance(self.conformer.pre_encode, StackingSubsampling):  # see `NeMoEncoder`; here the rest is kept
            states = states * valid_positions(lengths, states.shape[1])[..., None]
            factor = self.conformer.subsampling_factor
            states = nn.functional.pad(states, (0, 0, 0, -states.shape[1] % factor))
            lengths = -(-lengths // factor) * factor
        hidden, lengths = self.conformer(audio_signal=states.transpose(1, 2), length=lengths)
        return hidden.transpose(1, 2), lengths


@ADAPTERS.register("conformer")
def _build_conformer(options: dict[str, Any], encoder: Encoder, stack: int) -> ConformerAdapter:
    return ConformerAdapter(encoder.d_model * stack, options)


class LLMProjection(nn.Module):
    """Linear map to the LLM's width, brought to the size of the LLM's own token embeddings.

    Without the scale an untrained projection may be a hundred times larger than the token embeddings that the frozen
    LLM expects, and the first thousand steps go into shrinking it.

    Args:
        d_in: width of the adapter's output.
        token_embeddings: the LLM's embedding matrix (V, d_llm), read for its width and typical size.
    """

    def __init__(self, d_in: int, token_embeddings: Tensor):
        super().__init__()
        self.linear = nn.Linear(d_in, token_embeddings.shape[1])
        rms = token_embeddings.detach().float().square().mean().sqrt()
        self.scale = nn.Parameter(rms.reshape(1))

    def forward(self, hidden: Tensor) -> Tensor:
        """Return embeddings (B, T, d_llm) of root mean square ``scale`` for states (B, T, d_in)."""
        projected = self.linear(hidden)
        return nn.functional.rms_norm(projected, projected.shape[-1:]) * self.scale

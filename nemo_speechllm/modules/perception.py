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

"""Audio in, LLM input embeddings out: encoder, frame stacking, adapter, projection."""

from typing import Any, cast

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from nemo_speechllm.modules.adapters import ConformerAdapter, FrameStacking, LLMProjection
from nemo_speechllm.modules.encoders import Encoder, build_encoder
from nemo_speechllm.modules.qformer import QFormer
from nemo_speechllm.modules.state_cache import CachedEncoder


class Perception(nn.Module):
    """encoder → stack n frames → adapter or none → linear.

    Args:
        cfg: the recipe's ``model.perception`` section: ``encoder``, ``stack``, ``adapter`` (its ``type`` is
            ``conformer``, if not given, or ``qformer``; null: none), ``state_mask`` (NeMo ``SpectrogramAugmentation``
            over the encoder's states; the augmentation to use with cached states) and ``state_cache`` (folder for
            training; see `cache_states`).
        token_embeddings: the LLM's embedding matrix (V, d_llm).
        from_config_only: build the encoder without loading its pretrained weights.

    Attributes:
        frame_shift: seconds from one embedding to the next; None of a Q-Former's, which stand for a whole window.

    Raises:
        ValueError: ``state_cache`` together with ``spec_augment``, which would never be applied; an unknown adapter,
            or a Q-Former over stacked frames.
    """

    def __init__(self, cfg: DictConfig, token_embeddings: Tensor, from_config_only: bool = False):
        super().__init__()
        if cfg.get("state_cache") and cfg.encoder.get("spec_augment"):
            raise ValueError(
                "model.perception.state_cache skips the encoder, so model.perception.encoder.spec_augment would be "
                "silently lost; use model.perception.state_mask, which acts on the cached states"
            )
        self.encoder = build_encoder(cfg.encoder, from_config_only)
        self.stacking = FrameStacking(cfg.get("stack", 1))
        width = self.encoder.d_model * self.stacking.n
        self.adapter = _build_adapter(cfg, self.encoder, width) if cfg.get("adapter") else None
        self.state_mask = _build_state_mask(cfg)
        self.projection = LLMProjection(self.adapter.d_out if self.adapter else width, token_embeddings)
        subsampling = self.adapter.subsampling if self.adapter else 1
        self.frame_shift = subsampling and self.encoder.frame_shift * self.stacking.n * subsampling
        self._cache: list[CachedEncoder] = []

    def forward(self, audio: Tensor, audio_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Embed audio for the LLM.

        Args:
            audio: samples at 16 kHz, (B, T).
            audio_lengths: true lengths in samples, (B,).

        Returns:
            embeddings (B, T', d_llm), one every ``frame_shift`` seconds or so many for each window of a Q-Former, and
            their true lengths (B,).
        """
        return self.adapt(*self.encode(audio, audio_lengths))

    def adapt(self, states: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `forward` does, of the encoder's states (B, T, d_model), lengths (B,)."""
        return self._project(*self.stacking(self._mask(states, lengths), lengths))

    @property
    def d_frames(self) -> int:
        """Width of `frames`."""
        return self.adapter.d_out if self.adapter is not None else self.encoder.d_model * self.stacking.n

    def frames(self, states: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Turn the encoder's states (B, T, d_model), (B,) into what the projection reads, (B, T', d_frames), (B,)."""
        hidden, lengths = self.stacking(self._mask(states, lengths), lengths)
        return self.adapter(hidden, lengths) if self.adapter is not None else (hidden, lengths)

    @property
    def has_frames_of_encoder(self) -> bool:
        """Whether `adapt` gives one embedding for each of the encoder's states."""
        return self.adapter is None and self.stacking.n == 1

    def adapt_frames(self, states: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor] | None:
        """Project each frame alone, where stacking is all there is between encoder and projection.

        CTC needs a position per token, which a stack of 240 ms is not. A frame's embedding is what `adapt` makes of
        its stack with the other frames zero; the embedding of the stack, before it is scaled, is their sum.

        The encoder's states (B, T, d_model), lengths (B,) → (B, ≥T, d_llm), lengths (B,); None where `adapt`'s are the
        finest.
        """
        if self.adapter is not None or self.has_frames_of_encoder:
            return None
        return self._project(*self.stacking.one_by_one(self._mask(states, lengths), lengths))

    def _mask(self, states: Tensor, lengths: Tensor) -> Tensor:
        if self.state_mask is None or not self.training:
            return states
        # NeMo's augmentation passes no gradient on, which an encoder that trains would miss
        kept = self.state_mask(input_spec=torch.ones_like(states).transpose(1, 2), length=lengths)
        return states * kept.transpose(1, 2)

    def _project(self, hidden: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        if self.adapter is not None:
            hidden, lengths = self.adapter(hidden, lengths)
        return self.projection(hidden), lengths

    def cache_states(self, folder: str | None) -> None:
        """Take the encoder's states from now on from a folder where they are known; None: no longer.

        States computed while the encoder trains would be stale one step later, so then the cache is refused.

        Raises:
            ValueError: the encoder is not frozen.
        """
        if folder and any(parameter.requires_grad for parameter in self.encoder.parameters()):
            raise ValueError(
                "model.perception.state_cache needs a frozen encoder: add '^perception\\.encoder\\.' to "
                "model.freeze_params, or set state_cache to null"
            )
        # in a list, not a submodule: the encoder's parameter names must not depend on whether its states are cached
        self._cache = [CachedEncoder(self.encoder, folder)] if folder else []

    def encode(self, audio: Tensor, audio_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the encoder's states (B, T, d_model) and lengths (B,), from the cache if there is one."""
        encoder = self._cache[0] if self._cache else self.encoder
        return encoder(audio, audio_lengths)


def _build_adapter(cfg: DictConfig, encoder: Encoder, width: int) -> ConformerAdapter | QFormer:
    options = cast(dict[str, Any], OmegaConf.to_container(cfg.adapter, resolve=True))
    kind = options.pop("type", "conformer")
    if kind == "conformer":
        return ConformerAdapter(width, options)
    if kind != "qformer":
        raise ValueError(f"model.perception.adapter.type is {kind!r}; known are conformer and qformer")
    if cfg.get("stack", 1) != 1:
        raise ValueError("a Q-Former reads the encoder's states one by one: set model.perception.stack to 1")
    return QFormer(width // encoder.n_taps, encoder.n_taps, window=encoder.states_per_window, **options)


def _build_state_mask(cfg: DictConfig) -> nn.Module | None:
    if not cfg.get("state_mask"):
        return None
    from nemo.collections.asr.modules import SpectrogramAugmentation

    return SpectrogramAugmentation(**cfg.state_mask)

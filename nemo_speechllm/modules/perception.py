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

from dataclasses import dataclass
from typing import Any, cast

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from nemo_speechllm.modules.adapters import ADAPTERS, Adapter, FrameStacking, LLMProjection
from nemo_speechllm.modules.encoders import SAMPLE_RATE, Encoder, build_encoder
from nemo_speechllm.modules.qformer import QFormer  # noqa: F401  # which registers itself
from nemo_speechllm.modules.state_cache import CachedEncoder

States = tuple[Tensor, Tensor]  # (N, T, d), and lengths (N,)


@dataclass
class PerceptionOutput:
    """What one pass of perception made of N audios; it is handed on, so that nothing is computed of them again.

    Attributes:
        encoded: states of the encoder, (N, T, d_model).
        adapted: states that the projection reads, (N, T', d): in training masked, then stacked, then the adapter's.
        embeddings: ``adapted`` projected to the LLM's width, (N, T', d_llm), or what stands in their place.
        frames: each of ``encoded`` projected alone, (N, ≥T, d_llm), for CTC, which needs a position per token; the
            embeddings where these are the finest there are. A frame's is what its stack's would be with the other
            frames zero; the embedding of the stack, before it is scaled, is their sum.
        log_probs: of the model's CTC, (N, T, C), once they have been asked for.
        of_answers: of the batch's answers beside these audios, see `Mean`, once a loss was taken in evaluation.
    """

    encoded: States
    adapted: States
    embeddings: States
    frames: States
    log_probs: Tensor | None = None
    of_answers: tuple[Tensor, Tensor] | None = None

    def select(self, rows: slice) -> "PerceptionOutput":
        """Return what was made of some of the audios, padded to the longest of them alone."""
        return PerceptionOutput(
            _select(self.encoded, rows),
            _select(self.adapted, rows),
            _select(self.embeddings, rows),
            _select(self.frames, rows),
        )

    def exchanged(self, places: list[int]) -> "PerceptionOutput":
        """Return what was made of the audios at ``places`` (N,) in the places of these.

        None is longer than what it replaces: so no prompt outgrows the LLM's context for another's audio.
        """
        return PerceptionOutput(
            _exchange(self.encoded, places),
            _exchange(self.adapted, places),
            _exchange(self.embeddings, places),
            _exchange(self.frames, places),
            None if self.log_probs is None else self.log_probs[places],
        )


def _exchange(states: States, places: list[int]) -> States:
    values, lengths = states
    return values[places], torch.minimum(lengths[places], lengths)


def _select(states: States, rows: slice) -> States:
    values, lengths = states[0][rows], states[1][rows]
    return values[:, : int(lengths.max())] if len(lengths) else values, lengths


class Perception(nn.Module):
    """encoder → stack n frames → adapter or none → linear.

    Args:
        cfg: the recipe's ``model.perception`` section, whole (`nemo_speechllm.recipes.sections.Perception`).
        token_embeddings: the LLM's embedding matrix (V, d_llm).
        from_config_only: build the encoder without loading its pretrained weights.

    Attributes:
        frame_shift: seconds from one embedding to the next; None of a Q-Former's, which stand for a whole window.
        with_frames: project each of the encoder's states alone as well, where several are stacked into an embedding.

    Raises:
        ValueError: ``state_cache`` together with ``spec_augment``, which would never be applied; an unknown adapter,
            or a Q-Former over stacked frames.
    """

    def __init__(self, cfg: DictConfig, token_embeddings: Tensor, from_config_only: bool = False):
        super().__init__()
        if cfg.state_cache and cfg.encoder.spec_augment:
            raise ValueError(
                "model.perception.state_cache skips the encoder, so model.perception.encoder.spec_augment would be "
                "silently lost; use model.perception.state_mask, which acts on the cached states"
            )
        self.encoder = build_encoder(cfg.encoder, from_config_only)
        self.stacking = FrameStacking(cfg.stack)
        width = self.encoder.d_model * self.stacking.n
        self.adapter = _build_adapter(cfg, self.encoder) if cfg.adapter else None
        self.state_mask = _build_state_mask(cfg)
        self.projection = LLMProjection(self.adapter.d_out if self.adapter else width, token_embeddings)
        subsampling = self.adapter.subsampling if self.adapter else 1
        self.frame_shift = subsampling and self.encoder.frame_shift * self.stacking.n * subsampling
        self.with_frames = False
        self._cache: list[CachedEncoder] = []

    def forward(self, audio: Tensor, audio_lengths: Tensor) -> PerceptionOutput:
        """Encode audio and embed it for the LLM; in training one random mask is drawn for all that reads the states.

        Args:
            audio: samples at 16 kHz, (N, T); of none there is nothing to encode.
            audio_lengths: true lengths in samples, (N,).

        Returns:
            embeddings (N, T', d_llm), one every ``frame_shift`` seconds or so many for each window of a Q-Former, and
            the states on the way there.
        """
        if len(audio) == 0:
            return self._nothing(audio, audio_lengths)
        encoded, lengths = self.encode(audio, audio_lengths)
        masked = self._mask(encoded, lengths)
        adapted = self.stacking(masked, lengths)
        if self.adapter is not None:
            adapted = self.adapter(*adapted)
        embeddings = self._project(*adapted)
        frames = embeddings
        if self._projects_frames:
            frames = self._project(*self.stacking.one_by_one(masked, lengths))
        return PerceptionOutput((encoded, lengths), adapted, embeddings, frames)

    def shift_of(self, perceived: PerceptionOutput, states: States) -> float:
        """Return seconds from one of ``states`` to the next, which are among what ``perceived`` holds.

        Raises:
            ValueError: they are a Q-Former's, which stand for a whole window.
        """
        of_encoder = states is perceived.encoded or (self._projects_frames and states is perceived.frames)
        shift = self.encoder.frame_shift if of_encoder else self.frame_shift
        if shift is None:
            raise ValueError("the queries of a Q-Former stand for a whole window, so what they tell has no times")
        return shift

    @property
    def d_adapted(self) -> int:
        """Width of what the projection reads."""
        return self.adapter.d_out if self.adapter is not None else self.encoder.d_model * self.stacking.n

    @property
    def has_frames_of_encoder(self) -> bool:
        """Whether there is one embedding for each of the encoder's states."""
        return self.adapter is None and self.stacking.n == 1

    @property
    def _projects_frames(self) -> bool:
        """Whether ``frames`` are others than the embeddings."""
        return self.with_frames and self.adapter is None and self.stacking.n > 1

    def _nothing(self, audio: Tensor, lengths: Tensor) -> PerceptionOutput:
        widths = (self.encoder.d_model, self.d_adapted, self.projection.linear.out_features)
        encoded, adapted, embeddings = ((audio.new_zeros(0, 0, width), lengths) for width in widths)
        return PerceptionOutput(encoded, adapted, embeddings, embeddings)

    def _project(self, adapted: Tensor, lengths: Tensor) -> States:
        return self.projection(adapted), lengths

    def _mask(self, states: Tensor, lengths: Tensor) -> Tensor:
        if self.state_mask is None or not self.training:
            return states
        # NeMo's augmentation passes no gradient on, which an encoder that trains would miss
        kept = self.state_mask(input_spec=torch.ones_like(states).transpose(1, 2), length=lengths)
        return states * kept.transpose(1, 2)

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
        """Return the encoder's states (B, T, d_model) and lengths (B,), from the cache if there is one.

        Where nothing is drawn and nothing learned, audios of unlike lengths are encoded one group after the other.
        """
        encoder = self._cache[0] if self._cache else self.encoder
        learns = torch.is_grad_enabled() and any(parameter.requires_grad for parameter in self.encoder.parameters())
        if learns or self.encoder.training:
            return encoder(audio, audio_lengths)
        items: dict[int, tuple[Tensor, int]] = {}
        sizes = audio_lengths.clamp(min=SAMPLE_RATE).tolist()
        for places in alike(sizes):
            states, lengths = encoder(audio[places, : sizes[places[0]]], audio_lengths[places])
            items |= dict(zip(places, zip(states, lengths.tolist(), strict=True), strict=True))
        rows, counts = zip(*(items[place] for place in range(len(audio))), strict=True)
        # one that is shorter than a frame has a place all the same, which convolutions need
        kept = [row[: max(count, 1)] for row, count in zip(rows, counts, strict=True)]
        return pad_sequence(kept, batch_first=True), torch.tensor(counts).to(audio_lengths)


def alike(lengths: list[int]) -> list[list[int]]:
    """Return the places of audios in groups in which little is padding, each and all from the longest to the shortest.

    None has less than two thirds of its group's longest.
    """
    groups: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if groups and lengths[place] * 3 >= lengths[groups[-1][0]] * 2:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


def _build_adapter(cfg: DictConfig, encoder: Encoder) -> Adapter:
    options = cast(dict[str, Any], OmegaConf.to_container(cfg.adapter, resolve=True))
    return ADAPTERS[options.pop("type")](options, encoder, cfg.stack)


def _build_state_mask(cfg: DictConfig) -> nn.Module | None:
    if not cfg.state_mask:
        return None
    from nemo.collections.asr.modules import SpectrogramAugmentation

    return SpectrogramAugmentation(**cfg.state_mask)

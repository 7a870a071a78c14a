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

"""Speech encoders: audio samples in, a sequence of states with true lengths out.

Every encoder here answers ``encoder(audio, audio_lengths) -> (states, state_lengths)`` and its states for one item do
not depend on the other items of the batch nor on how far the batch is padded.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from nemo.collections.asr.parts.submodules.subsampling import StackingSubsampling
from nemo.core.classes import NeuralModule
from nemo.utils import AppState
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder as HFWhisperEncoder

from nemo_speechllm import assets
from nemo_speechllm.registry import Registry
from nemo_speechllm.versions import named

if TYPE_CHECKING:
    from nemo.collections.asr.models import ASRModel

SAMPLE_RATE = 16000


class Encoder(nn.Module):
    """Audio (B, T) at 16 kHz and its lengths (B,) → states (B, T', d_model) and theirs.

    Attributes:
        d_model: width of the states.
        n_taps: how many layers' states stand side by side in it.
        frame_shift: seconds from one state to the next.
        states_per_window: how many are computed at once; None: all of an audio.
    """

    d_model: int
    n_taps: int
    frame_shift: float
    states_per_window: int | None


class WhisperEncoder(Encoder):
    """Whisper's encoder on audio of any length.

    With ``trim`` an item is encoded at its own length: far cheaper than Whisper's fixed window for short utterances,
    at the price of states that differ a little from those Whisper was trained on. Without it every 30 s window is
    padded with silence as in Whisper itself, and the padding's states are cut off afterwards. Audio longer than 30 s
    is encoded in consecutive windows whose states are concatenated; nothing is dropped.

    Args:
        config: of the Hugging Face model.
        feature_extractor: log-mel front end that belongs to it.
        trim: encode each window at its own length.
        spec_augment: NeMo ``SpectrogramAugmentation`` applied to the log-mel features while training.
        taps: numbers of layers, from 0, whose outputs are the states, side by side; None: the last layer's. Tap i is
            Hugging Face's ``hidden_states[i + 1]``, so the last layer's output is taken after the encoder's final
            layer norm and the others' are not normalised.

    Raises:
        ValueError: there is no such layer, or one is named twice.
    """

    frame_shift = 0.02
    window_samples = 30 * SAMPLE_RATE
    samples_per_state = 320
    states_per_window = window_samples // samples_per_state

    def __init__(
        self,
        config: WhisperConfig,
        feature_extractor: WhisperFeatureExtractor,
        trim: bool = True,
        spec_augment: nn.Module | None = None,
        taps: list[int] | None = None,
    ):
        super().__init__()
        last = config.encoder_layers - 1
        if taps is not None and not (taps and sorted({*taps} & {*range(last + 1)}) == sorted(taps)):
            raise ValueError(
                f"model.perception.encoder.taps is {taps}; give numbers of this encoder's layers, "
                f"each once: 0 to {last}"
            )
        self.taps = sorted(taps) if taps is not None else None
        self.model = HFWhisperEncoder(config)
        self.feature_extractor = feature_extractor
        self.trim = trim
        self.spec_augment = spec_augment
        self.n_taps = 1 if taps is None else len(taps)
        self.d_model = config.d_model * self.n_taps

    def forward(self, audio: Tensor, audio_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return Whisper's states of audio of any length.

        Args:
            audio: float samples at 16 kHz, shape (B, T).
            audio_lengths: samples that are audio and not padding, shape (B,).

        Returns:
            states (B, T', d_model) at 50 Hz, zero beyond ``state_lengths`` (B,) = ceil(samples / 320). ``d_model`` is
            the width of all taps together, in the order of the layers.
        """
        windows: list[Tensor] = []
        windows_per_item = []
        for samples, length in zip(audio, audio_lengths.tolist(), strict=True):
            pieces = samples[:length].split(self.window_samples)
            windows.extend(pieces)
            windows_per_item.append(len(pieces))
        trimmed = []
        for start in range(0, len(windows), len(audio)):  # so many at once: memory must not grow with a recording
            states, lengths = self._encode_windows(windows[start : start + len(audio)])
            trimmed += [state[:length] for state, length in zip(states, lengths, strict=True)]
        items = [torch.cat(group) for group in _regroup(trimmed, windows_per_item)]
        state_lengths = torch.tensor([len(item) for item in items], device=audio.device)
        return pad_sequence(items, batch_first=True), state_lengths

    def _encode_windows(self, windows: list[Tensor]) -> tuple[Tensor, list[int]]:
        """Return states (N, T', d_model) of windows of at most 30 s, and how many of them stand for audio."""
        lengths = [-(-len(window) // self.samples_per_state) for window in windows]
        sizes = [length * self.samples_per_state if self.trim else self.window_samples for length in lengths]
        features, feature_lengths = self._log_mel(windows, sizes)
        if self.spec_augment is not None and self.training:
            features = self.spec_augment(input_spec=features, length=feature_lengths)
        return self._encode_features(features, feature_lengths), lengths

    def _log_mel(self, windows: list[Tensor], sizes: list[int]) -> tuple[Tensor, Tensor]:
        """Return what Hugging Face's front end makes of each window by itself, on the windows' device.

        Whisper normalises by an item's loudest bin and reflects its ends, neither of which may be another item's.

        Args:
            windows: N times samples (T,).
            sizes: how many samples each is filled up to with silence; whole states.

        Returns:
            features (N, n_mels, T), lengths (N,).
        """
        front, device = self.feature_extractor, windows[0].device
        edge = front.n_fft // 2
        filled = [
            nn.functional.pad(window.float(), (0, size - len(window)))
            for window, size in zip(windows, sizes, strict=True)
        ]
        reflected = [nn.functional.pad(window[None], (edge, edge), mode="reflect")[0] for window in filled]
        lengths = torch.tensor(sizes, device=device) // front.hop_length
        with torch.autocast(device.type, enabled=False):
            spectra = torch.stft(
                pad_sequence(reflected, batch_first=True),
                front.n_fft,
                front.hop_length,
                window=torch.hann_window(front.n_fft, device=device),
                center=False,
                return_complex=True,
            )
            mel_filters = torch.as_tensor(front.mel_filters, device=device, dtype=torch.float32)
            log_mel = (mel_filters.T @ spectra[..., :-1].abs().square()).clamp(min=1e-10).log10()
        beyond = ~valid_positions(lengths, log_mel.shape[-1])[:, None]
        loudest = log_mel.masked_fill(beyond, -torch.inf).amax((1, 2), keepdim=True)
        features = ((log_mel.maximum(loudest - 8.0) + 4.0) / 4.0).masked_fill(beyond, 0.0)
        return features.to(self.model.conv1.weight.dtype), lengths

    def _encode_features(self, features: Tensor, feature_lengths: Tensor) -> Tensor:
        """Run Hugging Face's encoder with what it lacks: a mask, and windows shorter than 30 s.

        Args:
            features: (N, n_mels, T), feature_lengths (N,), even.

        Returns:
            states (N, T / 2, d_model).
        """
        model = self.model
        mask = valid_positions(feature_lengths, features.shape[-1])
        hidden = nn.functional.gelu(model.conv1(features * mask[:, None]))
        # a shorter batch would have zeros here, not the bias of the convolution
        hidden = nn.functional.gelu(model.conv2(hidden * mask[:, None])).transpose(1, 2)
        hidden = hidden + model.embed_positions.weight[: hidden.shape[1]]
        hidden = nn.functional.dropout(hidden, p=model.dropout, training=model.training)
        attention_mask = valid_positions(feature_lengths // 2, hidden.shape[1])[:, None, None, :]
        attention_mask = attention_mask.expand(-1, 1, hidden.shape[1], -1)
        outputs = []
        for layer in model.layers:
            hidden = layer(hidden, **named(layer, attention_mask=attention_mask))
            outputs.append(hidden)
        outputs[-1] = model.layer_norm(hidden)
        return outputs[-1] if self.taps is None else torch.cat([outputs[tap] for tap in self.taps], dim=-1)


class NeMoEncoder(Encoder):
    """A NeMo ASR model's preprocessor and encoder (FastConformer, Conformer, …).

    Args:
        preprocessor: NeMo audio-to-mel preprocessor.
        encoder: NeMo encoder that returns (B, d_model, T) and lengths.
        spec_augment: NeMo ``SpectrogramAugmentation`` applied to the features while training.
    """

    n_taps = 1  # the last layer's states
    states_per_window = None  # audio of any length is encoded at once

    def __init__(self, preprocessor: NeuralModule, encoder: NeuralModule, spec_augment: nn.Module | None = None):
        super().__init__()
        self.preprocessor = preprocessor
        self.encoder = encoder
        self.spec_augment = spec_augment
        self.d_model = encoder.d_model
        self.frame_shift = preprocessor.featurizer.hop_length / SAMPLE_RATE * encoder.subsampling_factor
        # frames beyond an item's length must not come and go with the batch
        preprocessor.featurizer.pad_to = 0

    def forward(self, audio: Tensor, audio_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return the encoder's states of audio.

        Args:
            audio: float samples at 16 kHz, shape (B, T).
            audio_lengths: samples that are audio and not padding, shape (B,).

        Returns:
            states (B, T', d_model) and state_lengths (B,).
        """
        with torch.autocast(audio.device.type, enabled=False):
            features, feature_lengths = self.preprocessor(input_signal=audio.float(), length=audio_lengths)
        if self.spec_augment is not None and self.training:
            features = self.spec_augment(input_spec=features, length=feature_lengths)
        if isinstance(self.encoder.pre_encode, StackingSubsampling):
            # NeMo adds to each item's length what the batch lacks to a whole number of stacks; so it lacks nothing
            features = nn.functional.pad(features, (0, -features.shape[2] % self.encoder.subsampling_factor))
        states, state_lengths = self.encoder(audio_signal=features, length=feature_lengths)
        states = states.transpose(1, 2)
        return states * valid_positions(state_lengths, states.shape[1])[..., None], state_lengths


# Builders: the section, whether pretrained weights are left to the caller, and what augments the features.
ENCODERS: Registry[Callable[[DictConfig, bool, nn.Module | None], Encoder]] = Registry("model.perception.encoder.type")


def build_encoder(cfg: DictConfig, from_config_only: bool = False) -> Encoder:
    """Build the encoder that a recipe's ``model.perception.encoder`` section describes.

    The section's ``config`` is filled in when it is read from a pretrained model, so that a checkpoint that holds the
    encoder's weights can be restored without the original.

    Args:
        cfg: the section, whole (see `nemo_speechllm.recipes.sections.ENCODERS`).
        from_config_only: do not load pretrained weights, the caller will.

    Raises:
        ValueError: unknown ``type``, or neither ``pretrained`` nor ``config``.
        nemo_speechllm.assets.AssetError: the pretrained model cannot be found.
    """
    build = ENCODERS[cfg.type]
    if cfg.pretrained is None and cfg.config is None:
        raise ValueError(
            "model.perception.encoder needs `pretrained` (an asset name, folder, .nemo file or hub id) or `config`"
        )
    return build(cfg, from_config_only, _build_spec_augment(cfg))


@ENCODERS.register("whisper")
def _build_whisper(cfg: DictConfig, from_config_only: bool, spec_augment: nn.Module | None) -> WhisperEncoder:
    folder = None
    if cfg.config is None or not (from_config_only or cfg.pretrained is None):
        folder = assets.resolve(cfg.pretrained)
    if folder is not None and cfg.config is None:
        cfg.config = {
            "model": WhisperConfig.from_pretrained(folder).to_diff_dict(),
            "feature_extractor": _jsonable(WhisperFeatureExtractor.from_pretrained(folder).to_dict()),
        }
    config = cast(dict[str, dict[str, Any]], OmegaConf.to_container(cfg.config, resolve=True))
    encoder = WhisperEncoder(
        WhisperConfig(**config["model"]),
        WhisperFeatureExtractor(**config["feature_extractor"]),
        trim=cfg.trim,
        spec_augment=spec_augment,
        taps=cfg.taps,
    )
    if folder is not None:
        pretrained = WhisperModel.from_pretrained(folder, dtype=torch.float32)
        encoder.model.load_state_dict(pretrained.encoder.state_dict())
    return encoder


@ENCODERS.register("nemo")
def _build_nemo(cfg: DictConfig, from_config_only: bool, spec_augment: nn.Module | None) -> NeMoEncoder:
    from nemo.core.classes import Serialization

    if cfg.pretrained is None or (from_config_only and cfg.config is not None):
        preprocessor = Serialization.from_config_dict(cfg.config.preprocessor)
        return NeMoEncoder(preprocessor, Serialization.from_config_dict(cfg.config.encoder), spec_augment)
    asr_model = load_asr_model(cfg.pretrained)
    if AppState().is_model_being_restored and cfg.config is not None:  # the checkpoint's own has been checked
        return NeMoEncoder(asr_model.preprocessor, asr_model.encoder, spec_augment)
    cfg.config = {"preprocessor": asr_model.cfg.preprocessor, "encoder": asr_model.cfg.encoder}
    return NeMoEncoder(asr_model.preprocessor, asr_model.encoder, spec_augment)


def load_asr_model(pretrained: str) -> "ASRModel":
    """Load a NeMo ASR model on the CPU, from a ``.nemo`` file or by a NeMo pretrained name.

    It may be loaded inside another model's restore.

    Raises:
        nemo_speechllm.assets.AssetError: there is no such file.
    """
    from nemo.collections.asr.models import ASRModel

    if Path(pretrained).is_file():
        with _nested_restore():
            return ASRModel.restore_from(pretrained, map_location="cpu")
    if str(pretrained).endswith(".nemo"):
        raise assets.AssetError(
            f"encoder checkpoint {pretrained} does not exist; set model.perception.encoder.pretrained to a .nemo "
            "file or to a NeMo pretrained name"
        )
    with _nested_restore():
        return ASRModel.from_pretrained(pretrained, map_location="cpu")


@contextmanager
def _nested_restore() -> Iterator[None]:
    """Keep NeMo's mark that a model is being restored: a restore inside another one's takes it away at its end."""
    state = AppState()
    outer = state.is_model_being_restored, state.nemo_file_folder
    try:
        yield
    finally:
        state.is_model_being_restored, state.nemo_file_folder = outer


def _build_spec_augment(cfg: DictConfig) -> nn.Module | None:
    if cfg.spec_augment is None:
        return None
    from nemo.collections.asr.modules import SpectrogramAugmentation

    return SpectrogramAugmentation(**cfg.spec_augment)


def _jsonable(values: dict) -> dict:
    return {key: value for key, value in values.items() if isinstance(value, (str, int, float, bool))}


def valid_positions(lengths: Tensor, size: int) -> Tensor:
    """Return a bool mask (B, size), true within each of the lengths (B,)."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def _regroup(items: list, group_sizes: list[int]) -> list[list]:
    iterator = iter(items)
    return [[next(iterator) for _ in range(size)] for size in group_sizes]

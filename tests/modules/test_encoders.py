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

"""Encoders: parity with Hugging Face and NeMo, and states that do not depend on the batch."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from nemo.collections.asr.models import EncDecCTCModelBPE
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import WhisperFeatureExtractor, WhisperModel

from nemo_speechllm.assets import AssetError
from nemo_speechllm.modules.encoders import NeMoEncoder, WhisperEncoder, build_encoder
from nemo_speechllm.recipes import complete, sections


def pad(samples: list[np.ndarray], extra: int = 0) -> tuple[Tensor, Tensor]:
    """Samples as a batch; the padding is loud, as nothing may listen to it."""
    lengths = torch.tensor([len(item) for item in samples])
    audio = pad_sequence([torch.from_numpy(item) for item in samples], batch_first=True, padding_value=0.5)
    return torch.nn.functional.pad(audio, (0, extra), value=0.5), lengths


def assert_batch_changes_nothing(encoder: torch.nn.Module, samples: list[np.ndarray], atol: float) -> None:
    """Each item alone, in a batch, and in a batch padded to twice its length gives the same states."""
    batch = pad(samples)
    over_padded = pad(samples, extra=batch[0].shape[1])
    for audio, lengths in (batch, over_padded):
        states, state_lengths = encoder(audio, lengths)
        for i, item in enumerate(samples):
            alone, (length,) = encoder(*pad([item]))
            assert state_lengths[i] == length == alone.shape[1]
            torch.testing.assert_close(states[i, :length], alone[0], atol=atol, rtol=0)
            assert not states[i, length:].any()


# Whisper -------------------------------------------------------------------------------------------------------------


def whisper_section(folder: Path, **options) -> DictConfig:
    return complete(sections.WhisperEncoder, {"pretrained": str(folder), **options})


def whisper(folder: Path, **options) -> WhisperEncoder:
    return build_encoder(whisper_section(folder, **options)).eval()


@torch.no_grad()
def test_whisper_equals_hugging_face_in_its_own_window(tiny_whisper_folder, make_audio):
    samples = [make_audio(1.7), make_audio(30.0, seed=1), make_audio(6.21, seed=2)]
    features = WhisperFeatureExtractor.from_pretrained(tiny_whisper_folder)(
        samples, sampling_rate=16000, return_tensors="pt"
    ).input_features
    expected = WhisperModel.from_pretrained(tiny_whisper_folder).eval().encoder(features).last_hidden_state
    states, lengths = whisper(tiny_whisper_folder, trim=False)(*pad(samples))
    assert lengths.tolist() == [85, 1500, 311]
    for i, length in enumerate(lengths):
        assert (states[i, :length] - expected[i, :length]).abs().max() < 1e-4


@pytest.mark.parametrize("trim", [True, False])
def test_whisper_features_of_a_batch_are_hugging_faces_of_each_item(tiny_whisper_folder, make_audio, trim):
    encoder = whisper(tiny_whisper_folder, trim=trim)
    samples = [make_audio(seconds, seed=i) * 10.0**-i for i, seconds in enumerate((0.02, 3.17, 1.0))]
    sizes = [-(-len(item) // 320) * 320 if trim else 480000 for item in samples]
    features, lengths = encoder._log_mel([torch.from_numpy(item) for item in samples], sizes)
    for item, size, got, length in zip(samples, sizes, features, lengths.tolist(), strict=True):
        filled = np.pad(item, (0, size - len(item)))
        given = {"sampling_rate": 16000, "padding": False, "truncation": False, "return_tensors": "pt"}
        expected = encoder.feature_extractor(filled, **given).input_features[0]
        assert length == size // 160 == expected.shape[1]
        torch.testing.assert_close(got[:, :length], expected, atol=1e-5, rtol=0)
        assert not got[:, length:].any()


@torch.no_grad()
def test_tap_i_is_hugging_faces_hidden_state_i_plus_1(tiny_whisper_folder, make_audio):
    """The last layer's is thus taken after the encoder's final layer norm, and is what an encoder without taps
    gives."""
    samples = [make_audio(30.0)]
    features = WhisperFeatureExtractor.from_pretrained(tiny_whisper_folder)(
        samples, sampling_rate=16000, return_tensors="pt"
    ).input_features
    model = WhisperModel.from_pretrained(tiny_whisper_folder).eval().encoder
    hidden_states = model(features, output_hidden_states=True).hidden_states
    encoder = whisper(tiny_whisper_folder, trim=False, taps=[1, 0])
    first, last = encoder(*pad(samples))[0].chunk(2, dim=-1)
    assert (encoder.d_model, encoder.n_taps) == (128, 2)
    assert (first - hidden_states[1]).abs().max() < 1e-4
    assert (last - hidden_states[2]).abs().max() < 1e-4
    torch.testing.assert_close(last, whisper(tiny_whisper_folder, trim=False)(*pad(samples))[0])
    torch.testing.assert_close(whisper(tiny_whisper_folder, trim=False, taps=[0])(*pad(samples))[0], first)


@pytest.mark.parametrize("taps", [[], [2], [0, 0]])
def test_a_tap_that_is_no_layer_is_refused(tiny_whisper_folder, taps):
    with pytest.raises(ValueError, match=r"encoder.taps is .*0 to 1"):
        whisper(tiny_whisper_folder, taps=taps)


@torch.no_grad()
@pytest.mark.parametrize("taps", [None, [0, 1]])
@pytest.mark.parametrize("trim", [True, False])
def test_whisper_states_do_not_depend_on_the_batch(tiny_whisper_folder, make_audio, trim, taps):
    samples = [make_audio(seconds, seed) for seed, seconds in enumerate((0.31, 1.0, 2.503))]
    samples[1] *= 0.01  # the normalisation must not see the louder ones
    assert_batch_changes_nothing(whisper(tiny_whisper_folder, trim=trim, taps=taps), samples, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("trim", [True, False])
def test_whisper_keeps_all_of_a_long_audio(tiny_whisper_folder, make_audio, trim):
    encoder = whisper(tiny_whisper_folder, trim=trim)
    long, short = make_audio(61.0), make_audio(0.5, seed=1)
    states, lengths = encoder(*pad([long, short]))
    assert lengths.tolist() == [3050, 25]
    window = 30 * 16000
    for i, piece in enumerate((long[:window], long[window : 2 * window], long[2 * window :])):
        alone, (length,) = encoder(*pad([piece]))
        torch.testing.assert_close(states[0, 1500 * i : 1500 * i + length], alone[0], atol=1e-5, rtol=0)


def test_whisper_passes_gradient_and_spec_augment_acts_in_training_only(tiny_whisper_folder, make_audio):
    masks = {"freq_masks": 2, "freq_width": 20, "time_masks": 2, "time_width": 10}
    encoder = whisper(tiny_whisper_folder, spec_augment=masks)
    batch = pad([make_audio(1.0)])
    plain = encoder(*batch)[0]
    assert torch.equal(plain, encoder(*batch)[0])
    states, _ = encoder.train()(*batch)
    assert not torch.allclose(states, plain)
    states.sum().backward()
    assert all(p.grad is not None for n, p in encoder.named_parameters() if "embed_positions" not in n)


def test_whisper_rebuilds_from_the_config_that_was_filled_in(tiny_whisper_folder, make_audio):
    cfg = whisper_section(tiny_whisper_folder)
    encoder = build_encoder(cfg).eval()
    saved = OmegaConf.create(OmegaConf.to_yaml(cfg))
    saved.pretrained = "/gone"
    again = build_encoder(saved, from_config_only=True).eval()
    again.load_state_dict(encoder.state_dict())
    batch = pad([make_audio(0.7)])
    assert torch.equal(encoder(*batch)[0], again(*batch)[0])


# NeMo ----------------------------------------------------------------------------------------------------------------


def nemo_section(**options) -> DictConfig:
    return complete(sections.NeMoEncoder, options)


@torch.no_grad()
def test_fastconformer_states_do_not_depend_on_the_batch(fastconformer_config, make_audio):
    torch.manual_seed(0)
    encoder = build_encoder(nemo_section(config=fastconformer_config)).eval()
    assert isinstance(encoder, NeMoEncoder) and encoder.frame_shift == 0.08 and encoder.d_model == 32
    samples = [make_audio(seconds, seed) for seed, seconds in enumerate((0.5, 1.0, 2.503))]
    assert_batch_changes_nothing(encoder, samples, atol=1e-4)


@torch.no_grad()
def test_nemo_checkpoint_as_encoder_equals_the_model(make_fastconformer, make_audio):
    nemo_file = make_fastconformer()
    cfg = nemo_section(pretrained=str(nemo_file))
    encoder = build_encoder(cfg).eval()
    model = EncDecCTCModelBPE.restore_from(str(nemo_file), map_location="cpu").eval()
    audio, lengths = pad([make_audio(1.28)])
    features, feature_lengths = model.preprocessor(input_signal=audio, length=lengths)
    expected, (expected_length,) = model.encoder(audio_signal=features, length=feature_lengths)
    states, (length,) = encoder(audio, lengths)
    assert length == expected_length
    torch.testing.assert_close(states[0, :length], expected[0].T[:length], atol=1e-4, rtol=0)
    samples = [make_audio(seconds, seed) for seed, seconds in enumerate((0.5, 1.7))]
    assert_batch_changes_nothing(encoder, samples, atol=1e-4)


@torch.no_grad()
def test_nemo_encoder_rebuilds_from_the_config_that_was_filled_in(make_fastconformer, make_audio):
    cfg = nemo_section(pretrained=str(make_fastconformer()))
    encoder = build_encoder(cfg).eval()
    saved = OmegaConf.create(OmegaConf.to_yaml(cfg))
    saved.pretrained = "/gone.nemo"
    again = build_encoder(saved, from_config_only=True).eval()
    again.load_state_dict(encoder.state_dict())
    batch = pad([make_audio(0.7)])
    assert torch.equal(encoder(*batch)[0], again(*batch)[0])


# errors --------------------------------------------------------------------------------------------------------------


def test_neither_pretrained_nor_config():
    with pytest.raises(ValueError, match="needs `pretrained`"):
        build_encoder(nemo_section())


def test_missing_pretrained_is_named(tmp_path):
    with pytest.raises(AssetError, match="gone.nemo does not exist"):
        build_encoder(nemo_section(pretrained=str(tmp_path / "gone.nemo")))
    with pytest.raises(AssetError, match=str(tmp_path / "gone")):
        build_encoder(whisper_section(tmp_path / "gone"))


def test_filled_in_config_can_be_saved(tiny_whisper_folder):
    cfg = whisper_section(tiny_whisper_folder)
    build_encoder(cfg)
    assert json.loads(json.dumps(OmegaConf.to_container(cfg)))["config"]["model"]["d_model"] == 64

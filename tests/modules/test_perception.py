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

"""Perception as a whole: frame rate, batch invariance, masking of states."""

import pytest
import torch
from omegaconf import OmegaConf

from nemo_speechllm.modules.perception import Perception, alike
from nemo_speechllm.recipes import complete, sections


@pytest.fixture
def cfg(tiny_salm_config):
    return tiny_salm_config.model.perception


def build(cfg) -> Perception:
    torch.manual_seed(0)
    return Perception(complete(sections.Perception, cfg), torch.randn(200, 64) * 0.1)


@torch.no_grad()
@pytest.mark.parametrize("adapter", [True, False])
@pytest.mark.parametrize("trim", [True, False])
def test_embeddings_do_not_depend_on_the_batch(cfg, make_audio, adapter, trim):
    cfg.encoder.trim = trim
    if not adapter:
        cfg.adapter = None
    perception = build(cfg).eval()
    lengths = torch.tensor([4000, 16000, 11111])
    audio = torch.stack([torch.from_numpy(make_audio(2.0, seed=i)) for i in range(3)])
    for padded in (audio[:, :16000], audio):
        embeddings, embedding_lengths = perception(padded, lengths).embeddings
        assert embeddings.shape[2] == 64 and embedding_lengths.tolist() == [4, 13, 9]
        for i, length in enumerate(lengths):
            alone, _ = perception(audio[i : i + 1, :length], lengths[i : i + 1]).embeddings
            torch.testing.assert_close(
                embeddings[i, : embedding_lengths[i]], alone[0, : embedding_lengths[i]], atol=1e-5, rtol=0
            )


@pytest.mark.parametrize("factor, seconds", [(1, 0.08), (4, 0.32)])
def test_frame_shift_is_the_seconds_between_embeddings(cfg, make_audio, factor, seconds):
    cfg.adapter.update({"subsampling_factor": factor, "subsampling_conv_channels": 16})
    perception = build(cfg).eval()
    assert perception.frame_shift == pytest.approx(seconds)
    _, lengths = perception(torch.from_numpy(make_audio(8.0))[None], torch.tensor([128000])).embeddings
    assert lengths.tolist() == [round(8.0 / seconds)]


@pytest.mark.parametrize(
    "adapter, message",
    [
        ({"type": "qformer", "n_heads": 2}, "perception.stack to 1"),
        ({"type": "perceiver"}, "'perceiver'; known are"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(cfg, adapter, message):
    cfg.adapter = adapter
    with pytest.raises(ValueError, match=message):
        build(cfg)


def test_states_are_masked_in_training_only(cfg, make_audio):
    cfg.adapter = None
    cfg.state_mask = OmegaConf.create({"freq_masks": 2, "freq_width": 27, "time_masks": 2, "time_width": 0.2})
    perception = build(cfg)
    batch = torch.from_numpy(make_audio(2.0))[None], torch.tensor([32000])
    perception.eval()
    plain, _ = perception(*batch).embeddings
    assert torch.equal(plain, perception(*batch).embeddings[0])
    perception.train()
    assert not torch.allclose(plain, perception(*batch).embeddings[0])


@torch.no_grad()
def test_frames_of_a_stack_are_projected_alone_where_nothing_mixes_them(cfg, make_audio):
    cfg.stack, batch = 4, (torch.from_numpy(make_audio(2.0))[None], torch.tensor([30000]))
    mixing = build(cfg).eval()
    mixing.with_frames = True
    output = mixing(*batch)
    assert output.frames is output.embeddings
    cfg.adapter = None
    perception = build(cfg).eval()
    perception.with_frames = True
    output = perception(*batch)
    (states, lengths), (frames, frame_lengths) = output.encoded, output.frames
    assert len(output.embeddings[0][0]) < len(frames[0])
    assert frame_lengths.tolist() == lengths.tolist()
    weight, bias = perception.projection.linear.weight, perception.projection.linear.bias
    for t in (0, 5, int(lengths) - 1):
        place = t % 4 * perception.encoder.d_model
        alone = states[0, t] @ weight[:, place : place + perception.encoder.d_model].T + bias
        expected = torch.nn.functional.rms_norm(alone, alone.shape) * perception.projection.scale
        torch.testing.assert_close(frames[0, t], expected)


@torch.no_grad()
def test_unlike_audios_are_encoded_apart(cfg, make_audio):
    perception, sizes = build(cfg).eval(), []
    lengths = torch.tensor([4000, 32000, 17000, 31000, 900])
    audio = torch.stack([torch.from_numpy(make_audio(2.0, seed=i)) for i in range(5)])
    expected = perception.encoder(audio, lengths)
    perception.encoder.register_forward_hook(lambda _, given, __: sizes.append(given[0].shape))
    states = perception.encode(audio, lengths)
    assert sizes == [(2, 32000), (3, 17000)]
    for got, one_batch in zip(states, expected, strict=True):
        torch.testing.assert_close(got, one_batch, atol=1e-5, rtol=0)


def test_audios_that_are_alike():
    assert alike([20, 3, 14, 2, 1, 13]) == [[0, 2], [5], [1, 3], [4]]
    assert alike([]) == []

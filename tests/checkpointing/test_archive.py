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

"""What a checkpoint of unknown origin asks for is refused before it is built, whatever it would have cost."""

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from nemo_speechllm.checkpointing.config import ENCODER_PARTS, check_config, read_config
from nemo_speechllm.checkpointing.limits import limited_parameters
from nemo_speechllm.checkpointing.weights import load_weights

PREPROCESSOR, ENCODER = ENCODER_PARTS


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (f"{PREPROCESSOR}.frame_splicing", 2**19),
        (f"{PREPROCESSOR}.window_size", 3600.0),
        (f"{PREPROCESSOR}.window_size", 1e-9),
        (f"{PREPROCESSOR}.window_stride", 1e-7),
        (f"{PREPROCESSOR}.sample_rate", 10**6),
        (f"{PREPROCESSOR}.features", 2**19),
        (f"{PREPROCESSOR}.n_fft", 2**20),
        (f"{PREPROCESSOR}.n_fft", "many"),
        (f"{PREPROCESSOR}.pad_to", 2**20),
        (f"{PREPROCESSOR}.max_duration", 1e6),
        (f"{ENCODER}.pos_emb_max_len", 2**20),
        (f"{ENCODER}.n_layers", 10**5),
        (f"{ENCODER}.d_model", 2**40),
        ("perception.encoder.config.feature_extractor.n_fft", 2**20),
        ("perception.encoder.config.feature_extractor.feature_size", 10**5),
        ("perception.encoder.config.feature_extractor.chunk_length", 10**5),
        ("perception.encoder.config.feature_extractor.hop_length", 1),
        ("perception.encoder.config.model.max_source_positions", 10**6),
        ("perception.encoder.config.model.encoder_layers", 10**5),
        ("perception.adapter.n_queries", 10**6),
        ("perception.stack", 0),
    ],
)
def test_a_size_that_no_model_has_is_named(key, value):
    config = OmegaConf.create()
    OmegaConf.update(config, key, value, force_add=True)
    with pytest.raises(ValueError, match=f"asks for {key}: "):
        check_config(config)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(2**14, 2**14),
        lambda: torch.ones(2**28, dtype=torch.float32),
        lambda: torch.arange(0, 2**29, 2, dtype=torch.float32),
        lambda: torch.arange(2**28),
        lambda: torch.rand(2, 2**27),
        lambda: torch.full((2**28,), 3.0),
        lambda: torch.outer(torch.ones(2**14), torch.ones(2**14)),
        lambda: torch.ones(2**14, 1) * torch.ones(2**14),
        lambda: torch.ones(2**14, 1) @ torch.ones(1, 2**14),
        lambda: torch.ones(4, 2**13, 1) @ torch.ones(4, 1, 2**13),
        lambda: torch.arange(2**14)[:, None] >= torch.arange(2**14),
        lambda: torch.tril(torch.ones(2**14, 2**14)),
        lambda: torch.ones(1).repeat(2**28),
        lambda: torch.eye(2**14),
        lambda: torch.ones(2**14).expand(2**14, 2**14).contiguous(),
        lambda: nn.functional.pad(torch.ones(1), (0, 2**28)),
        lambda: torch.linspace(0, 1, 2**28),
    ],
)
def test_a_table_is_refused_before_it_is_filled(make):
    with pytest.raises(ValueError, match="far (more|larger) than its weights"), limited_parameters(10, 1):
        make()
    with limited_parameters(2**30, 1):
        assert torch.zeros(2**10).numel() == 2**10


def test_weights_are_as_large_as_what_is_stored(tmp_path):
    torch.save({"a": torch.ones(1).expand(1000, 1000)}, tmp_path / "weights.ckpt")
    with pytest.raises(ValueError, match=r"'a' of shape \(1000, 1000\), of which only 4 bytes are stored"):
        load_weights(tmp_path / "weights.ckpt")
    tied = torch.ones(4, 4)
    torch.save({"a": tied, "b": tied, "c": tied.T, "d": tied[:2]}, tmp_path / "weights.ckpt")
    assert set(load_weights(tmp_path / "weights.ckpt")) == set("abcd")


@pytest.mark.parametrize("value", ["1:1:1", "1" + ":59" * 99999, "190:20:30.15", "-1:00", "9" * 99, "0x" + "f" * 99])
def test_numbers_that_yaml_would_compute_for_long_are_refused(value, tmp_path):
    path = tmp_path / "model_config.yaml"
    path.write_text(f"a: {value}\n")
    with pytest.raises(ValueError, match="has the number"):
        read_config(path)
    path.write_text(f"a: '{value}'\nb: 12:30 o'clock\nc: sha256:{'0' * 64}\nd: 1.5e-3\n")
    assert read_config(path).a == value


@pytest.mark.parametrize(
    "target",
    [
        "torch.optim.lr_scheduler.os.system",
        "torch.optim.optimizer.torch.load",
        "torch.optim.Optimizer.__init__",
        "torch.optim.adamw.torch.hub.load",
        "torch.optim.swa_utils.AveragedModel",
        "nemo.core.optim.optimizers.hydra.utils.instantiate",
        "nemo.core.optim.lr_scheduler.AdamW",
        "torch.optim.adam.AdamW",
        "os.system",
        7,
    ],
)
def test_an_optimizer_is_one_where_it_is_defined(target):
    with pytest.raises(ValueError, match="names the class .* in optim._target_"):
        check_config(OmegaConf.create({"optim": {"_target_": target}}))


@pytest.mark.parametrize("target", ["torch.optim.AdamW", "torch.optim.sgd.SGD", "nemo.core.optim.novograd.Novograd"])
def test_optimizers_may_be_named(target):
    check_config(OmegaConf.create({"optim": {"_target_": target}}))


@pytest.mark.parametrize(
    "target",
    [
        "nemo.collections.asr.modules.conformer_encoder.torch.nn.Linear",
        "nemo.collections.asr.modules.audio_preprocessing.ConformerEncoder",
        "nemo.collections.asr.modules.rnn_encoder.torch.load",
        "nemo.collections.asr.modules.SpectrogramAugmentation",
        "nemo.collections.asr.modules.",
        ["a"],
    ],
)
def test_an_encoder_is_one_where_it_is_defined(target):
    with pytest.raises(ValueError, match="is no encoder of nemo.collections.asr.modules"):
        check_config(OmegaConf.create({"perception": {"encoder": {"config": {"encoder": {"_target_": target}}}}}))

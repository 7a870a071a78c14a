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
from omegaconf import OmegaConf

from nemo_speechllm.checkpointing.config import ENCODER_PARTS, check_config, read_config

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

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

"""Stage 1 with a teacher: the student learns from clean audio, and what is saved is NeMo's plain CTC model."""

from pathlib import Path

import pytest
import torch
from nemo.collections.asr.models import EncDecCTCModelBPE
from omegaconf import OmegaConf

from nemo_speechllm.models.taught_ctc import TaughtCTC

ROOT = Path(__file__).parents[2]


@pytest.fixture
def model(tiny_whisper_folder, ctc_tokenizer_folder, tmp_path) -> TaughtCTC:
    plain, taught = (
        OmegaConf.load(ROOT / f"conf/ctc_prompted_llm/{name}.yaml").model
        for name in ("stage1_ctc", "stage1_ctc_taught")
    )
    tiny = {
        "tokenizer": {"dir": str(ctc_tokenizer_folder)},
        "encoder": {"n_layers": 1, "d_model": 32, "subsampling_conv_channels": 8},
        "teacher": {"encoder": {"pretrained": str(tiny_whisper_folder)}, "state_cache": str(tmp_path / "states")},
        "train_ds": None,
        "validation_ds": None,
        "optim": None,
    }
    plain.validation_ds.manifest_filepath = "dev.jsonl"
    cfg = OmegaConf.create({"model": OmegaConf.merge(plain, taught, tiny)})
    OmegaConf.resolve(cfg)
    torch.manual_seed(0)
    model = TaughtCTC(cfg.model)
    model.cfg.validation_ds = plain.validation_ds  # no manifest is there that could be read
    return model


@pytest.fixture
def batch(make_audio) -> tuple:
    audio = torch.stack([torch.from_numpy(make_audio(2.0, seed=i)) for i in range(3)])
    lengths = torch.tensor([32000, 17777, 9000])
    audio *= torch.arange(32000) < lengths[:, None]
    return audio, lengths, torch.tensor([[3, 4, 5], [6, 7, 8], [9, 10, 11]]), torch.tensor([3, 2, 1])


def step(model: TaughtCTC, batch: tuple) -> dict:
    model.log = lambda *args, **kwargs: None  # no trainer is there to log to
    model._optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model._trainer = type("Trainer", (), {"log_every_n_steps": 100, "global_step": 0})()
    return model.training_step(tuple(item.clone() for item in batch), 0)


def test_the_teacher_hears_the_samples_without_dither(model, batch, tmp_path):
    assert model.preprocessor.featurizer.dither > 0 and model.training
    for _ in range(3):
        step(model, batch)
        assert len(list((tmp_path / "states").rglob("*.safetensors"))) == 3


def test_the_loss_is_ctc_and_the_weighed_teacher(model, batch):
    model.eval()
    both = step(model, batch)["loss"]
    taught = model.teach(*batch[:2])
    teaching = model.teaching_loss(*model._states, taught)
    model.cfg.teacher.weight = 0.0
    torch.testing.assert_close(both, step(model, batch)["loss"] + 40.0 * teaching)
    teaching.backward()
    learned = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert any(name.startswith("encoder.") for name in learned) and "predictor.weight" in learned
    assert not any(name.startswith("decoder.") for name in learned)


@pytest.mark.parametrize("reduction", ["mean_batch", "mean_volume"])
@pytest.mark.parametrize("texts", [["", "thank you"], ["", ""]], ids=["one of two", "all"])
def test_recordings_of_silence_are_learned(model, texts, reduction, make_manifest, make_trainer):
    manifest = make_manifest((1.0, 1.2), "train.jsonl", [{"text": text} for text in texts])
    data = {"batch_duration": None, "batch_size": 2, "use_bucketing": False, "num_workers": 0, "min_duration": 0.1}
    recipe = OmegaConf.load(ROOT / "conf/ctc_prompted_llm/stage1_ctc.yaml").model
    train_ds = OmegaConf.merge(recipe.train_ds, data, {"manifest_filepath": str(manifest)})
    changes = {"ctc_reduction": reduction, "train_ds": train_ds, "validation_ds": None, "optim": recipe.optim}
    trainer = make_trainer(max_steps=2)  # which stops for a loss or gradient that is not finite
    trainer.fit(TaughtCTC(OmegaConf.merge(model.cfg, changes), trainer))
    assert trainer.global_step == 2


def test_a_state_is_taught_by_the_frames_of_its_80_ms(model, batch):
    assert model.taught_per_state == 4
    states, lengths = model._teacher[0](*batch[:2])
    taught = model.teach(*batch[:2])
    torch.testing.assert_close(taught[0, 3], states[0, 12:16].mean(0))
    assert taught.shape[1] == -(-int(lengths.max()) // 4)


def test_padding_teaches_nothing(model, batch):
    model.eval()
    step(model, batch)
    states, lengths = model._states
    taught = model.teach(*batch[:2])
    expected = model.teaching_loss(states, lengths, taught)
    for i, length in enumerate(lengths.tolist()):
        states[i, :, length:] = 9.0
        taught[i, length:] = 9.0
    torch.testing.assert_close(model.teaching_loss(states, lengths, taught), expected)


def test_a_lightning_checkpoint_is_read_with_torch_s_safe_default(model, tmp_path):
    checkpoint = {"state_dict": model.state_dict(), "global_step": 3}
    model.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "last.ckpt")
    read = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert "predictor.weight" in read["state_dict"] and "rng_states" in read


def test_what_is_saved_is_nemo_s_plain_model(model, batch, tmp_path):
    model.save_to(str(tmp_path / "stage1.nemo"))
    plain = EncDecCTCModelBPE.restore_from(tmp_path / "stage1.nemo").eval()
    assert type(plain) is EncDecCTCModelBPE and "teacher" not in plain.cfg
    assert not any(name.startswith(("predictor", "target_norm")) for name in plain.state_dict())
    model.eval()
    with torch.no_grad():
        for read in (model, plain):
            read.preprocessor.featurizer.dither = 0.0
        expected = model(input_signal=batch[0].clone(), input_signal_length=batch[1])
        torch.testing.assert_close(plain(input_signal=batch[0].clone(), input_signal_length=batch[1])[0], expected[0])
    assert len(plain.transcribe([batch[0][0].numpy()], verbose=False)) == 1

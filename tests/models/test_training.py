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

import os
import signal
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from nemo.collections.asr.models import ASRModel
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nemo_speechllm.models import SALM
from nemo_speechllm.training.sharding import skip_batches
from tests.tiny_models import salm_of

ROOT = Path(__file__).parents[2]

# examples/train.py, in a process that is killed, as by the machine, in the middle of its ninth step
KILLED_TRAINING = """
import os, runpy, signal, sys
from nemo_speechllm.models import SALM

training_step = SALM.training_step

def killed_training_step(self, batch, batch_idx):
    if self.trainer.global_step == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    return training_step(self, batch, batch_idx)

SALM.training_step = killed_training_step
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class TestFit:
    def test_a_frozen_encoder_stays_in_eval_mode_and_as_it_is(self, recipe, make_trainer):
        modes = []

        class Watch(pl.Callback):
            def on_train_batch_start(self, trainer, model, batch, batch_idx):
                modes.append((model.training, model.perception.encoder.training, model.perception.adapter.training))

        trainer = make_trainer(callbacks=[Watch()], val_check_interval=1, check_val_every_n_epoch=None)
        model = salm_of(recipe, trainer)
        before = {name: value.clone() for name, value in torch.nn.Module.state_dict(model).items()}
        trainer.fit(model)
        assert modes == [(True, False, True)] * 2
        changed = {n for n, value in torch.nn.Module.state_dict(model).items() if not torch.equal(value, before[n])}
        assert not [name for name in changed if name.startswith("perception.encoder.")]
        assert {name for name in changed if name.startswith("llm.")} <= {n for n in before if ".lora_" in n}
        assert any(name.startswith("perception.adapter.") for name in changed)

    def test_a_nemo_encoder_trains_in_the_same_recipe(self, recipe, make_fastconformer, make_trainer):
        encoder = {"type": "nemo", "pretrained": str(make_fastconformer())}
        trainer = make_trainer(val_check_interval=2, check_val_every_n_epoch=None)
        model = salm_of(
            recipe,
            trainer,
            perception={"encoder": encoder, "stack": 1},
            freeze_params=["^llm\\.(?!.*lora_)"],
        )
        before = model.perception.encoder.state_dict()["encoder.pre_encode.out.weight"].clone()
        trainer.fit(model)
        assert not torch.equal(before, model.perception.encoder.state_dict()["encoder.pre_encode.out.weight"])


class TestDataOrder:
    @staticmethod
    def texts(model: SALM) -> list[list[str]]:
        return [[c.metadata["text"] for c in batch.conversations] for batch in model.train_dataloader()]

    @pytest.mark.parametrize("bucketing", [False, True])
    def test_skipped_batches_are_the_first(self, recipe, bucketing):
        data = {"use_bucketing": bucketing, "num_buckets": 2, "batch_size": 1}
        model = salm_of(recipe, None, train_ds=data)
        model.setup_training_data(model.cfg.train_ds)
        for epoch in (0, 3):
            model.train_dataloader().sampler.set_epoch(epoch)
            expected = self.texts(model)
            model.setup_training_data(model.cfg.train_ds)
            skip_batches(model.train_dataloader(), epoch, [(1, 1)])
            assert self.texts(model) == expected[1:]

    def test_a_finished_pass_has_nothing_left(self, recipe):
        model = salm_of(recipe, None)
        model.setup_training_data(model.cfg.train_ds)
        skip_batches(model.train_dataloader(), epoch=0, shares=[(1, 2)])
        assert self.texts(model) == []
        assert len(self.texts(model)) == 2  # the pass after it is whole


class TestScript:
    """``examples/train.py`` as a user runs it: a process of its own."""

    @pytest.fixture
    def command(self, recipe, tmp_path):
        model = recipe.model

        def make(run: str) -> list[str]:
            overrides = {
                "model.llm.pretrained": model.llm.pretrained,
                "model.perception.encoder.pretrained": model.perception.encoder.pretrained,
                "model.perception.adapter.n_layers": 1,
                "model.perception.adapter.d_model": 32,
                "model.lora.dropout": 0.1,
                "model.generation.max_new_tokens": 4,
                "model.train_ds.manifest_filepath": model.train_ds.manifest_filepath,
                "model.train_ds.batch_size": 1,
                "model.train_ds.num_workers": 0,
                "model.train_ds.num_buckets": 2,
                "model.validation_ds.manifest_filepath": model.validation_ds.manifest_filepath,
                "trainer.accelerator": "cpu",
                "trainer.max_steps": 12,
                "trainer.val_check_interval": 6,
                "trainer.log_every_n_steps": 1,
                "exp_manager.exp_dir": tmp_path / run,
            }
            settings = [f"{name}={value}" for name, value in overrides.items()]
            return [str(ROOT / "examples/train.py"), "--config-name=salm/whisper_smollm2", *settings]

        return make

    @staticmethod
    def run(arguments: list[str]) -> subprocess.CompletedProcess:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)

    @staticmethod
    def logged(folder: Path, name: str) -> dict[int, float]:
        """What all event files below a folder say of a scalar, by step; a later one wins."""
        values = {}
        for file in sorted(folder.rglob("events.out.*"), key=lambda path: path.stat().st_mtime):
            events = EventAccumulator(str(file)).Reload()
            if name in events.Tags()["scalars"]:
                values |= {event.step: event.value for event in events.Scalars(name)}
        return values

    @pytest.mark.slow
    def test_a_killed_run_goes_on_as_if_nothing_had_happened(self, command, tmp_path, make_audio):
        whole = self.run(command("whole"))
        assert whole.returncode == 0, whole.stderr
        losses = self.logged(tmp_path / "whole", "train_loss")
        assert len(losses) == 12
        assert self.logged(tmp_path / "whole", "val_wer").keys() == {5, 11}

        (checkpoint,) = (tmp_path / "whole").rglob("*.nemo")
        model = ASRModel.restore_from(str(checkpoint))
        assert isinstance(model, SALM)
        assert len(model.transcribe(make_audio(1.0), verbose=False)) == 1

        (tmp_path / "kill.py").write_text(KILLED_TRAINING)
        killed = self.run([str(tmp_path / "kill.py"), *command("killed")])
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert not list((tmp_path / "killed").rglob("*.nemo"))
        for checkpoint in (tmp_path / "killed").rglob("*.ckpt"):
            torch.load(checkpoint, weights_only=True)
        resumed = self.run(command("killed"))
        assert resumed.returncode == 0, resumed.stderr
        again = self.logged(tmp_path / "killed", "train_loss")
        assert [again[step] for step in range(6, 12)] == pytest.approx(
            [losses[step] for step in range(6, 12)], rel=1e-6
        )
        assert list((tmp_path / "killed").rglob("*.nemo"))
        other = self.run([*command("killed"), "model.optim.lr=1e-2"])
        assert other.returncode != 0 and "model.optim.lr" in other.stderr

    @pytest.mark.slow
    def test_a_missing_manifest_is_named(self, command):
        result = self.run([*command("missing"), "model.train_ds.manifest_filepath=/nowhere/train.jsonl"])
        assert result.returncode != 0
        assert "/nowhere/train.jsonl" in result.stderr

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
from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from nemo.collections.asr.models import ASRModel
from nemo.utils.exp_manager import exp_manager
from omegaconf import DictConfig, OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nemo_speechllm.checkpointing.errors import CheckpointError
from nemo_speechllm.models import SALM
from nemo_speechllm.training.resume import skip_batches
from nemo_speechllm.training.run_folder import claim_run_folder, find_resume_point

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


@pytest.fixture
def recipe(tiny_salm_config: DictConfig, make_manifest) -> DictConfig:
    """The tiny recipe with a validation set of a name that NeMo accepts."""
    tiny_salm_config.model.validation_ds.manifest_filepath = str(make_manifest((0.5, 0.7, 0.6), "dev.jsonl"))
    return tiny_salm_config


def make_model(cfg, trainer, **changes) -> SALM:
    """The model as ``examples/train.py`` makes it, with its data."""
    torch.manual_seed(0)
    return SALM(OmegaConf.merge(cfg.model, changes), trainer)


class TestFit:
    def test_validation_logs_loss_and_error_rates(self, recipe, make_trainer):
        trainer = make_trainer(val_check_interval=2, check_val_every_n_epoch=None)
        trainer.fit(make_model(recipe, trainer))
        metrics = trainer.logged_metrics
        assert {"val_loss", "val_wer", "val_cer", "train_loss", "train_lm_loss", "train_ctc_loss"} <= set(metrics)
        assert metrics["val_wer"] > 0
        assert torch.isfinite(metrics["val_loss"])

    @pytest.mark.parametrize("by_language", [False, True], ids=["one set", "a set per language"])
    def test_validation_of_several_languages_logs_each_and_their_mean(
        self, by_language, recipe, make_manifest, make_trainer
    ):
        if by_language:
            manifests = [str(make_manifest((0.5, 0.7), f"{lang}.jsonl", lang=lang)) for lang in ("en", "fr")]
        else:
            rows = [{"lang": "en"}, {"lang": "fr"}, {"lang": "en"}]
            manifests = str(make_manifest((0.5, 0.7, 0.6), "mixed.jsonl", rows))
        recipe.model.validation_ds.manifest_filepath = manifests
        trainer = make_trainer(val_check_interval=2, check_val_every_n_epoch=None)
        trainer.fit(make_model(recipe, trainer))
        metrics = trainer.logged_metrics
        for rate in ("val_wer", "val_cer"):
            mean = (metrics[f"{rate}_en"] + metrics[f"{rate}_fr"]) / 2
            assert metrics[f"{rate}_macro"] == pytest.approx(float(mean))

    def test_validation_scores_translations_by_direction(self, recipe, make_manifest, make_trainer):
        rows = [{}, {"target_lang": "es", "answer": "hola"}, {"target_lang": "fr", "answer": "bonjour"}]
        recipe.model.validation_ds.manifest_filepath = str(make_manifest((0.5, 0.7, 0.6), "mixed.jsonl", rows))
        trainer = make_trainer(val_check_interval=2, check_val_every_n_epoch=None)
        trainer.fit(make_model(recipe, trainer))
        metrics = trainer.logged_metrics
        for name in ("val_bleu", "val_chrf"):
            mean = (metrics[f"{name}_en-es"] + metrics[f"{name}_en-fr"]) / 2
            assert metrics[name] == pytest.approx(float(mean))

    def test_words_are_counted_by_the_rules_of_the_language_they_are_written_in(
        self, recipe, make_manifest, make_trainer
    ):
        rows = [{"text": "um uh"}, {"text": "um acht", "lang": "de"}, {"target_lang": "de", "answer": "um die"}]
        recipe.model.validation_ds.manifest_filepath = str(make_manifest((0.5, 0.7, 0.6), "mixed.jsonl", rows))
        trainer = make_trainer()
        model = make_model(recipe, trainer)
        model.setup_validation_data(model.cfg.validation_ds)
        for batch in model._validation_dl:
            model.validation_step(batch, 0)
        words = model._validation_tallies[0].words
        assert {language: counts.reference for language, counts in words.items()} == {"en": 0, "de": 4}

    def test_a_score_that_could_not_be_computed_is_refused_before_the_first_step(
        self, recipe, make_manifest, make_trainer, monkeypatch
    ):
        monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_ja_mecab.MeCab", None)
        rows = [{}, {"target_lang": "ja-JP", "answer": "こんにちは"}]
        recipe.model.validation_ds.manifest_filepath = str(make_manifest((0.5, 0.7), "ja.jsonl", rows))
        trainer = make_trainer(val_check_interval=2, check_val_every_n_epoch=None)
        with pytest.raises(ValueError, match=r"translations into ja-JP .*pip install 'sacrebleu\[ja\]'"):
            trainer.fit(make_model(recipe, trainer))
        assert trainer.global_step == 0
        recipe.model.normalizer = "german"
        with pytest.raises(ValueError, match="model.normalizer is 'german'; it must be one of auto, english"):
            trainer.fit(make_model(recipe, trainer))

    def test_several_validation_sets_have_names_of_their_own(self, recipe, make_manifest, make_trainer):
        recipe.model.validation_ds.manifest_filepath = [
            str(make_manifest((0.5, 0.7), "first.jsonl")),
            str(make_manifest((0.6,), "second.jsonl")),
        ]
        trainer = make_trainer(val_check_interval=2, check_val_every_n_epoch=None)
        trainer.fit(make_model(recipe, trainer))
        names = [name for name in trainer.logged_metrics if name.endswith("val_wer")]
        assert len(names) == 3 and "val_wer" in names
        assert any("first" in name for name in names) and any("second" in name for name in names)

    def test_a_frozen_encoder_stays_in_eval_mode_and_as_it_is(self, recipe, make_trainer):
        modes = []

        class Watch(pl.Callback):
            def on_train_batch_start(self, trainer, model, batch, batch_idx):
                modes.append((model.training, model.perception.encoder.training, model.perception.adapter.training))

        trainer = make_trainer(callbacks=[Watch()], val_check_interval=1, check_val_every_n_epoch=None)
        model = make_model(recipe, trainer)
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
        model = make_model(
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
        model = make_model(recipe, None, train_ds=data)
        model.setup_training_data(model.cfg.train_ds)
        for epoch in (0, 3):
            model.train_dataloader().sampler.set_epoch(epoch)
            expected = self.texts(model)
            model.setup_training_data(model.cfg.train_ds)
            skip_batches(model.train_dataloader(), epoch, batches=1)
            assert self.texts(model) == expected[1:]

    def test_a_finished_pass_has_nothing_left(self, recipe):
        model = make_model(recipe, None)
        model.setup_training_data(model.cfg.train_ds)
        skip_batches(model.train_dataloader(), epoch=0, batches=2)
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

    def test_a_missing_manifest_is_named(self, command):
        result = self.run([*command("missing"), "model.train_ds.manifest_filepath=/nowhere/train.jsonl"])
        assert result.returncode != 0
        assert "/nowhere/train.jsonl" in result.stderr


class TestResumePoint:
    """What a kill at each moment of writing the checkpoints leaves behind, and what NeMo then resumes from."""

    @pytest.fixture
    def resumed_from(self, tmp_path, make_trainer) -> Callable[..., str | None]:
        """``resumed_from(*names)`` → name of the checkpoint taken, of a folder that holds ``names``, oldest first."""

        def resume(*names: str) -> str | None:
            folder = tmp_path / "run" / "checkpoints"
            folder.mkdir(parents=True)
            for age, name in enumerate(names):
                if name.endswith(".damaged"):
                    name = name.removesuffix(".damaged")
                    (folder / name).write_bytes(b"")
                else:
                    torch.save({"state_dict": {}}, folder / name)
                os.utime(folder / name, (age, age))
            cfg = OmegaConf.create({"exp_dir": str(tmp_path), "name": "run", "resume_if_exists": True})
            cfg.update({"resume_ignore_no_checkpoint": True, "create_tensorboard_logger": False})
            trainer = make_trainer()
            find_resume_point(trainer, cfg)
            exp_manager(trainer, cfg)
            return trainer.ckpt_path and Path(trainer.ckpt_path).name

        return resume

    def test_nothing_was_written(self, resumed_from):
        assert resumed_from() is None

    def test_the_first_checkpoint_was_being_written(self, resumed_from):
        assert resumed_from("wer=9.ckpt", "wer=9-unfinished") is None

    @pytest.mark.parametrize("partial", [(), ("wer=9-last.ckpt",)])
    def test_the_first_last_checkpoint_was_being_written(self, resumed_from, partial):
        assert resumed_from("wer=9.ckpt", "wer=9-last-unfinished", *partial) == "wer=9.ckpt"

    def test_a_later_checkpoint_was_being_written(self, resumed_from):
        first = ("wer=9.ckpt", "wer=9-last.ckpt")
        assert resumed_from(*first, "wer=8-unfinished", "wer=8.ckpt") == "wer=9-last.ckpt"

    def test_a_later_last_checkpoint_was_being_written(self, resumed_from):
        names = ("wer=9-last.ckpt", "wer=8.ckpt", "wer=8-last-unfinished", "wer=8-last.ckpt")
        assert resumed_from(*names) == "wer=9-last.ckpt"

    def test_the_outdated_last_checkpoint_was_not_yet_removed(self, resumed_from):
        assert resumed_from("wer=9-last.ckpt", "wer=8.ckpt", "wer=8-last.ckpt") == "wer=8-last.ckpt"

    @pytest.mark.parametrize("names", [("wer=9.ckpt",), ("wer=9-last.ckpt", "wer=8.ckpt.damaged")])
    def test_a_damaged_last_checkpoint_leaves_the_whole_one_beside_it(self, names, resumed_from, tmp_path, caplog):
        assert resumed_from(*names, "wer=8-last.ckpt.damaged") == names[0]
        assert (tmp_path / "run" / "checkpoints" / "wer=8-last.ckpt.damaged").exists()
        assert "wer=8-last.ckpt is not a whole .ckpt file" in (said := caplog.text) and names[0] in said

    def test_no_whole_checkpoint_is_an_error(self, resumed_from):
        with pytest.raises(
            CheckpointError, match="no whole checkpoint to resume from.*wer=8-last.ckpt.*remove the folder"
        ):
            resumed_from("wer=8.ckpt.damaged", "wer=8-last.ckpt.damaged")


def test_a_run_folder_belongs_to_one_recipe_and_one_state_of_its_data(tmp_path):
    manifest = tmp_path / "train.jsonl"
    manifest.write_text("{}\n")
    cfg = OmegaConf.create({"train_ds": {"manifest_filepath": str(manifest)}, "optim": {"lr": 1e-3}})
    changed = OmegaConf.merge(cfg, {"optim": {"lr": 1e-4}})
    named = OmegaConf.merge(cfg, {"non_finite": "stop"})  # a key that the recipe did not have yet
    claim_run_folder(tmp_path / "run", changed)
    claim_run_folder(tmp_path / "run", cfg)  # the first try ended before it saved anything
    (tmp_path / "run" / "wer=9-last.ckpt").touch()
    claim_run_folder(tmp_path / "run", cfg)  # resumed
    claim_run_folder(tmp_path / "run", named)
    with pytest.raises(ValueError, match=r"differs in \['model.optim.lr'\].*name="):
        claim_run_folder(tmp_path / "run", changed)
    manifest.write_text('{"text": "corrected"}\n')
    with pytest.raises(ValueError, match="content of"):
        claim_run_folder(tmp_path / "run", cfg)

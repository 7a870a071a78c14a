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

"""A loss, gradient or weight that is no number is named with its batch, and nothing is written from it."""

from dataclasses import replace

import lightning.pytorch as pl
import pytest
import torch
from omegaconf import OmegaConf

from nemo_speechllm.models import SALM
from nemo_speechllm.training.non_finite import NonFiniteError, judge_validation, replay


@pytest.fixture
def make(tiny_salm_config, make_manifest, make_trainer, tmp_path):
    """``make(policy, **options)`` → trainer and model; four utterances in two batches."""

    for name in ("train", "validation"):
        tiny_salm_config.model[f"{name}_ds"].manifest_filepath = str(make_manifest(name=f"{name}.jsonl"))

    def build(policy: str | None = None, **options) -> tuple[pl.Trainer, SALM]:
        trainer = make_trainer(**{"default_root_dir": tmp_path, "max_steps": 6, "limit_val_batches": 0} | options)
        changes = {"non_finite": policy} if policy else {}
        torch.manual_seed(0)
        return trainer, SALM(OmegaConf.merge(tiny_salm_config.model, changes), trainer)

    return build


def spoil(model: SALM, name: str) -> None:
    """Makes the audio of one utterance infinitely loud, as a transform of the recipe would."""

    def transform(batch, epoch):
        spoilt = any(name in conversation.id for conversation in batch.conversations)
        return replace(batch, audio=batch.audio * torch.inf) if spoilt else batch

    setup = model.setup_training_data

    def setup_training_data(cfg):
        setup(cfg)
        model._transforms.append(transform)

    model.setup_training_data = setup_training_data


def test_a_loss_that_is_no_number_stops_the_training_and_can_be_replayed(make, make_salm, tmp_path):
    trainer, model = make()
    spoil(model, "train-1")
    with pytest.raises(NonFiniteError, match=r"step \d.*loss is nan.*train-1.*rank=0\.pt.*model.optim.lr"):
        trainer.fit(model)
    (path,) = (tmp_path / "non_finite").iterdir()
    again = make_salm()
    (figures,) = replay(again, path)
    assert figures["loss"] == pytest.approx(figures["loss"]), "the row is fine: what spoilt it was the transform"
    again._transforms = model._transforms
    (figures,) = replay(again, path)
    assert figures["loss"] != figures["loss"] and figures["lm_loss"] != figures["lm_loss"]


def test_a_gradient_that_is_no_number_stops_the_training(make, tmp_path):
    trainer, model = make(accumulate_grad_batches=2)
    model.perception.projection.linear.weight.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(NonFiniteError, match=r"gradients of .*perception.projection.linear.weight.*train-"):
        trainer.fit(model)
    (path,) = (tmp_path / "non_finite").iterdir()
    assert len(torch.load(path, weights_only=True)["batches"]) == 2


def test_a_step_is_skipped_by_policy(make):
    trainer, model = make("skip")
    spoil(model, "train-1")
    trainer.fit(model)
    assert trainer.global_step == 6
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    guard = next(callback for callback in trainer.callbacks if hasattr(callback, "skipped"))
    assert guard.skipped == 3


def test_weights_that_are_lost_are_not_skipped_for_ever_and_not_written(make, tmp_path):
    trainer, model = make("skip", max_steps=50)
    with torch.no_grad():
        model.perception.projection.linear.weight.fill_(torch.nan)
    with pytest.raises(NonFiniteError, match="10th in a row"):
        trainer.fit(model)
    with pytest.raises(NonFiniteError, match=r"model.nemo is not written.*perception.projection.linear.weight"):
        model.save_to(tmp_path / "model.nemo")
    with pytest.raises(NonFiniteError, match="checkpoint is not written"):
        trainer.save_checkpoint(tmp_path / "last.ckpt")
    assert not (tmp_path / "model.nemo").exists() and not (tmp_path / "last.ckpt").exists()


def test_a_training_that_skips_all_of_its_steps_is_an_error_and_writes_nothing(make, tmp_path):
    last = tmp_path / "last.ckpt"
    trainer, model = make("skip", max_steps=4)
    spoil(model, "train-")
    model.on_train_batch_end = lambda *_: trainer.save_checkpoint(last)
    with pytest.raises(NonFiniteError, match="skipped every one of its 4 steps.*no model is written"):
        trainer.fit(model)
    trainer, model = make("skip", max_steps=4)
    with pytest.raises(NonFiniteError, match="skipped every one of its 4 steps"):  # resumed with no step left
        trainer.fit(model, ckpt_path=last)
    trainer, model = make("skip", max_steps=5)
    trainer.fit(model, ckpt_path=last)
    assert trainer.global_step == 5


@pytest.mark.parametrize(("others", "said"), [(1, "mean of the others"), (0, "no other has one: it is NaN")])
def test_a_validation_without_a_finite_loss_has_no_mean(others, said, nemo_log):
    judge_validation(["a"], others, "skip")
    assert said in nemo_log.text


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_a_validation_loss_that_is_no_number_is_named(policy, make):
    trainer, model = make(policy, limit_val_batches=1.0)
    model.setup_validation_data(model.cfg.validation_ds)
    loss, spoilt = model.loss, []

    def sometimes_nan(batch, *known):
        losses = loss(batch, *known)
        if any("validation-2" in conversation.id for conversation in batch.conversations):
            spoilt.append(len(batch.conversations))
            losses["loss"] = losses["loss"] * torch.nan
        return losses

    model.loss = sometimes_nan
    if policy == "stop":
        with pytest.raises(NonFiniteError, match="validation loss of 2 utterances.*validation-2"):
            trainer.validate(model, verbose=False)
    else:
        (figures,) = trainer.validate(model, verbose=False)
        assert figures["val_loss"] > 0
    assert spoilt == [2]


def test_an_unknown_policy_is_refused(make):
    with pytest.raises(ValueError, match="model.non_finite is 'ignore'; it must be one of stop, skip"):
        make("ignore")

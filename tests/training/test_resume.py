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

"""A resumed training has, to the last bit, the losses that it would have had without the interruption."""

from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from nemo.collections.asr.models import ASRModel, EncDecCTCModelBPE
from omegaconf import OmegaConf

from nemo_speechllm.models import SALM
from nemo_speechllm.training.resume import resumable

ROOT = Path(__file__).parents[2]
TINY_ENCODER = {"n_layers": 1, "d_model": 32, "n_heads": 4, "subsampling_conv_channels": 8, "ff_expansion_factor": 2}
STEPS = 10  # of three in an epoch


class Diary(pl.Callback):
    """Notes every step's loss; writes a checkpoint at the end of every step, validation and epoch."""

    def __init__(self, folder: Path | None = None):
        self.folder, self.losses = folder, {}

    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx):
        self.losses.setdefault(trainer.fit_loop.epoch_loop.total_batch_idx, float(outputs["loss"]))
        self._save(trainer, "step")

    def on_validation_end(self, trainer, model):
        self._save(trainer, "validation")

    def on_train_epoch_end(self, trainer, model):
        self._save(trainer, "epoch")

    def _save(self, trainer, moment: str) -> None:
        if self.folder is not None:
            name = f"{moment}={trainer.fit_loop.epoch_loop.total_batch_idx + 1}.ckpt"
            trainer.save_checkpoint(self.folder / name)


@pytest.fixture
def train(tiny_salm_config, make_manifest, make_trainer) -> Callable[..., dict[int, float]]:
    """``train(checkpoint=None, folder=None, num_workers=0, **options)`` → losses by batch; dropout makes each step's
    depend on chance."""
    tiny_salm_config.model.train_ds.manifest_filepath = str(
        make_manifest((0.5, 0.7, 0.6, 0.8, 0.9, 0.4), "train.jsonl")
    )
    tiny_salm_config.model.validation_ds.manifest_filepath = str(make_manifest((0.5, 0.7), "dev.jsonl"))

    def run(checkpoint=None, folder=None, num_workers: int = 0, **options) -> dict[int, float]:
        diary = Diary(folder)
        defaults = {"max_steps": STEPS, "val_check_interval": 2, "check_val_every_n_epoch": None}
        trainer = make_trainer(callbacks=[diary], **defaults | options)
        pl.seed_everything(0 if checkpoint is None else 99)
        workers = {name: {"num_workers": num_workers} for name in ("train_ds", "validation_ds")}
        changes = {"lora": {"dropout": 0.1}, "generation": {"max_new_tokens": 2}, **workers}
        if "max_epochs" in options:  # NeMo cannot count the steps of an epoch
            changes |= {"optim": {"sched": {"max_steps": STEPS}}}
        trainer.fit(SALM(OmegaConf.merge(tiny_salm_config.model, changes), trainer), ckpt_path=checkpoint)
        return diary.losses

    return run


@pytest.mark.parametrize(
    ("settings", "moments"),
    [
        ({}, ("step=1", "step=3", "validation=6", "epoch=3", "step=6", "epoch=6", "step=7")),
        ({"num_workers": 2}, ("step=3", "validation=6", "step=4")),
        (
            {"max_steps": -1, "max_epochs": 3, "val_check_interval": None, "check_val_every_n_epoch": 1},
            ("validation=3", "epoch=6", "step=4"),
        ),
        ({"max_steps": 4, "accumulate_grad_batches": 2}, ("step=1", "validation=2", "step=3", "epoch=3", "step=4")),
    ],
    ids=["steps", "workers", "epochs", "accumulation"],
)
def test_every_moment_is_resumed_exactly(settings, moments, train, tmp_path):
    losses = train(folder=tmp_path, **settings)
    assert len(set(losses.values())) == len(losses) >= 6
    for moment in moments:
        done = int(moment.split("=")[1])
        again = train(tmp_path / f"{moment}.ckpt", **settings)
        assert again == {step: loss for step, loss in losses.items() if step >= done}, moment


def test_a_checkpoint_of_an_older_release_is_resumed(train, tmp_path):
    losses = train(folder=tmp_path)
    checkpoint = torch.load(tmp_path / "step=4.ckpt", weights_only=True)
    checkpoint["rng_states"] = checkpoint["rng_states"][0]
    torch.save(checkpoint, tmp_path / "old.ckpt")
    assert train(tmp_path / "old.ckpt") == {step: loss for step, loss in losses.items() if step >= 4}


def test_a_model_of_nemos_own_is_resumed_as_exactly(ctc_tokenizer_folder, make_manifest, make_trainer, tmp_path):
    recipe = OmegaConf.load(ROOT / "conf/ctc_prompted_llm/stage1_ctc.yaml")
    data = {"batch_duration": None, "batch_size": 2, "use_bucketing": False, "num_workers": 0, "min_duration": 0.1}
    changes = {"tokenizer": {"dir": str(ctc_tokenizer_folder)}, "encoder": TINY_ENCODER}
    for name in ("train", "validation"):
        manifest = make_manifest((0.5, 0.7, 0.6, 0.8), f"{name}.jsonl", text="thank you")
        changes[f"{name}_ds"] = data | {"manifest_filepath": str(manifest)}
    recipe.model = OmegaConf.merge(recipe.model, changes)
    OmegaConf.resolve(recipe)
    resumable_class = resumable(EncDecCTCModelBPE)

    def train(checkpoint: Path | None = None) -> dict[int, float]:
        diary = Diary(tmp_path if checkpoint is None else None)
        trainer = make_trainer(callbacks=[diary], max_steps=5, val_check_interval=2, check_val_every_n_epoch=None)
        pl.seed_everything(0 if checkpoint is None else 99)
        model = resumable_class(recipe.model, trainer)
        trainer.fit(model, ckpt_path=checkpoint)
        model.save_to(tmp_path / "stage1.nemo")
        return diary.losses

    losses = train()
    assert train(tmp_path / "step=3.ckpt") == {step: loss for step, loss in losses.items() if step >= 3}
    assert type(ASRModel.restore_from(str(tmp_path / "stage1.nemo"))) is EncDecCTCModelBPE


def test_a_strategy_whose_checkpoints_are_others_is_refused(tiny_salm_config, make_trainer):
    from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy

    from nemo_speechllm.training.resume import check_strategy

    for strategy in (FSDPStrategy, ModelParallelStrategy, DeepSpeedStrategy):
        with pytest.raises(ValueError, match=f"{strategy.__name__}, which is not supported.*trainer=fsdp2"):
            check_strategy(strategy.__new__(strategy))  # what it is made of is not installed everywhere
    trainer = make_trainer(strategy=ModelParallelStrategy(data_parallel_size=1, tensor_parallel_size=1))
    with pytest.raises(ValueError, match="ModelParallelStrategy, which is not supported"):
        trainer.fit(SALM(tiny_salm_config.model, trainer))
    torch.distributed.destroy_process_group()  # which later tests' processes would inherit

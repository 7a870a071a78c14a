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

"""What is done with a checkpoint before a model is built of it: whole, of the class, without its data."""

import os
import tarfile

import pytest
from omegaconf import OmegaConf

from nemo_speechllm.checkpointing.errors import CheckpointError
from nemo_speechllm.models import SALM


class TestBadFiles:
    def test_missing(self, tmp_path):
        with pytest.raises(CheckpointError, match="gone.nemo does not exist"):
            SALM.restore_from(tmp_path / "gone.nemo")

    @pytest.mark.parametrize("part", [0.0, 0.00005, 0.1, 0.5, 0.9, 0.99])
    def test_cut_off(self, salm, tmp_path, part):
        salm.save_to(tmp_path / "m.nemo")
        os.truncate(tmp_path / "m.nemo", int((tmp_path / "m.nemo").stat().st_size * part))
        with pytest.raises(CheckpointError, match="m.nemo is not a whole .nemo file"):
            SALM.restore_from(tmp_path / "m.nemo")

    def test_not_an_archive(self, tmp_path):
        (tmp_path / "m.nemo").write_text("hello " * 1000)
        with pytest.raises(CheckpointError, match="m.nemo is not a whole .nemo file"):
            SALM.restore_from(tmp_path / "m.nemo")

    def test_another_model_class(self, make_fastconformer):
        with pytest.raises(CheckpointError, match=r"tiny\.nemo holds a nemo\.collections\.asr.*not a SALM"):
            SALM.restore_from(make_fastconformer())


class TestData:
    """What a checkpoint says of data is not read; what the caller gives is."""

    @pytest.fixture
    def restored(self, make_salm, tmp_path) -> SALM:
        make_salm().save_to(tmp_path / "m.nemo")
        with tarfile.open(tmp_path / "m.nemo") as archive:
            assert b"manifest.jsonl" in archive.extractfile("./model_config.yaml").read()
        return SALM.restore_from(tmp_path / "m.nemo")

    @pytest.mark.parametrize(("method", "kind"), [("fit", "training"), ("validate", "validation")])
    def test_a_restored_model_has_none(self, restored, make_trainer, method, kind):
        assert not restored.cfg.train_ds and not restored.cfg.validation_ds
        with pytest.raises(ValueError, match=f"SALM has no {kind} data.*model.setup_{kind}_data.*dataloaders"):
            getattr(make_trainer(), method)(restored)

    def test_the_caller_s_are_read(self, restored, make_trainer, tiny_salm_config):
        restored.setup_validation_data(tiny_salm_config.model.validation_ds)
        trainer = make_trainer()
        (metrics,) = trainer.validate(restored, verbose=False)
        assert metrics["val_loss"] > 0

    @pytest.mark.parametrize("kind", ["train", "validation", "test"])
    def test_the_caller_s_may_be_a_plain_mapping(self, restored, tiny_salm_config, kind):
        section = OmegaConf.to_container(tiny_salm_config.model.validation_ds, resolve=True)
        getattr(restored, f"setup_{kind.replace('train', 'training')}_data")(section)
        batches = list(getattr(restored, f"_{kind}_dl"))
        assert sum(len(batch.conversations) for batch in batches) > 0
        assert restored.cfg[f"{kind}_ds"].manifest_filepath == section["manifest_filepath"]

    def test_the_caller_s_dataloaders_are_read(self, restored, make_trainer, tiny_salm_config):
        dataloader = restored._setup_dataloader_from_config(tiny_salm_config.model.validation_ds)
        restored.setup_optimization(tiny_salm_config.model.optim)
        trainer = make_trainer(max_steps=1)
        trainer.fit(restored, train_dataloaders=dataloader)
        assert trainer.global_step == 1
        (metrics,) = make_trainer().validate(restored, dataloaders=dataloader, verbose=False)
        assert metrics["val_loss"] > 0

    def test_a_config_alone_has_none_either(self, restored, tmp_path):
        config = SALM.restore_from(tmp_path / "m.nemo", return_config=True)
        assert config.train_ds is None and config.validation_ds is None

    def test_nor_has_a_lightning_checkpoint(self, make_salm, make_trainer, tmp_path):
        trainer = make_trainer()
        trainer.strategy.connect(make_salm())
        trainer.save_checkpoint(tmp_path / "m.ckpt")
        restored = SALM.load_from_checkpoint(tmp_path / "m.ckpt")
        assert not restored.cfg.train_ds
        with pytest.raises(ValueError, match="SALM has no validation data"):
            make_trainer().validate(restored)

    def test_a_lightning_checkpoint_of_a_model_from_scratch_finds_its_tokenizer(
        self, make_instruct_las, make_trainer, tmp_path
    ):
        model, trainer = make_instruct_las(), make_trainer()
        trainer.strategy.connect(model)
        trainer.save_checkpoint(tmp_path / "m.ckpt")
        restored = type(model).load_from_checkpoint(tmp_path / "m.ckpt")
        assert restored.tokenizer.vocab_size == model.tokenizer.vocab_size

    def test_caches_of_the_training_machine_are_left_out(self, make_salm, tmp_path):
        model = make_salm()
        model.cfg.perception.state_cache = str(tmp_path / "states")
        model.save_to(tmp_path / "m.nemo")
        assert SALM.restore_from(tmp_path / "m.nemo").cfg.perception.state_cache is None

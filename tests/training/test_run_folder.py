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

"""The folder of a training: whose it is, and what a killed run goes on from."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nemo.utils.exp_manager import exp_manager
from omegaconf import OmegaConf

from nemo_speechllm.checkpointing.errors import CheckpointError
from nemo_speechllm.training.run_folder import claim_run_folder, find_resume_point


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

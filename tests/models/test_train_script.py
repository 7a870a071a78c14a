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

"""``examples/train.py`` to its end, or to what prevents it: each run is a process, forked after the slow imports."""

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from nemo.core.connectors.save_restore_connector import SaveRestoreConnector

from nemo_speechllm.files import FolderLock
from nemo_speechllm.models import SALM

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 300.0  # far above what a run takes


def killed_while_saving() -> None:
    pack = SaveRestoreConnector._make_nemo_file_from_folder

    def pack_and_die(filename, source_dir):
        pack(filename, source_dir)
        os.truncate(filename, os.path.getsize(filename) // 2)
        os.kill(os.getpid(), signal.SIGKILL)

    SaveRestoreConnector._make_nemo_file_from_folder = staticmethod(pack_and_die)


def disk_full_while_saving() -> None:
    save = SALM.save_to

    def save_to(self, save_path):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))
        save(self, save_path)

    SALM.save_to = save_to


@pytest.fixture
def train(tiny_salm_config, make_manifest, load_soak, tmp_path, monkeypatch) -> Callable[..., tuple[int, str]]:
    """``train(before=…, **overrides)`` → status of the same command, and the last line that its user sees."""
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")  # its threads do not survive a fork
    model = tiny_salm_config.model
    settings = {
        "model.llm.pretrained": model.llm.pretrained,
        "model.perception.encoder.pretrained": model.perception.encoder.pretrained,
        "model.perception.adapter.n_layers": 1,
        "model.perception.adapter.d_model": 32,
        "model.generation.max_new_tokens": 2,
        "model.train_ds.manifest_filepath": model.train_ds.manifest_filepath,
        "model.train_ds.use_bucketing": False,
        "model.train_ds.num_workers": 0,
        "model.validation_ds.manifest_filepath": make_manifest((0.5,), "dev.jsonl"),
        "trainer.accelerator": "cpu",
        "trainer.max_steps": 2,
        "trainer.val_check_interval": 2,
        "exp_manager.exp_dir": tmp_path,
        "exp_manager.create_tensorboard_logger": False,
        "name": "run",
    }

    run_forked = load_soak("kills").run_forked

    def run(before: Callable[[], None] = lambda: None, **overrides) -> tuple[int, str]:
        given = [f"{name}={value}" for name, value in (settings | overrides).items()]
        command = [str(ROOT / "examples/train.py"), "--config-name=salm/whisper_smollm2", *given]
        status = run_forked(command, tmp_path / "log.txt", SECONDS, before)
        assert status is not None, f"it still ran after {SECONDS} s"
        return status, (tmp_path / "log.txt").read_text(errors="replace").rstrip().splitlines()[-1]

    return run


@pytest.mark.parametrize(
    ("before", "expected"),
    [(killed_while_saving, -signal.SIGKILL), (disk_full_while_saving, 1)],
    ids=["kill", "full disk"],
)
def test_the_same_command_writes_the_nemo_that_was_not_written(before, expected, train, tmp_path):
    nemo = tmp_path / "run" / "checkpoints" / "run.nemo"
    status, last_line = train(before)
    assert status == expected, last_line
    assert not nemo.exists()
    if expected == 1:
        assert (
            last_line.startswith(f"error: {nemo} could not be written") and "run the same command again" in last_line
        )
    assert train()[0] == 0
    assert isinstance(SALM.restore_from(nemo), SALM)
    assert not list(nemo.parent.glob(".partial-*"))
    written = nemo.stat().st_mtime_ns
    assert train()[0] == 0 and nemo.stat().st_mtime_ns == written


def test_a_model_of_no_numbers_is_not_written(train, tmp_path):
    overrides = {"model.optim.lr": 1e30, "model.optim.sched.warmup_steps": 0, "trainer.max_steps": 6}
    status, last_line = train(**overrides)
    assert status == 1
    assert last_line.startswith("error: ") and "not finite" in last_line or "the loss is" in last_line
    assert "model.optim.lr" in last_line
    assert not list(tmp_path.rglob("*.nemo"))


def test_a_second_training_in_one_folder_is_refused(train, tmp_path):
    with FolderLock(tmp_path / "run" / "checkpoints", "training"):
        status, last_line = train()
    assert status == 1
    assert f"is in use by another training (process {os.getpid()} on " in last_line


def test_a_setting_that_nothing_reads_or_that_cannot_be_is_refused_before_there_is_a_run(train, tmp_path):
    refused = {
        "+model.loss.ctc_wieght=1.0": "model.loss has no setting 'ctc_wieght'; did you mean 'ctc_weight'?",
        "+model.optim.weight_decays=1": "model.optim has no setting 'weight_decays'; did you mean 'weight_decay'?",
        "+model.train_ds.batch_sise=1": "model.train_ds has no setting 'batch_sise'; did you mean 'batch_size'?",
        "model.lora.dropout=2": "model.lora.dropout is 2; it must be a number, at least 0 and below 1",
    }
    for override, message in refused.items():
        assert train(**dict([override.split("=")])) == (1, f"error: {message}")
    assert not (tmp_path / "run").exists()

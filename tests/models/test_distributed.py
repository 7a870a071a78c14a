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


"""``examples/train.py`` on two processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import DictConfig

ROOT = Path(__file__).parents[2]

# runs in each process: Lightning starts the second one with the command line of the first
RECORDED_TRAINING = f"""
import importlib.util, json, os
from pathlib import Path
from nemo_speechllm.metrics.error_rate import ErrorCounts
from nemo_speechllm.models import SALM
from nemo_speechllm.models.answers import Answer
from nemo_speechllm.modules.fingerprint import state_digest

record = {{"trained": [], "validated": []}}
steps = {{"trained": SALM.training_step, "validated": SALM.validation_step}}
on_validation_epoch_end, on_train_end = SALM.on_validation_epoch_end, SALM.on_train_end

def recorded(name):
    def step(self, batch, *args):
        record[name] += [conversation.id for conversation in batch.conversations]
        return steps[name](self, batch, *args)
    return step

def answered_by_one(self, batch, **options):
    return [Answer(item.answer if self.global_rank == 0 else "", [], False) for item in batch.conversations]

def recorded_on_validation_epoch_end(self):
    (tally,) = self._validation_tallies.values()
    record["loss"], record["words"] = tally.loss, sum(tally.words.values(), ErrorCounts()).counts
    on_validation_epoch_end(self)

def recorded_on_train_end(self):
    on_train_end(self)
    record["metrics"] = {{name: float(value) for name, value in self.trainer.callback_metrics.items()}}
    record["weights"] = state_digest(self)
    (Path(os.environ["RECORDS"]) / f"{{self.global_rank}}.json").write_text(json.dumps(record))
    self.trainer.strategy.barrier()  # the first process does not wait for the second to end

SALM.training_step, SALM.validation_step = recorded("trained"), recorded("validated")
SALM.generate_batch = answered_by_one  # error rates that differ between the processes
SALM.on_validation_epoch_end, SALM.on_train_end = recorded_on_validation_epoch_end, recorded_on_train_end
script = importlib.util.spec_from_file_location("__main__", {str(ROOT / "examples/train.py")!r})
script.loader.exec_module(importlib.util.module_from_spec(script))  # runpy would put that script into the command line
"""


@pytest.fixture
def records(tiny_salm_config: DictConfig, make_manifest, tmp_path: Path) -> list[dict]:
    """What each of two processes saw and ended with, after one epoch of eight utterances in batches of two."""
    script, folder, model = tmp_path / "train.py", tmp_path / "records", tiny_salm_config.model
    script.write_text(RECORDED_TRAINING)
    folder.mkdir()
    overrides = {
        "model.llm.pretrained": model.llm.pretrained,
        "model.perception.encoder.pretrained": model.perception.encoder.pretrained,
        "model.perception.adapter.n_layers": 1,
        "model.perception.adapter.d_model": 32,
        "model.train_ds.manifest_filepath": make_manifest((0.5,) * 8, "train.jsonl"),
        "model.train_ds.batch_size": 2,
        "model.train_ds.num_workers": 0,
        "model.train_ds.use_bucketing": False,
        "model.validation_ds.manifest_filepath": make_manifest((0.5, 0.6, 0.7, 0.8), "dev.jsonl"),
        "model.validation_ds.batch_size": 1,
        "trainer.accelerator": "cpu",
        "trainer.devices": 2,
        "trainer.max_steps": 2,
        "trainer.val_check_interval": 2,
        "exp_manager.exp_dir": tmp_path / "run",
    }
    command = [sys.executable, str(script), "--config-name=salm/whisper_smollm2"]
    done = subprocess.run(
        [*command, *(f"{name}={value}" for name, value in overrides.items())],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "RECORDS": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_two_processes_train_one_model_on_all_data(records):
    first, second = records
    assert first["weights"] == second["weights"]
    for name, size in (("trained", 8), ("validated", 4)):
        assert len(first[name]) == len(second[name]) == size // 2
        assert len({*first[name], *second[name]}) == size

    assert sum(first["words"][:3]) == 0 < sum(second["words"][:3])
    *errors, words = map(sum, zip(first["words"], second["words"]))
    for record in records:
        assert record["metrics"]["val_wer"] == pytest.approx(sum(errors) / words)
        assert record["metrics"]["val_loss"] == pytest.approx((first["loss"] + second["loss"]) / 4)

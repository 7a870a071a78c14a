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


"""Training on several processes: ``examples/launch``, and what one process would have made of the same batches."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from nemo_speechllm.models import SALM, CTCPromptedLLM, DeSTA2, InstructLAS
from tests.several_processes import (
    ROWS,
    assert_alike,
    count_in_double,
    ctc_prompted_config,
    desta2_config,
    instruct_las_config,
    salm_config,
    tiny_training,
)

pytestmark = pytest.mark.slow  # each test starts Pythons that import NeMo

ROOT = Path(__file__).parents[2]

# Python runs it when it starts
RECORDED_TRAINING = """
import json, os, sys
from pathlib import Path

if "SLURM_PROCID" in os.environ and "nemo_speechllm" in sys.orig_argv:
    from nemo_speechllm.metrics.error_rate import ErrorCounts
    from nemo_speechllm.models import SALM
    from nemo_speechllm.models.answers import Answer
    from nemo_speechllm.modules.fingerprint import state_digest

    record = {"trained": [], "validated": []}
    steps = {"trained": SALM.training_step, "validated": SALM.validation_step}
    on_validation_epoch_end, on_train_end = SALM.on_validation_epoch_end, SALM.on_train_end

    def recorded(name):
        def step(self, batch, *args):
            record[name] += [conversation.id for conversation in batch.conversations]
            return steps[name](self, batch, *args)
        return step

    def answered_by_one(self, batch, *args, **options):
        return [Answer(item.answer if self.global_rank == 0 else "", [], False) for item in batch.conversations]

    def recorded_on_validation_epoch_end(self):
        (tally,) = self._validation_tallies.values()
        record["loss"], record["words"] = float(tally.loss), sum(tally.words.values(), ErrorCounts()).counts
        on_validation_epoch_end(self)

    def recorded_on_train_end(self):
        on_train_end(self)
        record["metrics"] = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        record["weights"] = state_digest(self)
        (Path(os.environ["RECORDS"]) / f"{self.global_rank}.json").write_text(json.dumps(record))
        self.trainer.strategy.barrier()  # the first process does not wait for the second to end

    SALM.training_step, SALM.validation_step = recorded("trained"), recorded("validated")
    SALM.generate_answers = answered_by_one  # error rates that differ between the processes
    SALM.on_validation_epoch_end, SALM.on_train_end = recorded_on_validation_epoch_end, recorded_on_train_end
"""
SRUN = """#!/usr/bin/env bash
# of SLURM: starts a job's tasks, here all of them on one node
shift
for ((task = 0; task < SLURM_NTASKS; task++)); do
  SLURM_PROCID=$task SLURM_LOCALID=$task SLURM_NODEID=0 "$@" &
done
for ((task = 0; task < SLURM_NTASKS; task++)); do wait -n; done
"""


@pytest.fixture
def records(tiny_salm_config: DictConfig, make_manifest, tmp_path: Path) -> list[dict]:
    """What each of two processes saw and ended with, after one epoch of eight utterances in batches of two."""
    scripts, folder, model = tmp_path / "scripts", tmp_path / "records", tiny_salm_config.model
    for path in (scripts, folder):
        path.mkdir()
    (scripts / "sitecustomize.py").write_text(RECORDED_TRAINING)
    (scripts / "srun").write_text(SRUN)
    (scripts / "srun").chmod(0o755)
    changes = {"train_ds.manifest_filepath": make_manifest((0.5,) * 8, "train.jsonl")}
    changes |= {"validation_ds.manifest_filepath": make_manifest((0.5, 0.6, 0.7, 0.8), "dev.jsonl")}
    job = {
        "JOB_NAME": "nemo_speechllm",
        "NTASKS": 2,
        "NTASKS_PER_NODE": 2,
        "NNODES": 1,
        "NODELIST": "localhost",
        "JOB_ID": os.getpid(),
    }
    done = subprocess.run(
        [ROOT / "examples/launch/slurm.sh", *tiny_training(model, "ddp", tmp_path / "run", changes)],
        env=os.environ
        | {f"SLURM_{name}": str(value) for name, value in job.items()}
        | {
            "OMP_NUM_THREADS": "1",
            "PATH": f"{scripts}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": f"{scripts}:{ROOT}",
            "RECORDS": str(folder),
        },
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
    *errors, words = map(sum, zip(first["words"], second["words"], strict=False))
    for record in records:
        assert record["metrics"]["val_wer"] == pytest.approx(sum(errors) / words)
        assert record["metrics"]["val_loss"] == pytest.approx((first["loss"] + second["loss"]) / 4)


@pytest.mark.parametrize(
    ("model_class", "config", "processes"),
    [
        (SALM, salm_config, 2),
        (SALM, salm_config, 3),
        (CTCPromptedLLM, ctc_prompted_config, 2),
        (InstructLAS, instruct_las_config, 2),
        (DeSTA2, desta2_config, 2),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_token_weighs_the_same_in_every_process(
    model_class, config, processes, train, make_manifest, request, monkeypatch
):
    """In double precision: in single, what a batch is padded to and the order of sums move gradients by 2e-5.

    The epoch's last step has too few utterances: one of two processes, or of three, gets another's.
    """
    count, size = (4, 2) if processes == 2 else (3, 1)
    manifest = make_manifest((0.9, 2.8, 2.6, 0.7, 1.1), "unequal.jsonl", ROWS, transcription="hello")
    whole, part = config(request, manifest, count), config(request, manifest, size)
    for cfg in (whole, part):
        cfg.optim.lr = 0.0
    count_in_double(monkeypatch)
    options = {"precision": "64-true", "max_steps": 2, "limit_val_batches": 1.0, "val_check_interval": 2}
    (one,) = train(model_class, whole, 1, "one", **options)
    several = train(model_class, part, processes, "several", **options)
    assert len(one["gradients"]) == 2 and len(one["trained"]) == 5
    assert {"val_loss", "val_wer", "val_listening"} <= one["metrics"].keys()
    assert_alike(one, several)


@pytest.mark.parametrize("bucketing", [False, True])
def test_what_an_epoch_has_left_is_trained_on_once_by_another_number_of_processes(
    bucketing, train, make_manifest, request, tmp_path
):
    manifest = make_manifest((0.4, 0.8, 0.5, 0.9, 0.6, 1.2, 0.7), "train.jsonl")
    cfg = salm_config(request, manifest, 1)
    data = {"shuffle": True, "seed": 0, "shard_seed": 0, "use_bucketing": bucketing, "num_buckets": 2}
    cfg.train_ds = OmegaConf.merge(cfg.train_ds, data)
    trained: list[str] = []
    checkpoint, steps = None, 0
    for processes, step in ((2, 2), (1, 3), (2, 4)):
        checkpoint, before = tmp_path / f"step={step}.ckpt", checkpoint
        options = {"ckpt_path": before, "checkpoint": checkpoint, "max_steps": step}
        for process in train(SALM, cfg, processes, f"until-{step}", **options):
            trained += process["trained"]
            assert len(process["losses"]) == step - steps
        steps = step
    assert len(trained) == len(set(trained)) == 7
    assert torch.load(checkpoint, weights_only=True)["shares"] == [[2, 2], [1, 1], [2, 1]]


def test_validation_has_the_figures_of_one_process(train, make_manifest, request):
    train_ds = make_manifest((0.5,) * 4, "train.jsonl", text="thank you")
    rows = [{"lang": lang} for lang in ("en", "fr", "en", "fr", "de")]
    dev = make_manifest((0.5, 1.7, 0.6, 1.3, 0.9), "dev.jsonl", rows)
    cfg = OmegaConf.merge(salm_config(request, train_ds, 1), {"optim": {"lr": 0.0}})
    for size in (2, 1):
        cfg.validation_ds = OmegaConf.merge(cfg.validation_ds, {"manifest_filepath": str(dev), "batch_size": size})
        options = {"limit_val_batches": 1.0, "val_check_interval": 1}
        (one,) = train(SALM, cfg, 1, f"one-{size}", **options)
        two = train(SALM, cfg, 2, f"two-{size}", **options)
        assert (
            sorted(two[0]["validated"] + two[1]["validated"]) == sorted(one["validated"])
            and len(one["validated"]) == 5
        )
        expected = {name: value for name, value in one["metrics"].items() if name.startswith("val_")}
        assert {"val_loss", "val_wer", "val_wer_macro", "val_alignment"} <= expected.keys()
        assert ("val_listening" in expected) == (size > 1)  # alone there is no other audio
        for process in two:
            assert {name: process["metrics"][name] for name in expected} == expected


def test_every_process_gets_its_own_random_numbers_back(train, make_manifest, request, tmp_path):
    manifest = make_manifest((0.9, 1.8, 1.6, 0.7, 0.8, 1.2), "train.jsonl")
    cfg = OmegaConf.merge(salm_config(request, manifest, 1), {"lora": {"dropout": 0.3}})

    class Uneven(SALM):
        def loss(self, batch):
            torch.rand(1 + self.global_rank)  # as a process does whose batch is larger
            return super().loss(batch)

    whole = train(Uneven, cfg, 2, "whole", checkpoint=tmp_path / "step=2.ckpt", max_steps=5)
    resumed = train(Uneven, cfg, 2, "resumed", ckpt_path=tmp_path / "step=2.ckpt", max_steps=5)
    for before, after in zip(whole, resumed, strict=False):
        assert len(before["losses"]) == 5 and after["losses"] == before["losses"][2:]
    states = torch.load(tmp_path / "step=2.ckpt", weights_only=True)["rng_states"]
    assert not torch.equal(states[0]["torch"], states[1]["torch"])


def test_all_processes_stop_for_the_loss_of_one(train, make_manifest, request, tmp_path):
    manifest = make_manifest((0.9, 1.8, 1.6, 0.7), "train.jsonl")

    class Spoilt(SALM):
        def loss(self, batch):
            losses = super().loss(batch)
            spoilt = any("train-3" in conversation.id for conversation in batch.conversations)
            return losses | {"loss": losses["loss"] * (torch.inf if spoilt else 1.0)}

    with pytest.raises(Exception, match="NonFiniteError: step 1"):
        train(Spoilt, salm_config(request, manifest, 1), 2, "two", max_steps=2)
    assert [path.name for path in (tmp_path / "non_finite").iterdir()] == ["step=1-rank=1.pt"]

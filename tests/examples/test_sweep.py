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

"""``examples/sweep.py``: its plan, a small real sweep, what is repeated and what is not."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from nemo_speechllm.command_line import ProcessError
from nemo_speechllm.evaluation.report import evaluation_report
from nemo_speechllm.evaluation.run import evaluate
from nemo_speechllm.files import as_object, write_json
from nemo_speechllm.manifests.manifest import read_manifest
from nemo_speechllm.training.train import train

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sweep(load_script):
    return load_script("sweep")


def settings(**changes) -> dict:
    return {
        "recipe": "salm/whisper_smollm2",
        "evaluation": "evaluate.py",
        "output_dir": "out",
        "only": None,
        "common": {"model.lora.r": 8, "evaluate.manifest": "test.jsonl"},
        "axes": {"rank": {"model.lora.r": [0, 8]}, "data": {"labels": ["a b", "c"], "x": [["1.jsonl"], ["2.jsonl"]]}},
    } | changes


def test_plan_gives_each_axis_its_rows_and_runs_the_same_settings_once(sweep):
    plan = settings(axes={"rank": {"model.lora.r": [0, 8]}, "again": {"model.lora.r": [8, 16]}})
    rows = sweep.plan_rows(plan)
    assert [row.name for row in rows] == ["rank=0", "rank=8", "again=8", "again=16"]
    assert rows[1].folder == rows[2].folder == Path("out/rows/rank=8")
    assert [row.settings["model.lora.r"] for row in rows] == [0, 8, 8, 16]
    assert sweep.plan_rows(plan | {"only": ["again"]}) == rows[2:]


def test_plan_pairs_the_values_of_several_settings_and_takes_labels(sweep):
    axes = {"data": {"labels": ["a b", "c"], "train": [["1"], ["2"]], "evaluate.manifest": ["3", "4"]}}
    rows = sweep.plan_rows(settings(axes=axes))
    assert [row.label for row in rows] == ["a_b", "c"]
    assert rows[1].settings == {"model.lora.r": 8, "train": ["2"], "evaluate.manifest": "4"}


def test_what_could_not_be_scored_is_refused_before_anything_is_trained(sweep, make_manifest, monkeypatch):
    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_ko_mecab.MeCab", None)
    manifests = [str(make_manifest((0.5,))), str(make_manifest((0.5,), "ko.jsonl", target_lang="ko", answer="x"))]
    for changes, message in (
        ({"evaluate.manifest": manifests}, r"translations into ko .*sacrebleu\[ko\]"),
        ({"evaluate.manifest": manifests[0], "evaluate.normalizer": "german"}, "unknown text normalizer"),
    ):
        with pytest.raises(ValueError, match=message):
            sweep.check_evaluation(sweep.plan_rows(settings(common=changes))[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axes": {"x": {"a": [1, 2], "b": [1]}}}, "axes.x: every setting needs as many values"),
        ({"axes": {"x": {"a": ["p/m.nemo", "q/m.nemo"]}}}, "axes.x: rows need names of their own.*give `labels`"),
        ({"axes": {"x": {"a": []}}}, "axes.x has no values"),
        ({"axes": {"x": {}}}, "axes.x has no values"),
        ({"only": ["stride"]}, "no such axis; there are .*rank"),
        ({"evaluation": "evaluate_taste.py"}, r"no such script; there are \['evaluate.py', 'evaluate_keywords.py'\]"),
    ],
)
def test_plan_refuses(sweep, changes, message):
    with pytest.raises(ValueError, match=message):
        sweep.plan_rows(settings(**changes))


def test_a_section_that_is_missing_is_named(sweep):
    misspelt = {("axess" if key == "axes" else key): value for key, value in settings().items()}
    with pytest.raises(ValueError, match="the sweep has no axes"):
        sweep.plan_rows(misspelt)


@pytest.mark.parametrize(
    ("name", "overrides"),
    [("ctc_prompted_llm/sweep", ["stage1=stage1.nemo", "aligned=aligned.nemo"]), ("salm/sweep_keywords", [])],
)
def test_the_shipped_sweeps_plan_rows_that_their_recipe_can_take(sweep, name, overrides):
    with initialize_config_dir(str(ROOT / "conf"), version_base=None):
        cfg = OmegaConf.to_container(compose(name, overrides), resolve=True)
        rows = sweep.plan_rows(cfg)
        assert {row.axis for row in rows} == set(cfg["axes"])
        common = [row for row in rows if row.settings == cfg["common"]]
        assert common and len({row.folder for row in common}) == 1  # it stands on several axes and is run once
        for row in rows:
            changes = {key: value for key, value in row.settings.items() if not key.startswith("evaluate.")}
            recipe = compose(cfg["recipe"], [f"{key}={json.dumps(value)}" for key, value in changes.items()])
            assert not OmegaConf.missing_keys(recipe)
            assert all(OmegaConf.select(recipe, key.lstrip("+")) == value for key, value in changes.items())


def fake_metrics(folder: Path, wer: float) -> None:
    (folder / "evaluation").mkdir(parents=True)
    fields = {"lang": "en", "duration": 1.0, "seconds": 0.1, "truncated": False}
    report = evaluation_report([{"text": "a b c d e", "pred_text": "a b c d x"} | fields], "basic")
    assert report.wer == wer
    write_json(folder / "evaluation" / "metrics.json", as_object(report))


def test_goes_on_after_a_failure_repeats_nothing_that_is_done_and_fails_at_the_end(
    sweep, tmp_path, monkeypatch, capsys
):
    ran = []

    def run_row(row, recipe):
        ran.append(row.name)
        if row.label == "1" and len(ran) < 3:
            raise ProcessError("train.py failed: no such file; see log.txt")
        fake_metrics(row.folder, 0.2)

    monkeypatch.setattr(sweep, "run_row", run_row)
    cfg = OmegaConf.create(settings(output_dir=str(tmp_path), axes={"x": {"a": [1, 2]}}))
    with pytest.raises(SystemExit, match="1"):
        sweep.main(cfg)
    out = capsys.readouterr().out
    assert (
        "[1/2] x=1: failed: train.py failed: no such file; see log.txt" in out
        and "[2/2] x=2: WER 20.0 % (20.0–20.0)" in out
    )
    assert "1 of 2 rows failed: x=1" in out
    sweep.main(cfg)
    assert ran == ["x=1", "x=2", "x=1"]
    assert "[2/2] x=2: WER 20.0 % (20.0–20.0), was there" in capsys.readouterr().out
    with open(tmp_path / "results.csv") as lines:
        rows = list(csv.DictReader(lines))
    assert [(row["axis"], row["value"], row["language"], row["wer"]) for row in rows] == [
        ("x", "1", "en", "0.2"),
        ("x", "2", "en", "0.2"),
    ]
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    cfg.common["model.lora.r"] = 16
    with pytest.raises(ValueError, match="a row of another sweep.*model.lora.r was 8, is 16"):
        sweep.main(cfg)


def test_keyword_figures_have_a_line_per_list_and_a_plot(sweep, tmp_path, monkeypatch, capsys):
    def run_row(row, recipe):
        figures = dict.fromkeys(
            (f"{name}{end}" for name in ("wer", "f", "precision", "recall") for end in ("", "_low", "_high")), 0.5
        )
        figures |= dict.fromkeys(("leakage", "leakage_low", "leakage_high"))
        conditions = [{"condition": "empty", "size": None} | figures, {"condition": "mixed", "size": 10} | figures]
        (row.folder / "evaluation").mkdir(parents=True)
        (row.folder / "evaluation" / "results.json").write_text(json.dumps({"conditions": conditions}))

    monkeypatch.setattr(sweep, "run_row", run_row)
    ratios = {"ratio": {"model.keyword_context.positive_ratio": [0.0, 0.1]}}
    sweep.main(OmegaConf.create(settings(output_dir=str(tmp_path), axes=ratios, evaluation="evaluate_keywords.py")))
    assert "[1/2] ratio=0.0: F empty 50.0 %, F mixed 10 50.0 %, " in capsys.readouterr().out
    with open(tmp_path / "results.csv") as lines:
        rows = [(row["value"], row["condition"], row["size"]) for row in csv.DictReader(lines)]
    assert rows == [(value, *condition) for value in ("0.0", "0.1") for condition in (("empty", ""), ("mixed", "10"))]
    assert (tmp_path / "ratio.png").read_bytes().startswith(b"\x89PNG")


def test_a_row_that_was_killed_after_training_is_only_evaluated(sweep, make_manifest, tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(sweep, "run_logged", lambda command, function, cfg, log: ran.append((function, cfg)))
    manifests = [str(make_manifest((0.3, 0.3), f"{lang}.jsonl", lang=lang)) for lang in ("en", "fr")]
    row = sweep.Row("rank", "4", tmp_path / "sweep", {"model.lora.r": 4, "evaluate.manifest": manifests})
    row.folder.mkdir()
    sweep.run_row(row, "salm/whisper_smollm2")
    (trained, recipe), (evaluated, arguments) = ran
    assert (trained, evaluated) == (train, evaluate)
    assert (recipe.exp_manager.exp_dir, recipe.name, recipe.model.lora.r) == (str(row.folder), "train", 4)
    checkpoint = row.folder / "train" / "checkpoints" / "train.nemo"
    assert arguments.model == str(checkpoint) and arguments.output_dir == str(row.metrics_file.parent)
    assert [line["lang"] for line in read_manifest(arguments.manifest, locate_audio=True)] == ["en"] * 2 + ["fr"] * 2
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    sweep.run_row(row, "salm/whisper_smollm2")
    assert [function for function, _ in ran[2:]] == [evaluate]


def test_a_row_trains_and_evaluates_in_processes_of_its_own(sweep, tiny_salm_config, make_manifest, tmp_path, capsys):
    model, manifest = tiny_salm_config.model, str(make_manifest((0.5, 0.7), "dev.jsonl"))
    common = {
        "model.llm.pretrained": model.llm.pretrained,
        "model.perception.encoder.pretrained": model.perception.encoder.pretrained,
        "model.perception.adapter": None,
        "model.train_ds.manifest_filepath": manifest,
        "model.train_ds.use_bucketing": False,
        "model.train_ds.num_workers": 0,
        "model.validation_ds.manifest_filepath": manifest,
        "trainer.accelerator": "cpu",
        "trainer.max_steps": 1,
        "trainer.val_check_interval": 1,
        "evaluate.manifest": manifest,
        "evaluate.max_new_tokens": 4,
    }
    axes = {"rank": {"model.lora.r": [2]}, "steps": {"labels": ["bad"], "model.optim.name": ["none_such"]}}
    axes["unknown"] = {"labels": ["key"], "model.lora.rank": [2]}
    cfg = settings(output_dir=str(tmp_path / "sweep"), common=common, axes=axes)
    with pytest.raises(SystemExit, match="1"):
        sweep.main(OmegaConf.create(cfg))
    out = capsys.readouterr().out
    assert "[1/3] rank=2: WER" in out and "[3/3] unknown=key: failed: Could not override 'model.lora.rank'" in out
    log = tmp_path / "sweep/rows/steps=bad/log.txt"
    assert "[2/3] steps=bad: failed: train.py failed: " in out and f"; see {log}" in out
    assert log.read_text().startswith("$ python examples/train.py --config-name=") and "error: " in log.read_text()
    assert json.loads((tmp_path / "sweep/rows/rank=2/evaluation/metrics.json").read_text())["utterances"] == 2
    with open(tmp_path / "sweep" / "results.csv") as lines:
        assert [(row["value"], row["language"], row["words"]) for row in csv.DictReader(lines)] == [("2", "en", "8")]


def test_a_sweep_of_ones_own_folder_takes_a_recipe_that_lies_beside_it(make_manifest, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    (own / "mine.yaml").write_text("defaults: [salm/whisper_smollm2@_global_, _self_]\nmodel: {mine: null}\n")
    common = {"evaluate.manifest": str(make_manifest((0.3,), "test.jsonl"))}
    sweep = settings(
        recipe="mine", common=common, output_dir=str(tmp_path / "sweep"), axes={"own": {"model.mine": [2]}}
    )
    OmegaConf.save(sweep, own / "my_sweep.yaml")
    script = [sys.executable, str(ROOT / "examples/sweep.py"), f"--config-dir={own}", "--config-name=my_sweep"]
    done = subprocess.run(script, capture_output=True, encoding="utf-8", env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert (
        done.returncode == 1 and "own=2: failed: train.py failed: the recipe leaves 2 settings to you" in done.stdout
    )

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

"""``examples/evaluate_tasks.py`` on a tiny SALM and on a cascade, by text and by likelihood."""

import io
import json

import pytest
import soundfile
from omegaconf import OmegaConf
from pyarrow import Table, parquet

ROWS = [
    {"instruction": "Happy or sad?", "label": "happy", "task": "emotion", "category": "paralinguistic"},
    {"instruction": "Which mood?", "label": "sad", "task": "emotion", "category": "paralinguistic"},
    {
        "instruction": "Is it noisy?",
        "label": "yes",
        "labels": ["yes", "no"],
        "task": "noise",
        "category": "degradation",
    },
]


@pytest.fixture
def run(load_script):
    script = load_script("evaluate_tasks")
    defaults = OmegaConf.structured(script.EvaluateTasksArguments)
    return lambda **arguments: script.main(OmegaConf.merge(defaults, arguments))


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_figures_by_category_and_a_killed_run_goes_on(run, tiny_nemo, make_manifest, tmp_path):
    manifest, output = make_manifest((0.3, 0.4, 0.5), rows=ROWS), tmp_path / "tasks"
    arguments = dict(model=tiny_nemo, manifest=str(manifest), output_dir=str(output), max_new_tokens=2, batch_size=2)
    run(**arguments)
    metrics = json.loads((output / "metrics.json").read_text())
    assert {name: found["answers"] for name, found in metrics["categories"].items()} == {
        "degradation": 1,
        "paralinguistic": 2,
    }
    predictions = output / "predictions.jsonl"
    whole = read_lines(predictions)
    assert [row["labels"] for row in whole] == [["happy", "sad"], ["happy", "sad"], ["yes", "no"]]
    predictions.write_text("".join(predictions.read_text().splitlines(keepends=True)[:1]))
    run(**arguments)
    assert read_lines(predictions) == whole
    assert json.loads((output / "metrics.json").read_text()) == metrics


def test_a_cascade_is_evaluated_like_a_model(run, tiny_nemo, make_manifest, tmp_path, tiny_llm_folder):
    manifest, output = make_manifest((0.3, 0.4, 0.5), rows=ROWS, transcription="what a day"), tmp_path / "cascade"
    model = f"cascade:{tiny_nemo}+{tiny_llm_folder}"
    run(model=model, manifest=str(manifest), output_dir=str(output), max_new_tokens=2)
    assert len(read_lines(output / "predictions.jsonl")) == 3


@pytest.mark.parametrize("system", ["model", "cascade"])
def test_labels_are_scored_once_and_the_figures_follow_from_the_file(
    run, tiny_nemo, make_manifest, tmp_path, tiny_llm_folder, system
):
    manifest, output = make_manifest((0.3, 0.4, 0.5), rows=ROWS, transcription="what a day"), tmp_path / "likelihood"
    model = tiny_nemo if system == "model" else f"cascade:{tiny_nemo}+{tiny_llm_folder}"
    arguments = dict(model=model, manifest=str(manifest), output_dir=str(output), scoring="likelihood")
    run(**arguments, batch_size=2)
    predictions = output / "predictions.jsonl"
    whole = read_lines(predictions)
    assert [[*row["label_log_probs"]] for row in whole] == [row["labels"] for row in whole]
    for row in whole:
        means = {label: value / row["label_tokens"][label] for label, value in row["label_log_probs"].items()}
        assert row["choice"] == max(means, key=means.__getitem__) and "pred_text" not in row
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["all"]["undecided"] == 0 and metrics["all"]["likelihood"]["bins"] == 15
    assert metrics["tasks"]["emotion"]["likelihood"]["auc"] in (0.0, 1.0)  # of two questions
    assert metrics["tasks"]["noise"]["likelihood"]["auc"] is None
    assert "ECE" in (output / "results.md").read_text()
    predictions.write_text("".join(predictions.read_text().splitlines(keepends=True)[:1]))
    run(**arguments, batch_size=1)
    again = read_lines(predictions)
    for row, other in zip(whole, again, strict=True):
        assert row["label_log_probs"] == pytest.approx(other["label_log_probs"], rel=1e-4)
        assert {key: row[key] for key in ("choice", "label_tokens")} == {
            key: other[key] for key in ("choice", "label_tokens")
        }


@pytest.mark.parametrize("first, second", [("text", "likelihood"), ("likelihood", "text")])
def test_answers_and_scores_are_not_mixed_in_a_folder(run, tiny_nemo, make_manifest, tmp_path, first, second):
    manifest = make_manifest((0.3,), rows=[ROWS[2]])
    arguments = dict(model=tiny_nemo, manifest=str(manifest), output_dir=str(tmp_path / "tasks"))
    run(**arguments, scoring=first)
    recorded = json.loads((tmp_path / "tasks/run.json").read_text())
    assert recorded.get("scoring") == (None if first == "text" else "likelihood")  # as folders of old
    with pytest.raises(ValueError, match="another evaluation.*scoring was"):
        run(**arguments, scoring=second)


def test_folders_in_the_layout_of_dynamic_superb_are_evaluated(run, tiny_nemo, make_audio, tmp_path):
    root, output = tmp_path / "dynamic_superb", tmp_path / "tasks"
    content = io.BytesIO()
    soundfile.write(content, make_audio(0.3), 16000, format="WAV")
    stored = {"bytes": content.getvalue(), "path": "a.wav"}
    rows = [
        {"file": "a.wav", "audio": stored, "audio2": stored, "instruction": "Same?", "label": label}
        for label in ("yes", "no")
    ]
    (root / "SpeakerVerification_VCTK/data").mkdir(parents=True)
    parquet.write_table(Table.from_pylist(rows), root / "SpeakerVerification_VCTK/data/test-00000-of-00001.parquet")
    (root / "EmotionRecognition_X").mkdir()
    (root / "EmotionRecognition_X/a.wav").write_bytes(content.getvalue())
    lines = [{"file_name": "a.wav", "instruction": "Which mood?", "label": label} for label in ("happy", "sad", "sad")]
    (root / "EmotionRecognition_X/metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = dict(model=tiny_nemo, manifest=str(root), output_dir=str(output), max_new_tokens=2, batch_size=2)
    run(**arguments)
    metrics = json.loads((output / "metrics.json").read_text())
    assert {name: found["answers"] for name, found in metrics["tasks"].items()} == {
        "EmotionRecognition_X": 3,
        "SpeakerVerification_VCTK": 2,
    }
    assert set(metrics["categories"]) == {"paralinguistic", "speaker"}
    assert read_lines(output / "predictions.jsonl")[-1]["labels"] == ["yes", "no"]
    (root / "EmotionRecognition_X/metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[:2]))
    with pytest.raises(ValueError, match="another evaluation.*manifest was"):
        run(**arguments)


@pytest.mark.parametrize(
    "row, message",
    [
        ({"label": None}, r"manifest.jsonl:1: \['label'\] must be texts"),
        ({"labels": ["happy"]}, "manifest.jsonl:1: labels: .* must be two texts at least"),
        ({"labels": ["happy", 3]}, "manifest.jsonl:1: labels: .* must be two texts at least"),
        ({"labels": ["sad", "angry"]}, "manifest.jsonl:1: labels: .* `label` 'happy' among them"),
        ({"labels": ["happy", "Happy!"]}, "manifest.jsonl:1: labels .* words of its own"),
    ],
)
def test_refuses(run, make_manifest, row, message):
    manifest = make_manifest((0.3,), rows=[ROWS[0] | {"labels": ["happy", "sad"]} | row])
    with pytest.raises(ValueError, match=message):
        run(model="unread.nemo", manifest=str(manifest), output_dir="unread")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"scoring": "loglikelihood"}, "scoring is 'loglikelihood'; it must be one of text, likelihood"),
        ({"scoring": "likelihood", "max_new_tokens": 2}, "scoring=likelihood writes no answers.*no max_new_tokens;"),
        ({"scoring": "likelihood", "max_new_tokens": 2, "beam_size": 2}, "no max_new_tokens or beam_size;"),
    ],
)
def test_refuses_settings(run, make_manifest, tmp_path, arguments, message):
    manifest, output = make_manifest((0.3,), rows=[ROWS[2]]), tmp_path / "unwritten"
    with pytest.raises(ValueError, match=message):
        run(model="unread.nemo", manifest=str(manifest), output_dir=str(output), **arguments)
    assert not output.exists()


def test_a_task_of_one_label_cannot_be_asked(run, make_manifest):
    """Without `labels` they are those of the task's rows."""
    manifest = make_manifest((0.3, 0.3), rows=[ROWS[0], ROWS[0]])
    with pytest.raises(ValueError, match=r"manifest.jsonl:1: labels: \['happy'\] must be two texts at least"):
        run(model="unread.nemo", manifest=str(manifest), output_dir="unread", scoring="likelihood")


def test_a_model_without_a_text_decoder_writes_nothing(run, make_manifest, tmp_path, whole_whisper_folder):
    manifest, output = make_manifest((0.3,), rows=[ROWS[2]]), tmp_path / "unwritten"
    with pytest.raises(ValueError, match="WhisperBaseline has no text decoder that reads an instruction"):
        run(
            model=f"whisper:{whole_whisper_folder}",
            manifest=str(manifest),
            output_dir=str(output),
            scoring="likelihood",
        )
    assert not output.exists()

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

"""``examples/evaluate_confidence.py`` on the shipped recogniser of digits, and on references that say otherwise."""

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from nemo_speechllm.manifests.manifest import write_manifest
from nemo_speechllm.models import load_model

RECORDINGS = Path(__file__).parents[1] / "recordings"
TEXTS = {
    "digits_theo": "three one four one nine",
    "digits_jackson": "nine zero two six",
}  # one word of each is not so


@pytest.fixture
def run(load_script, manifest, tmp_path):
    script = load_script("evaluate_confidence")
    defaults = OmegaConf.structured(script.EvaluateConfidenceArguments)
    given = {"model": "instruct_las_digits", "manifest": str(manifest), "output_dir": str(tmp_path / "out")}
    return lambda **changes: script.main(OmegaConf.merge(defaults, given | changes))


@pytest.fixture
def manifest(tmp_path) -> Path:
    path = tmp_path / "test.jsonl"
    rows = [{"audio_filepath": str(RECORDINGS / f"{name}.flac"), "text": text} for name, text in TEXTS.items()]
    write_manifest(path, rows)
    return path


def test_words_are_judged_and_a_calibrated_model_is_saved(run, tmp_path, manifest, capsys):
    saved = tmp_path / "calibrated.nemo"
    run(calibration_manifest=str(manifest), save_to=str(saved))
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (tmp_path / "out" / "reliability.png").stat().st_size > 0
    assert {(row["words"], row["wrong"]) for row in figures.values()} == {(9, 2)}
    assert figures["calibrated"]["nats"] < figures["the model's"]["nats"]  # on the words it was fitted on
    assert "model.generation.confidence={bias:" in capsys.readouterr().out
    predictions = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    model = load_model(str(saved))
    for row in predictions:
        (hypothesis,) = model.transcribe(row["audio_filepath"], confidence=True, verbose=False)
        assert hypothesis.text == row["pred_text"]
        assert hypothesis.word_confidence != pytest.approx(row["word_confidence"])


def test_a_killed_run_goes_on_and_judges_the_same(run, tmp_path):
    run()
    predictions, metrics = (tmp_path / "out" / name for name in ("predictions.jsonl", "metrics.json"))
    whole, figures = predictions.read_text(), metrics.read_text()
    predictions.write_text(whole.splitlines(keepends=True)[0])
    run()
    assert (predictions.read_text(), metrics.read_text()) == (whole, figures)


def test_words_that_are_all_right_calibrate_nothing(run, tmp_path):
    right = tmp_path / "right.jsonl"
    write_manifest(
        right, [{"audio_filepath": str(RECORDINGS / "digits_theo.flac"), "text": "three one four one five"}]
    )
    with pytest.raises(ValueError, match="of 5 words 5 are right"):
        run(calibration_manifest=str(right))


def test_a_place_for_the_model_needs_something_to_fit(run, tmp_path):
    with pytest.raises(ValueError, match="calibration_manifest"):
        run(save_to=str(tmp_path / "x.nemo"))

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

"""``examples/evaluate_instructions.py`` on a tiny SALM."""

import json

import pytest
from omegaconf import OmegaConf

from nemo_speechllm.models import load_model
from nemo_speechllm.prompts.instruction_pools import load_adversarial


@pytest.fixture
def run(load_script):
    script = load_script("evaluate_instructions")
    defaults = OmegaConf.structured(script.EvaluateInstructionsArguments)
    return lambda **arguments: script.main(OmegaConf.merge(defaults, arguments))


def test_results_hold_every_skill_and_a_killed_run_goes_on(run, tiny_nemo, make_manifest, tmp_path, nemo_log):
    output = tmp_path / "instructions"
    manifest = make_manifest((0.5, 0.3, 0.4), rows=[{"speaker": speaker} for speaker in "aab"])
    arguments = dict(model=tiny_nemo, manifest=str(manifest), output_dir=str(output), max_new_tokens=2)
    arguments |= dict(skills=["transcribe", "reverse", "keywords"], per_cell=2, per_trap=1, pairs=2)
    run(**arguments)
    assert "answers were cut at max_new_tokens=2" in nemo_log.text
    metrics = json.loads((output / "metrics.json").read_text())
    assert list(metrics["skills"]) == arguments["skills"]
    assert metrics["skills"]["reverse"]["unseen"]["answers"] == 2
    assert metrics["skills"]["reverse"]["held_out"]["answers"] == 2
    assert metrics["rule"]["seen"]["answers"] == 4 and metrics["written"]["seen"]["answers"] == 2
    assert metrics["adversarial"]["all"]["answers"] == len(load_adversarial())
    assert metrics["concatenated"]["answers"] == metrics["overlapped"]["answers"] == 2
    assert metrics["transcription"]["utterances"] == 3 and metrics["targets"] == {"kind": "extractive"}
    assert (output / "results.png").read_bytes().startswith(b"\x89PNG")
    answers = read_lines(output / "answers.jsonl")
    assert len(answers) == 18 + len(load_adversarial()) + 4
    reverse = next(a for a in answers if a["name"] == "reverse" and a["group"] == "skills")
    assert reverse["targets"] == [["reverse", " ".join(reversed(reverse["transcript"].split()))]]
    assert reverse["own_targets"] == [["reverse", " ".join(reversed(reverse["own_transcript"].split()))]]

    predictions = output / "predictions.jsonl"
    whole = predictions.read_text()
    predictions.write_text("".join(whole.splitlines(keepends=True)[:-3]))
    run(**arguments)
    texts = [
        [json.loads(line)["pred_text"] for line in lines.splitlines()] for lines in (whole, predictions.read_text())
    ]
    assert texts[0] == texts[1]
    again = json.loads((output / "metrics.json").read_text())
    assert again["skills"] == metrics["skills"]
    with pytest.raises(ValueError, match="predictions of another evaluation"):
        run(**arguments | {"seed": 1})


def test_a_model_that_answers_by_ctc_is_refused(run, tiny_nemo, make_manifest, tmp_path):
    model = load_model(tiny_nemo)
    model.cfg.generation.decoder = "ctc"
    model.save_to(tmp_path / "encoder.nemo")
    arguments = dict(model=str(tmp_path / "encoder.nemo"), manifest=str(make_manifest((0.5,))))
    with pytest.raises(ValueError, match="encoder.nemo answers by CTC .* which reads no instruction"):
        run(**arguments, output_dir=str(tmp_path / "out"), pairs=0)


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    "row, arguments, message",
    [
        ({"text": None}, {}, "manifest.jsonl:1: text: nothing is said"),
        ({}, {"skills": ["sing"]}, "no such skill"),
        ({}, {"per_cell": 0, "per_trap": 0, "pairs": 0}, "per_cell or per_trap must be above 0"),
    ],
)
def test_refuses(run, make_manifest, row, arguments, message):
    manifest = make_manifest((0.3,), rows=[row])
    with pytest.raises(ValueError, match=message):
        run(model="unread.nemo", manifest=str(manifest), output_dir="unread", **arguments)

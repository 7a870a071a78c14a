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

"""``examples/evaluate_robustness.py`` on a tiny SALM."""

import json

import pytest
import soundfile
from omegaconf import OmegaConf

from nemo_speechllm.manifests.check import check_manifest
from nemo_speechllm.manifests.manifest import read_manifest


@pytest.fixture
def robustness(load_script):
    return load_script("evaluate_robustness")


@pytest.fixture
def run(run_with_evaluate):
    return run_with_evaluate("evaluate_robustness", "EvaluateRobustnessArguments")


def test_conditions_have_the_same_words_and_a_table(run, tiny_nemo, make_manifest, tmp_path):
    rows = [{"lang": "en"}, {"lang": "fr"}, {"lang": "en"}, {"lang": "fr", "offset": 0.1, "duration": 0.6}]
    manifest = make_manifest((1.0, 0.6, 1.4, 0.8), rows=rows)
    noise = make_manifest((0.3,), "noise.jsonl")
    output = tmp_path / "robustness"
    arguments = dict(
        model=tiny_nemo,
        manifest=str(manifest),
        noise_manifest=str(noise),
        output_dir=str(output),
        noises=["pink", "recorded"],
        snrs=[5],
        lengths=[3],
        evaluate=["max_new_tokens=2"],
    )
    run(**arguments)
    names = ["as_is", "pink_5dB", "recorded_5dB", "joined_3s"]
    results = json.loads((output / "results.json").read_text())
    assert list(results) == names
    assert {report["words"]["reference"] for report in results.values()} == {16}
    assert [report["utterances"] for report in results.values()] == [4, 4, 4, 2]
    assert len((output / "results.md").read_text().splitlines()) == 2 + len(names)
    assert len((output / "results.csv").read_text().splitlines()) == 1 + 4 * len(names)
    assert (output / "results.png").read_bytes().startswith(b"\x89PNG")
    for name in names:
        assert check_manifest(output / name / "manifest.jsonl")[1] == []
    joined = read_manifest(output / "joined_3s" / "manifest.jsonl")
    assert [(row["lang"], row["text"], row["duration"]) for row in joined] == [
        ("en", "press one for support thank you", 2.9),
        ("fr", "please hold the line your call is important to us", 1.7),
    ]

    # killed before the manifest of the last condition was whole: that one is made again, the others are not
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*.flac")}
    (output / "joined_3s" / "manifest.jsonl").unlink()
    run(**arguments)
    again = {path: path.stat().st_mtime_ns for path in output.rglob("*.flac")}
    assert {path for path in before if again[path] != before[path]} == set((output / "joined_3s").rglob("*.flac"))
    assert json.loads((output / "results.json").read_text())["joined_3s"]["words"] == results["joined_3s"]["words"]
    with pytest.raises(ValueError, match="audio made of something else.*seed was 0, is 1"):
        run(**arguments | {"seed": 1})


def test_noise_depends_on_the_utterance_and_not_on_the_ratio(robustness, make_manifest):
    manifest = make_manifest((0.5, 0.5), rows=[{}, {"audio_filepath": "manifest-0.flac"}])
    rows = read_manifest(manifest, locate_audio=True)
    cfg = OmegaConf.structured(robustness.EvaluateRobustnessArguments(manifest=str(manifest)))
    speech = robustness.samples_of(rows[0])
    noises = []
    for snr in (0, 6):
        first, second = (s - speech for _, s in robustness.changed(robustness.Condition("white", snr), rows, [], cfg))
        assert abs(first - second).max() > 0.01
        noises.append(first)
    assert noises[0] == pytest.approx(noises[1] * 10 ** (6 / 20), abs=1e-6)


def test_a_silent_recording_is_named(robustness, make_manifest, tmp_path):
    manifest = make_manifest((0.5,))
    soundfile.write(tmp_path / "manifest-0.flac", [0.0] * 8000, 16000)
    rows = read_manifest(manifest, locate_audio=True)
    cfg = OmegaConf.structured(robustness.EvaluateRobustnessArguments(manifest=str(manifest)))
    with pytest.raises(ValueError, match="manifest.jsonl:1: .*manifest-0.flac: the speech is silent"):
        list(robustness.changed(robustness.Condition("white", 0), rows, [], cfg))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"noises": ["brown"]}, "no such noise; there are"),
        ({"noises": ["recorded"]}, "go together"),
        ({"noise_manifest": "noise.jsonl"}, "go together"),
    ],
)
def test_refuses(run, arguments, message):
    with pytest.raises(ValueError, match=message):
        run(model="unread.nemo", manifest="unread.jsonl", output_dir="out", **arguments)


def test_transcripts_and_translations_are_joined_among_themselves(run, tiny_nemo, make_manifest, tmp_path):
    rows = [{}, {"target_lang": "es", "answer": "hola"}, {"target_lang": "fr", "answer": "salut"}] * 2
    manifest = make_manifest((0.5,) * 6, rows=rows)
    output = tmp_path / "out"
    run(
        model=tiny_nemo,
        manifest=str(manifest),
        output_dir=str(output),
        noises=[],
        lengths=[2],
        evaluate=["max_new_tokens=2"],
    )
    joined = read_manifest(output / "joined_2s" / "manifest.jsonl")
    assert [(row.get("target_lang"), row.get("answer")) for row in joined] == [
        (None, None), ("es", "hola hola"), ("fr", "salut salut"),
    ]  # fmt: skip
    table = (output / "results.md").read_text()
    assert "| BLEU (95 % interval) | en>es | en>fr |" in table and table.count("| joined_2s |") == 2

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

"""``examples/analyze_alignment.py`` on a tiny SALM."""

import json

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from nemo_speechllm.metrics.alignment import alignment_score, cosine_map
from nemo_speechllm.models import load_model


@pytest.fixture
def analyze(load_script):
    module = load_script("analyze_alignment")
    defaults = OmegaConf.structured(module.AnalyzeAlignmentArguments)
    return lambda **arguments: module.main(OmegaConf.merge(defaults, arguments))


def test_scores_and_maps_of_a_manifest(analyze, tiny_nemo, make_manifest, tmp_path, capsys):
    manifest = make_manifest((1.0, 0.6, 1.4, 0.8), rows=[{}, {"text": "one"}, {}, {}])
    output = tmp_path / "alignment"
    arguments = dict(model=tiny_nemo, manifest=str(manifest), maps=2, batch_size=3)
    analyze(**arguments, output_dir=str(output))
    report = json.loads((output / "alignment.json").read_text())
    assert [row["index"] for row in report["rows"]] == [0, 2, 3] and [r["index"] for r in report["skipped"]] == [1]
    assert report["frame_shift"] == pytest.approx(0.08)
    for score in ("monotonicity", "path_cosine", "path_gain"):
        assert report[score]["mean"] == pytest.approx(np.mean([row[score] for row in report["rows"]]))
        assert report[score]["ci"][0] <= report[score]["mean"] <= report[score]["ci"][1]
    images = sorted((output / "maps").iterdir())
    assert [image.name[:5] for image in images] == ["0000_", "0002_"]
    assert all(image.read_bytes().startswith(b"\x89PNG") for image in images)
    assert "path_gain" in capsys.readouterr().out

    analyze(**arguments | {"batch_size": 1, "limit": 3}, output_dir=str(tmp_path / "again"))
    again = json.loads((tmp_path / "again" / "alignment.json").read_text())
    assert [row["path"] for row in again["rows"]] == [row["path"] for row in report["rows"][:2]]


def test_a_model_whose_speech_is_its_text_is_on_the_diagonal(tiny_nemo):
    model = load_model(tiny_nemo)
    tokens, text = model.embed_text("Please hold the line, thank you.")
    assert "".join(tokens) == "Please hold the line, thank you."
    assert torch.equal(text, model.llm.get_input_embeddings().weight[model.tokenizer("".join(tokens)).input_ids])
    score = alignment_score(cosine_map(text.numpy(), text.repeat_interleave(3, 0).numpy()))
    assert score.monotonicity == pytest.approx(1) and score.path_cosine == pytest.approx(1) and score.path_p < 0.01


def test_what_cannot_be_scored_is_an_error(analyze, tiny_nemo, make_manifest, tmp_path):
    manifest = make_manifest((0.5,), text="one")
    with pytest.raises(ValueError, match="not one of 1 utterances has two tokens"):
        analyze(model=tiny_nemo, manifest=str(manifest), output_dir=str(tmp_path / "out"))
    assert not (tmp_path / "out" / "alignment.json").exists()

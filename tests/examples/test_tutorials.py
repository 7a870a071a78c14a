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

"""The notebooks of ``examples/tutorials``, run from top to bottom on tiny models."""

import json
import re
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest

TUTORIALS = Path(__file__).parents[2] / "examples" / "tutorials"
TEXTS = [{"text": "Press one for Kubernetes.", "speaker": "en_US_f_Allison", "lang": "en"}] * 4


def run_notebook(name: str, folder: Path, parameters: dict[str, Any]) -> str:
    """Run a notebook in a folder, and return what it prints; a cell that fails raises."""
    found = papermill.execute_notebook(
        TUTORIALS / f"{name}.ipynb", folder / f"{name}.ipynb", parameters, cwd=folder, progress_bar=False
    )
    outputs = [output for cell in found.cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in outputs if output.get("name") == "stdout")


def tiny_sizes(llm: Path, whisper: Path) -> str:
    """Return what makes a recipe of a SALM a tiny one, as a command line has it."""
    adapter = "{n_layers: 1, d_model: 32, n_heads: 4, ff_expansion_factor: 2}"
    return (
        f"model.llm.pretrained={llm} model.perception.encoder.pretrained={whisper} "
        f"model.perception.adapter={adapter.replace(' ', '')} trainer.val_check_interval=1 trainer.accelerator=cpu"
    )


@pytest.mark.parametrize("path", sorted(TUTORIALS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_what_is_shown_was_run_from_top_to_bottom(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    counts = [cell.execution_count for cell in cells]
    assert counts == list(range(1, len(cells) + 1)) or not [output for cell in cells for output in cell.outputs]
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    assert not re.search(r"\B/(home|root|work|tmp)/", json.dumps(cells)), "a path of the machine where it was run"


def test_fine_tuning(tiny_nemo, make_manifest, tiny_llm_folder, tiny_whisper_folder, tmp_path):
    manifest = str(make_manifest((1.0, 1.2, 0.8, 1.1), name="prompts.jsonl", rows=TEXTS))
    parameters = {f"{split}_manifest": manifest for split in ("train", "dev", "test")}
    parameters |= {"model": tiny_nemo, "start": "init_from_pretrained_model=null", "runs": "runs", "steps": 2}
    printed = run_notebook(
        "01_fine_tune", tmp_path, parameters | {"changes": tiny_sizes(tiny_llm_folder, tiny_whisper_folder)}
    )
    assert "4 utterances" in printed or "WER" in printed
    assert (tmp_path / "runs" / "mine" / "checkpoints" / "mine.nemo").is_file()
    assert (tmp_path / "runs" / "mine" / "training.png").is_file()


def test_names(tiny_nemo, make_manifest, tmp_path):
    train = make_manifest((0.5, 0.6), name="train.jsonl", text="press one for pineapples and zebras")
    test = make_manifest((1.0, 1.2), name="test.jsonl", rows=TEXTS[:2])
    parameters = {"train_manifest": str(train), "test_manifest": str(test), "model": tiny_nemo, "runs": "runs"}
    printed = run_notebook("02_boost_names", tmp_path, parameters | {"sizes": [2]})
    assert "1 words that no training text holds: kubernetes" in printed
    assert (tmp_path / "runs" / "lists" / "mixed_2").is_dir()


def test_voices(make_desta2, make_manifest, tmp_path):
    model = tmp_path / "desta2.nemo"
    make_desta2().save_to(model)
    for number, language in enumerate(("en", "it")):
        speaker = f"{language}_XX_{'fm'[number]}_Somebody"
        row = {"text": "hello", "lang": language, "speaker": speaker}
        make_manifest((1.0, 0.8), name=f"test_{language}.jsonl", rows=[row, row])
    parameters = {"data": str(tmp_path), "languages": ["en", "it"], "model": str(model), "runs": "runs"}
    printed = run_notebook("03_describe_voices", tmp_path, parameters)
    assert "4 recordings" in printed
    assert (tmp_path / "runs" / "likelihood" / "metrics.json").is_file()

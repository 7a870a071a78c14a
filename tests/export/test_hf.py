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

"""What transformers makes of an exported folder, in a process that has not seen the model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import torch
from transformers import AutoModel, AutoModelForMultimodalLM

from nemo_speechllm.export.hf import export_hf
from tests.export.test_nemo_salm import ours
from tests.tiny_models import talkative

SCRIPT = """
import json, sys
import soundfile
from transformers import AutoModelForCausalLM, AutoProcessor

answers = {}
for folder in json.loads(sys.argv[1]):
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
    asked = [{"role": "user", "content": "<|audio|>Transcribe the speech."}]
    prompt = processor.apply_chat_template(asked, add_generation_prompt=True)
    audios = [soundfile.read(path, dtype="float32")[0] for path in sys.argv[2:]]
    ids = model.generate(**processor(text=[prompt] * len(audios), audio=audios))
    end = processor.tokenizer.eos_token_id
    answers[folder] = [row[: row.index(end)] if end in row else row for row in ids.tolist()]
print("ANSWERS", json.dumps(answers))
"""


def theirs(folders: list[str], files: list[str], cache: Path) -> dict[str, list[list[int]]]:
    command = [sys.executable, "-c", SCRIPT, json.dumps(folders), *files]
    env = os.environ | {"HF_MODULES_CACHE": str(cache)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.rpartition("ANSWERS")[2])


def test_generate_gives_our_tokens(make_salm, make_nemo_salm, files, tmp_path):
    alone = {"generation": {"ctc_weight": 0.0}}
    models = {
        "shipped": talkative(make_salm(**alone)),  # Whisper, stack, Conformer, CTC compression
        "penalty": talkative(make_salm(generation={"ctc_weight": 0.0, "repetition_penalty": 1.3, "beam_size": 2})),
        "nemo": make_nemo_salm(perception={"adapter": None}),
    }
    expected = {}
    for name, model in models.items():
        audios = [soundfile.read(path, dtype="float32")[0] for path in files]
        expected[str(tmp_path / name)] = ours(model, audios)
        export_hf(model, tmp_path / name)
    assert len({json.dumps(row) for rows in expected.values() for row in rows}) > 5, "answers depend on the audio"
    assert theirs(list(expected), files, tmp_path / "cache") == expected


class TestFolder:
    @pytest.fixture
    def folder(self, make_salm, tmp_path) -> Path:
        export_hf(make_salm(), tmp_path / "salm", torch.bfloat16)
        return tmp_path / "salm"

    def test_loads_as_rounded_but_hears_in_float32_and_can_be_saved_again(self, folder, tmp_path):
        model = AutoModelForMultimodalLM.from_pretrained(folder, trust_remote_code=True)
        assert type(model).__module__.startswith("transformers_modules.")  # the folder's code, not the package's
        dtypes = {name.partition(".")[0]: p.dtype for name, p in model.named_parameters()}
        assert dtypes == {"llm": torch.bfloat16, "perception": torch.float32, "alignment": torch.float32}
        assert not any("lora" in name for name, _ in model.named_parameters())
        model.save_pretrained(tmp_path / "again")
        again = AutoModel.from_pretrained(tmp_path / "again", trust_remote_code=True)
        assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())

    def test_names_no_place_of_this_machine(self, folder, tmp_path, tiny_llm_folder, tiny_whisper_folder):
        for path in folder.iterdir():
            content = path.read_bytes()
            for place in (tmp_path, tiny_llm_folder, tiny_whisper_folder, Path.home() / ".cache"):
                assert str(place).encode() not in content, path

    def test_its_generation_is_the_recipe_s(self, folder):
        config = json.loads((folder / "generation_config.json").read_text())
        assert (config["max_new_tokens"], config["do_sample"]) == (8, False)

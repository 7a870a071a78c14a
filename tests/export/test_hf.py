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

import numpy as np
import pytest
import soundfile
import torch
from transformers import AutoModel, AutoModelForMultimodalLM, AutoProcessor

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


@pytest.fixture
def files(make_audio, tmp_path) -> list[str]:
    for seed, seconds in enumerate((1.0, 2.3, 0.7)):
        soundfile.write(tmp_path / f"{seed}.wav", make_audio(seconds, seed), 16000, "FLOAT")
    return [str(tmp_path / f"{seed}.wav") for seed in range(3)]


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


class TestProcessor:
    @pytest.fixture
    def processor(self, make_salm, tmp_path):
        export_hf(make_salm(), tmp_path / "salm")
        return AutoProcessor.from_pretrained(tmp_path / "salm", trust_remote_code=True)

    def test_reads_files_that_a_conversation_names(self, processor, files):
        parts = [{"type": "audio", "audio": files[0]}, {"type": "text", "text": "Transcribe the speech."}]
        options = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
        inputs = processor.apply_chat_template([{"role": "user", "content": parts}], **options)
        asked = [{"role": "user", "content": "<|audio|>Transcribe the speech."}]
        text = processor.apply_chat_template(asked, add_generation_prompt=True)
        expected = processor(text=text, audio=soundfile.read(files[0], dtype="float32")[0])
        assert {*inputs} == {*expected} == {"input_ids", "attention_mask", "audio", "audio_lengths"}
        assert all(torch.equal(inputs[key], expected[key]) for key in expected)

    def test_pads_prompts_on_the_left_and_audio_on_the_right(self, processor):
        inputs = processor(text=["<|audio|><|audio|>", "a b c d"], audio=[np.ones(5), np.ones(3)])
        assert inputs["attention_mask"][0, 0] == 0 and inputs["audio"][1].tolist() == [1, 1, 1, 0, 0]
        assert inputs["audio_lengths"].tolist() == [5, 3]

    def test_refuses_another_rate_and_audio_without_a_place(self, processor):
        with pytest.raises(ValueError, match="the audio is at 8000 Hz; resample it to 16000 Hz"):
            processor(text="<|audio|>", audio=np.ones(5), sampling_rate=8000)
        with pytest.raises(ValueError, match=r"the prompts have 1 times <\|audio\|>, and 2 audios were given"):
            processor(text="<|audio|>", audio=[np.ones(5), np.ones(3)])

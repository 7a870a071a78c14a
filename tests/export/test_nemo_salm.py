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

"""What NeMo's own SALM makes of an exported folder."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from nemo.collections.speechlm2.models import SALM as NeMoSALM
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from nemo_speechllm.data.conversation import Audio
from nemo_speechllm.export.chat import AUDIO, asked_ids, exported_tokenizer
from nemo_speechllm.export.hf import export_hf
from nemo_speechllm.export.nemo_salm import NO_PROMPT_FORMAT, export_nemo_salm
from nemo_speechllm.models.speech_lm import SpeechLM

ASKED = "Transcribe the speech."
FASTER = {"n_layers": 1, "d_model": 32, "subsampling": "dw_striding", "subsampling_factor": 2, "n_heads": 4}


def ours(model: SpeechLM, audios: list[np.ndarray]) -> list[list[int]]:
    asked = [model.builder.conversation(Audio(torch.from_numpy(audio)), {}, "a") for audio in audios]
    return [answer.ids for answer in model.generate(asked, max_new_tokens=8)]


def theirs(folder: Path, audios: list[np.ndarray]) -> list[list[int]]:
    """The answers of NeMo's SALM, asked by its tokenizer's chat template, all in one batch."""
    model = NeMoSALM.from_pretrained(str(folder)).eval()
    messages = [{"role": "user", "content": AUDIO + ASKED}]
    tokenizer = model.tokenizer.tokenizer
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False, return_tensors="pt")
    rows = []
    for audio in audios:
        samples = torch.from_numpy(audio)[None]
        answer = model.generate(ids, samples, torch.tensor([len(audio)]), max_new_tokens=8)[0].tolist()
        rows.append(answer[: answer.index(tokenizer.eos_token_id)] if tokenizer.eos_token_id in answer else answer)
    return rows


@pytest.mark.parametrize("perception", [{"adapter": None}, {}, {"adapter": None, "stack": 3}, {"adapter": FASTER}])
def test_nemo_s_own_generate_gives_our_tokens(make_nemo_salm, make_audio, tmp_path, perception):
    model = make_nemo_salm(perception=perception)
    audios = [make_audio(seconds, seed) for seed, seconds in enumerate((1.0, 2.3, 0.7))]
    expected = ours(model, audios)
    assert len(set(map(tuple, expected))) > 1, "answers that do not depend on the audio would prove nothing"
    export_nemo_salm(model, tmp_path / "salm")
    assert theirs(tmp_path / "salm", audios) == expected


def test_a_folder_of_nemo_s_own_modules_names_no_class_of_this_package(make_nemo_salm, tmp_path):
    export_nemo_salm(make_nemo_salm(perception={"adapter": None}), tmp_path / "salm")
    assert "nemo_speechllm" not in (tmp_path / "salm" / "config.json").read_text()


class TestWhatNeMoReads:
    @pytest.fixture
    def folder(self, make_nemo_salm, tmp_path) -> Path:
        export_nemo_salm(make_nemo_salm(), tmp_path / "salm", torch.bfloat16)
        return tmp_path / "salm"

    def test_the_config_has_what_the_vllm_plugin_asks_for(self, folder, monkeypatch):
        config = json.loads((folder / "config.json").read_text())
        from nemo.collections.speechlm2.vllm.salm.config import NeMoSpeechLMConfig

        read = NeMoSpeechLMConfig(**{key: config[key] for key in config if key not in ("model_type", "architectures")})
        assert (read.audio_locator_tag, read.text_config.model_type, read.lora) == (AUDIO, "llama", None)
        assert config["architectures"] == ["NeMoSpeechLMForConditionalGeneration"]
        assert config["prompt_format"] == NO_PROMPT_FORMAT  # SmolLM2's template has a system prompt that none has

    def test_weights_are_of_the_type_that_was_asked_for_and_lora_is_merged(self, folder):
        weights = load_file(folder / "model.safetensors")
        assert not any("lora" in name for name in weights)
        trained = {name: value.dtype for name, value in weights.items() if value.is_floating_point()}
        assert trained["llm.model.layers.0.self_attn.q_proj.weight"] == torch.bfloat16
        assert trained["perception.preprocessor.featurizer.fb"] == torch.float32  # the mel filters are no weights


def test_a_folder_may_move_and_nemo_s_prompt_format_may_fit(make_nemo_salm, make_audio, tmp_path):
    """Of a chat template that one of NeMo's prompt formats knows, NeMo's own prompts ask as the model was asked."""
    chat = (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    model = make_nemo_salm(prompt={"chat_template": chat, "system_prompt": None})
    expected = ours(model, [make_audio(1.3)])
    export_nemo_salm(model, tmp_path / "salm")
    assert json.loads((tmp_path / "salm" / "config.json").read_text())["prompt_format"] == "qwen3"
    shutil.move(tmp_path / "salm", tmp_path / "moved")
    soundfile.write(tmp_path / "a.wav", make_audio(1.3), 16000, "FLOAT")
    asked = {"role": "user", "content": AUDIO + ASKED, "audio": [str(tmp_path / "a.wav")]}
    moved = NeMoSALM.from_pretrained(str(tmp_path / "moved")).eval()
    (ids,) = moved.generate([[asked]], max_new_tokens=8).tolist()
    assert ids[: len(expected[0])] == expected[0]


def test_only_where_vllm_finds_the_llm_is_a_place_of_this_machine(make_nemo_salm, tmp_path, tiny_llm_folder):
    export_nemo_salm(make_nemo_salm(), tmp_path / "salm")
    config = json.loads((tmp_path / "salm" / "config.json").read_text())
    assert config.pop("pretrained_llm") == str(tmp_path / "salm" / "llm_backbone")
    (tmp_path / "salm" / "config.json").write_text(json.dumps(config))
    for path in (path for path in (tmp_path / "salm").rglob("*") if path.is_file()):
        for place in (tmp_path, tiny_llm_folder, Path.home() / ".cache"):
            assert str(place).encode() not in path.read_bytes(), path


def test_a_folder_that_is_there_is_kept(make_nemo_salm, tmp_path):
    (tmp_path / "salm").mkdir()
    (tmp_path / "salm" / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="salm is there already; give the name of a new folder"):
        export_nemo_salm(make_nemo_salm(), tmp_path / "salm")


def test_who_uses_the_folder_is_told_what_it_needs(make_nemo_salm, tmp_path, nemo_log):
    export_nemo_salm(make_nemo_salm(), tmp_path / "ours")
    for told in ("`import nemo_speechllm` before", "vLLM plugin cannot serve", "no prompt format of NeMo asks"):
        assert told in nemo_log.text
    nemo_log.clear()
    export_nemo_salm(make_nemo_salm(perception={"adapter": None}), tmp_path / "nemo")
    assert "vLLM" not in nemo_log.text and "import nemo_speechllm" not in nemo_log.text


def test_an_llm_whose_last_layer_is_its_own(make_nemo_salm, make_audio, tokenizer, tmp_path):
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(tmp_path / "llm")
    tokenizer.save_pretrained(tmp_path / "llm")
    model = make_nemo_salm(llm={"pretrained": str(tmp_path / "llm")})
    assert not model.llm.config.tie_word_embeddings
    audios = [make_audio(1.0), make_audio(1.7, 1)]
    expected = ours(model, audios)
    export_nemo_salm(model, tmp_path / "nemo")
    assert theirs(tmp_path / "nemo", audios) == expected
    export_hf(model, tmp_path / "hf")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", trust_remote_code=True)
    ids = torch.tensor([asked_ids(exported_tokenizer(model), ASKED)])
    answers = [loaded.generate(ids, audio=torch.from_numpy(audio)[None])[0].tolist() for audio in audios]
    assert [answer[: len(row)] for answer, row in zip(answers, expected, strict=True)] == expected

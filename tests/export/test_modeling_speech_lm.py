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

"""The model and processor of an exported Hugging Face folder."""

import numpy as np
import pytest
import soundfile
import torch
from transformers import AutoProcessor

from nemo_speechllm.export.chat import asked_ids, exported_tokenizer
from nemo_speechllm.export.hf import export_hf, hf_model
from nemo_speechllm.modules.llm import merge_lora
from tests.export.test_nemo_salm import ASKED, ours
from tests.tiny_models import talkative


class TestModel:
    @pytest.fixture
    def tokenizer(self, salm):
        return exported_tokenizer(salm)

    @pytest.fixture
    def exported(self, salm, tokenizer):
        merge_lora(salm.llm)
        return hf_model(salm, tokenizer)

    @pytest.mark.parametrize("adapter", [None, {"type": "qformer", "n_queries": 8, "n_layers": 1, "n_heads": 4}])
    def test_other_adapters(self, make_salm, tiny_salm_config, make_audio, adapter):
        perception = tiny_salm_config.model.perception
        perception.adapter, perception.stack = adapter, 1
        silent = {"loss": {"ctc_weight": 0.0}, "ctc_compression": False, "generation": {"ctc_weight": 0.0}}
        model, samples = talkative(make_salm(**silent)), make_audio(1.2)
        (expected,) = ours(model, [samples])
        merge_lora(model.llm)
        tokenizer = exported_tokenizer(model)
        ids = torch.tensor([asked_ids(tokenizer, ASKED)])
        (answer,) = hf_model(model, tokenizer).generate(ids, audio=torch.from_numpy(samples)[None]).tolist()
        assert answer[: len(expected)] == expected

    def test_text_alone_and_a_user_s_own_settings(self, exported, tokenizer):
        inputs = tokenizer(
            ["thank you", "please hold the line"], return_tensors="pt", padding=True, padding_side="left"
        )
        answers = exported.generate(**inputs, max_new_tokens=3, num_beams=2)
        alone = exported.llm.generate(**inputs, max_new_tokens=3, num_beams=2, do_sample=False)
        assert answers.tolist() == alone[:, inputs["input_ids"].shape[1] :].tolist()

    def test_its_forward_pass_reads_what_generate_reads(self, exported, tokenizer, make_audio):
        ids, audio = torch.tensor([asked_ids(tokenizer, ASKED)]), torch.from_numpy(make_audio(1.0))[None]
        first = exported.generate(ids, audio=audio, max_new_tokens=1)
        assert exported(ids, audio=audio).logits[:, -1:].argmax(-1).tolist() == first.tolist()

    def test_audio_without_a_place(self, exported, tokenizer):
        ids = torch.tensor([asked_ids(tokenizer, ASKED)])
        with pytest.raises(ValueError, match="the prompts have 1 places for audio, and 2 audios were given"):
            exported.generate(ids, audio=torch.zeros(2, 16000))


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

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

"""What cannot be exported is refused by its settings' names; what is left behind is said."""

import pytest
from transformers import GPT2Config, GPT2LMHeadModel

from nemo_speechllm.export.hf import export_hf
from nemo_speechllm.export.limits import ExportError, left_behind
from nemo_speechllm.export.nemo_salm import export_nemo_salm
from nemo_speechllm.modules.quantization import to_int8


def refused(model, tmp_path, export=export_nemo_salm) -> str:
    with pytest.raises(ExportError) as error:
        export(model, tmp_path / "out")
    assert not list(tmp_path.glob("out*")) and str(error.value).endswith("format=nemo keeps all of it")
    return str(error.value)


class TestNeMoSALM:
    def test_whisper_and_compression(self, make_salm, tmp_path):
        message = refused(make_salm(), tmp_path)
        assert "model.perception.encoder.type=whisper" in message and "model.ctc_compression=true" in message

    def test_a_q_former(self, make_salm, tiny_salm_config, tmp_path):
        perception = tiny_salm_config.model.perception
        perception.adapter, perception.stack = {"type": "qformer", "n_queries": 8, "n_layers": 1, "n_heads": 4}, 1
        silent = {"loss": {"ctc_weight": 0.0}, "ctc_compression": False, "generation": {"ctc_weight": 0.0}}
        assert "model.perception.adapter.type=qformer" in refused(make_salm(**silent), tmp_path)

    def test_an_encoder_that_stacks_frames(self, make_nemo_salm, fastconformer_config, tmp_path):
        stacking = fastconformer_config["encoder"] | {"subsampling": "stacking", "subsampling_factor": 4}
        encoder = {"type": "nemo", "pretrained": None, "config": fastconformer_config | {"encoder": stacking}}
        model = make_nemo_salm(perception={"adapter": None, "encoder": encoder})
        assert "model.perception.encoder stacks frames" in refused(model, tmp_path)

    def test_posteriors(self, make_nemo_salm, ctc_tokenizer_folder, tmp_path):
        head = {"tokenizer": str(ctc_tokenizer_folder / "tokenizer.model")}
        model = make_nemo_salm(ctc_head=head, ctc_posterior={}, perception={"adapter": None})
        assert "model.ctc_posterior" in refused(model, tmp_path)

    def test_another_model(self, make_ctc_prompted, tmp_path):
        assert "model.target is CTCPromptedLLM" in refused(make_ctc_prompted(), tmp_path)

    def test_an_llm_that_nemo_cannot_take_apart(self, make_nemo_salm, tiny_llm_folder, tokenizer, tmp_path):
        sizes = {"n_embd": 64, "n_layer": 1, "n_head": 4}
        GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes)).save_pretrained(tmp_path / "gpt2")
        tokenizer.save_pretrained(tmp_path / "gpt2")
        model = make_nemo_salm(llm={"pretrained": str(tmp_path / "gpt2")}, lora=None)
        assert "model.llm.pretrained is a GPT2LMHeadModel" in refused(model, tmp_path)

    def test_rounded_weights(self, make_nemo_salm, tmp_path):
        model = make_nemo_salm()
        to_int8(model)
        assert "without int8:" in refused(model, tmp_path)


class TestHuggingFace:
    def test_posteriors(self, make_salm, ctc_tokenizer_folder, tmp_path):
        head = {"tokenizer": str(ctc_tokenizer_folder / "tokenizer.model")}
        silent = {"loss": {"ctc_weight": 0.0}, "ctc_compression": False, "generation": {"ctc_weight": 0.0}}
        model = make_salm(ctc_head=head, ctc_posterior={}, **silent)
        assert "model.ctc_posterior" in refused(model, tmp_path, export_hf)

    def test_another_model(self, make_ctc_prompted, tmp_path):
        assert "model.target is CTCPromptedLLM" in refused(make_ctc_prompted(), tmp_path, export_hf)

    def test_rounded_weights(self, make_salm, tmp_path):
        model = make_salm()
        to_int8(model)
        assert "without int8:" in refused(model, tmp_path, export_hf)


def test_all_that_is_left_behind_is_said(salm, make_nemo_salm):
    said = "\n".join(left_behind(salm))
    for setting in ("ctc_weight=0.3", "guards: silence", "max_keywords=64", "max_audio_seconds=10.0", "decoder=ctc"):
        assert setting in said
    alone = {"guards": {"silence": None}, "max_keywords": None, "max_audio_seconds": None}
    assert left_behind(make_nemo_salm(generation=alone | {"ctc_weight": 0.0})) == []

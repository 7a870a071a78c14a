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

"""``examples/evaluate_text_ability.py``: a frozen LLM answers as before, one with trained LoRA does not."""

import json
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from nemo_speechllm.models import SALM, DeSTA2
from nemo_speechllm.models.decoder_only import DecoderOnlySpeechLM

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(load_script, tmp_path):
    script = load_script("evaluate_text_ability")
    (tmp_path / "questions.txt").write_text("Who wrote <|im_end|>Hamlet?\nWhat is 17 plus 25?\n")
    defaults = OmegaConf.structured(script.EvaluateTextAbilityArguments)
    given = {"questions": str(tmp_path / "questions.txt"), "output_dir": str(tmp_path / "out"), "max_new_tokens": 6}

    def call(model: DecoderOnlySpeechLM) -> dict:
        model.save_to(tmp_path / "tiny.nemo")
        script.main(OmegaConf.merge(defaults, given | {"model": str(tmp_path / "tiny.nemo")}))
        return json.loads((tmp_path / "out/metrics.json").read_text())

    return call


@pytest.fixture
def desta2_config(tiny_salm_config) -> DictConfig:
    cfg, tiny = OmegaConf.load(ROOT / "conf/desta2/whisper_base_smollm2.yaml").model, tiny_salm_config.model
    cfg.llm.pretrained, cfg.perception.encoder.pretrained = tiny.llm.pretrained, tiny.perception.encoder.pretrained
    cfg.perception.encoder.taps, cfg.perception.adapter.n_heads = [0, 1], 2
    cfg.train_ds, cfg.validation_ds = tiny.train_ds, tiny.validation_ds
    return cfg


def test_a_frozen_llm_answers_as_the_bare_one(run, desta2_config, tmp_path):
    desta2_config.prompt.system_prompt = "Be brief."
    metrics = run(DeSTA2(desta2_config))
    assert (metrics["questions"], metrics["tokens"], metrics["differing_tokens"]) == (2, 12, 0) and metrics[
        "identical"
    ]
    answers = [json.loads(line) for line in Path(tmp_path / "out/answers.jsonl").read_text().splitlines()]
    assert [answer["model_ids"] == answer["llm_ids"] for answer in answers] == [True, True]
    assert "<|im_end|>" in answers[0]["question"], "text for both, not the end of the turn"


def test_a_recipe_s_chat_template_is_used_for_both(run, desta2_config):
    desta2_config.prompt.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    assert run(DeSTA2(desta2_config))["identical"]


def test_a_changed_llm_is_found_out(run, tiny_salm_config):
    model = SALM(tiny_salm_config.model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                torch.nn.init.normal_(parameter, std=0.5)
    metrics = run(model)
    assert metrics["differing_tokens"] > 0 and not metrics["identical"]

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

"""A model that trains on instructions: what it is asked in each step, also after a resume, and in validation."""

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from nemo_speechllm.models import SALM
from nemo_speechllm.prompts.instruction_pools import load_pools
from nemo_speechllm.prompts.skills import RULES, SKILLS, apply_rule

SAMPLING = {"skills": None, "alpha": 1.0, "beta": 1.0, "split": "seen", "seed": 0, "targets": {"kind": "extractive"}}


@pytest.fixture
def fit(tiny_salm_config, make_manifest, make_trainer):
    """``fit(steps, ckpt_path=None, callbacks=(), **sampling)`` → what was asked and answered: in training, in
    validation."""

    tiny_salm_config.model.validation_ds.manifest_filepath = str(make_manifest((0.5, 0.7), "dev.jsonl"))

    def run(steps, ckpt_path=None, callbacks=(), **sampling):
        torch.manual_seed(0)
        trainer = make_trainer(
            max_steps=steps, callbacks=list(callbacks), val_check_interval=steps, check_val_every_n_epoch=None
        )
        cfg = OmegaConf.merge(tiny_salm_config.model, {"instruction_sampling": SAMPLING | sampling})
        model = SALM(cfg, trainer)
        asked = {True: [], False: []}
        loss = model.loss

        def recorded(batch, *known):
            asked[model.training] += [(c.id, c.question.instruction, c.answer) for c in batch.conversations]
            return loss(batch, *known)

        model.loss = recorded
        trainer.fit(model, ckpt_path=ckpt_path)
        return asked[True], asked[False]

    return run


def test_a_resumed_run_is_asked_what_it_would_have_been_asked(fit, save_at, tmp_path):
    checkpoint = tmp_path / "x.ckpt"
    whole, validated = fit(6, callbacks=[save_at(3, checkpoint)])  # in the middle of the second of three epochs
    resumed, _ = fit(6, ckpt_path=checkpoint)
    assert len(whole) == 12 and resumed == whole[6:]
    by_sample = {name: {text for other, text, _ in whole if other == name} for name, _, _ in whole}
    assert len(by_sample) == 4 and max(map(len, by_sample.values())) > 1, "each epoch asks something else"
    assert {text for _, text, _ in validated} == {"Transcribe the speech."}


def test_an_empty_answer_is_learnt(fit):
    asked, _ = fit(2, skills=["ignore"])
    assert "" in {answer for _, _, answer in asked}


def test_skills_are_checked_before_training(fit):
    with pytest.raises(ValueError, match=f"no such skill as \\['sing'\\]; there are .*{SKILLS[0]}"):
        fit(1, skills=["sing"])


def test_a_tokenizer_made_for_instructions_knows_every_instruction_and_every_target_of_a_rule(
    tokenizer_script, tmp_path
):
    words = "one two three four five"
    texts = [words, *tokenizer_script.instruction_texts()]
    tokenizer = tokenizer_script.train(texts, tmp_path / "tokenizer", 400, instructions=True)
    random, unknown = np.random.default_rng(0), []
    for skill in RULES:
        for _ in range(60):
            instruction, arguments = load_pools()[skill].draw("seen", words, random)
            drawn = (instruction, apply_rule(skill, words, arguments))
            unknown += [text for text in drawn if tokenizer.unk_id() in tokenizer.encode(" ".join(text.split()))]
    assert unknown == []

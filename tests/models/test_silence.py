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

"""A recording that is to be answered with nothing is trained on: the answer is its end alone, and CTC hears blanks."""

from pathlib import Path

import pytest
import torch
from nemo.collections.asr.models import EncDecCTCModelBPE
from omegaconf import OmegaConf

from nemo_speechllm.data.conversation import Audio, Conversation, Turn
from nemo_speechllm.data.dataset import ConversationDataset
from nemo_speechllm.models import SALM
from nemo_speechllm.modules.ctc import CTCHead
from nemo_speechllm.training.resume import resumable
from tests.tiny_models import TINY_ENCODER

ROOT = Path(__file__).parents[2]


def batch_of(model, answers: list[str], make_audio):
    items = [
        Conversation(
            f"item-{index}",
            [
                Turn("user", [Audio(torch.as_tensor(make_audio(1.0, seed=index))), "Transcribe the speech."]),
                Turn("assistant", [answer]),
            ],
            {"text": answer, "lang": "en", "task": "asr", "transcription": answer},
        )
        for index, answer in enumerate(answers)
    ]
    return ConversationDataset(model.builder).collate(items)


@pytest.mark.parametrize("maker", ["make_salm", "make_ctc_prompted", "make_instruct_las"])
@pytest.mark.parametrize("answers", [["", "please hold"], ["", ""]], ids=["one of two", "all"])
def test_a_training_step_learns_to_answer_with_nothing(maker, answers, request, make_audio):
    weights = {"make_ctc_prompted": {"ctc_weight": 0.5, "encoder_ctc_weight": 0.3}}.get(maker, {})
    model = request.getfixturevalue(maker)(loss=weights).train()
    losses = model.loss(batch_of(model, answers, make_audio))
    assert {"lm_loss", "loss"} < set(losses), "and a CTC"
    assert losses["lm_loss"] > 0 and all(torch.isfinite(loss) for loss in losses.values()), losses
    losses["loss"].backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert gradients and all(torch.isfinite(gradient).all() for gradient in gradients)


def test_only_the_end_of_the_answer_is_learned(make_salm, make_audio):
    model = make_salm()
    (item,) = batch_of(model, [""], make_audio).conversations
    learned = [
        token for segment in model.prompt.segments(item) if getattr(segment, "loss", 0) for token in segment.ids
    ]
    assert learned == [model.prompt.end_token_id]


def test_ctc_of_an_empty_transcript_is_the_likelihood_of_blanks(ctc_tokenizer_folder):
    torch.manual_seed(0)
    head, states = CTCHead(8, next(ctc_tokenizer_folder.rglob("tokenizer.model"))), torch.randn(2, 5, 8)
    blanks = -head.log_probs(states)[..., head.blank].sum(1).detach()
    loss = head.loss(states, torch.tensor([5, 5]), {0: "", 1: ""})
    assert float(loss.value) == pytest.approx(float(blanks.mean())) and loss.count == 2


def test_rows_of_silence_are_fitted_and_validated(tiny_salm_config, make_manifest, make_trainer):
    rows = [{"text": ""}, {}, {"text": ""}, {"answer": ""}]
    for name in ("train", "validation"):
        manifest = make_manifest(name=f"{name}.jsonl", rows=rows)
        tiny_salm_config.model[f"{name}_ds"].manifest_filepath = str(manifest)
    trainer = make_trainer(max_steps=4, val_check_interval=4, check_val_every_n_epoch=None)
    trainer.fit(SALM(tiny_salm_config.model, trainer))
    assert trainer.global_step == 4 and torch.isfinite(trainer.callback_metrics["val_loss"])


@pytest.mark.parametrize("silent", [1, 2], ids=["one of two", "all"])
def test_a_recogniser_of_nemos_own_takes_them(silent, ctc_tokenizer_folder, make_manifest, make_trainer):
    recipe = OmegaConf.load(ROOT / "conf/ctc_prompted_llm/stage1_ctc.yaml")
    manifest = make_manifest((1.0, 1.2), "train.jsonl", [{"text": ""}, {"text": "" if silent == 2 else "thank you"}])
    data = {"batch_duration": None, "batch_size": 2, "use_bucketing": False, "num_workers": 0, "min_duration": 0.1}
    data |= {"manifest_filepath": str(manifest)}
    changes = {"tokenizer": {"dir": str(ctc_tokenizer_folder)}, "encoder": TINY_ENCODER, "train_ds": data}
    recipe.model = OmegaConf.merge(recipe.model, changes | {"validation_ds": data})
    OmegaConf.resolve(recipe)
    trainer = make_trainer(max_steps=2)
    trainer.fit(resumable(EncDecCTCModelBPE)(recipe.model, trainer))
    assert trainer.global_step == 2

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

"""InstructLAS whose decoder attends to a frozen sentence encoder as well."""

import pytest
import torch

from nemo_speechllm.checkpointing.errors import CheckpointError
from nemo_speechllm.data.conversation import Audio, Conversation, Turn
from nemo_speechllm.models import InstructLAS, load_model
from tests.questions import collate
from tests.tiny_assets import write_bert


@pytest.fixture
def bert(tmp_path):
    return write_bert(tmp_path / "bert")


def asked(samples, instruction: str, answer: str | None = None) -> Conversation:
    turns = [Turn("user", [Audio(torch.as_tensor(samples)), instruction])]
    turns += [Turn("assistant", [answer])] if answer is not None else []
    return Conversation("test", turns, {"text": answer, "lang": "en"})


def test_an_answer_depends_on_what_the_encoder_makes_of_the_instruction(make_instruct_las, make_audio, bert):
    model = make_instruct_las(text_encoder={"pretrained": str(bert)}, instruction_dropout=0.9)
    torch.nn.init.normal_(model.text_encoder.projection.weight)  # of zeros where it has not been trained
    items = [asked(make_audio(1.0), text, "Hold the line.") for text in ("hold", "say all of it", "")]
    whole = model.answer_losses(items)
    assert whole == model.answer_losses(items)
    assert model.generate(items, max_new_tokens=5) == [
        answer for item in items for answer in model.generate([item], max_new_tokens=5)
    ]
    with torch.no_grad():
        model.text_encoder.projection.bias.add_(3.0)
    assert all(abs(a - b) > 1e-4 for a, b in zip(whole, model.answer_losses(items), strict=True))


def test_training_moves_its_projection_and_leaves_it_as_it_is(make_instruct_las, make_audio, bert):
    model = make_instruct_las(text_encoder={"pretrained": str(bert)}).train()
    assert not model.text_encoder.encoder.training
    model.loss(collate(model, [asked(make_audio(1.0), "hold", "Hold the line.")]))["loss"].backward()
    learned = {name for name, parameter in model.text_encoder.named_parameters() if parameter.grad is not None}
    assert learned == {"projection.weight", "projection.bias"}


def test_a_share_of_the_instruction_is_unknown_in_training_alone(make_instruct_las, make_audio):
    model = make_instruct_las(instruction_dropout=0.5)
    text = model._text([asked(make_audio(0.5), "Repeat the last word of this recording, please.", "Hold the line.")])
    read = model._with_dropout(text)[0]
    asked_for, written = read[: text.answer_start - 1], read[text.answer_start - 1 :]
    assert 0 < (asked_for == model.tokenizer.tokenizer.unk_id()).sum() < len(asked_for)
    assert written.tolist() == text.ids[0, text.answer_start - 1 :].tolist()
    batch = collate(model, [asked(make_audio(0.5), "Repeat the last word of this recording, please.", "Hold.")])
    assert model.loss(batch)["lm_loss"] == model.loss(batch)["lm_loss"]


@pytest.mark.parametrize("save_full", [False, True])
def test_its_weights_are_named_by_a_checkpoint_or_held(make_instruct_las, make_audio, bert, tmp_path, save_full):
    model = make_instruct_las(text_encoder={"pretrained": str(bert)}, save_full=save_full)
    torch.nn.init.normal_(model.text_encoder.projection.weight)
    model.save_to(tmp_path / "las.nemo")
    held = [name for name in model.state_dict() if name.startswith("text_encoder.encoder.")]
    assert bool(held) is save_full and "text_encoder.projection.weight" in model.state_dict()
    restored = load_model(str(tmp_path / "las.nemo"))
    assert isinstance(restored, InstructLAS)
    items = [asked(make_audio(1.0), text, "Hold the line.") for text in ("hold", "say all of it")]
    assert restored.answer_losses(items) == model.answer_losses(items)


def test_other_weights_than_those_it_was_trained_with_are_refused(make_instruct_las, bert, tmp_path):
    make_instruct_las(text_encoder={"pretrained": str(bert)}).save_to(tmp_path / "las.nemo")
    write_bert(bert, seed=1)
    with pytest.raises(CheckpointError, match="model.text_encoder.encoder.pretrained=.* holds other weights"):
        load_model(str(tmp_path / "las.nemo"))

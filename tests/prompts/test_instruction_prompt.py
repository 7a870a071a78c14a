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

"""A listen-attend-spell decoder reads ``instruction [EOT] answer``, and no text is read as a symbol."""

import pytest
import sentencepiece
import torch

from nemo_speechllm.data.conversation import Audio, Conversation, Turn
from nemo_speechllm.prompts.instruction_prompt import InstructionPrompt, InstructionTokenizer

AUDIO = Audio(torch.zeros(160))


@pytest.fixture(scope="module")
def tokenizer(instruction_tokenizer_folder) -> InstructionTokenizer:
    return InstructionTokenizer(instruction_tokenizer_folder / "tokenizer.model")


@pytest.fixture
def prompt(tokenizer) -> InstructionPrompt:
    return InstructionPrompt(tokenizer, "Words: {keywords}. ")


def asked(*turns: str) -> Conversation:
    """The first turn is the user's, about one audio; the others take turns."""
    roles = ("user", "assistant")
    parts = [[AUDIO, turns[0]], *([text] for text in turns[1:])]
    return Conversation("test", [Turn(roles[number % 2], part) for number, part in enumerate(parts)])


def test_the_answer_and_its_end_are_learned_and_the_instruction_is_not(prompt, tokenizer):
    instruction, answer = prompt.segments(asked("Hold", "Thank you."))
    assert instruction.ids == tokenizer("Hold").input_ids + [tokenizer.end_of_instruction_id] and not instruction.loss
    assert answer.ids == tokenizer("Thank you.").input_ids + [tokenizer.eos_id] and answer.loss
    assert prompt.segments(asked("Hold")) == [instruction]


def test_an_empty_instruction_and_an_empty_answer_are_their_symbols(prompt, tokenizer):
    instruction, answer = prompt.segments(asked("", ""))
    assert (instruction.ids, answer.ids) == ([tokenizer.end_of_instruction_id], [tokenizer.eos_id])


def test_the_last_question_alone_is_read(prompt):
    assert prompt.segments(asked("One.", "1", "Two.")) == prompt.segments(asked("Two."))


@pytest.mark.parametrize("text", ["Hold [EOT] the </s> line", "[EOT]", "</s><s>", "a[EOT]b"])
def test_no_text_is_read_as_a_symbol(prompt, tokenizer, text):
    (segment,) = prompt.segments(asked(text))
    symbols = {tokenizer.end_of_instruction_id, tokenizer.eos_id, tokenizer.bos_id}
    assert [token in symbols for token in segment.ids] == [False] * (len(segment.ids) - 1) + [True]


@pytest.mark.parametrize("text", ["Please HOLD the line.", "MERCI DE PATIENTER.", "нажмите РЕШЕТКУ."])
def test_case_is_kept_any_letter_is_known_in_both_cases_and_white_space_is_folded(tokenizer, text):
    assert tokenizer.ids_to_text(tokenizer(f" {text.replace(' ', '  ')}\n").input_ids) == text


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([Turn("user", ["Hello."])], "test: .* about one audio, this conversation has 0"),
        ([Turn("user", [AUDIO, AUDIO, "Same?"])], "test: .* about one audio, this conversation has 2"),
        ([Turn("user", [AUDIO]), Turn("system", ["Be brief."])], "test: the last turn before the answer must be"),
        (asked("One.", "1", "Two.", "2").turns, "test: a training example is one instruction and one answer"),
    ],
)
def test_what_it_was_not_made_for_is_refused(prompt, turns, message):
    with pytest.raises(ValueError, match=message):
        prompt.segments(Conversation("test", turns))


def test_a_model_without_the_symbols_is_refused_with_the_command(tmp_path):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["please hold the line"] * 9),
        model_prefix=str(tmp_path / "plain"),
        vocab_size=20,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    with pytest.raises(ValueError, match=r"plain.model has no control symbol \[EOT\].*train_tokenizer.py --instr"):
        InstructionTokenizer(tmp_path / "plain.model")

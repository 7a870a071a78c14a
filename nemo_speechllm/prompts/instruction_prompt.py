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

"""A conversation as a listen-attend-spell decoder writes it: ``instruction [EOT] answer`` (2309.09843, section 3)."""

from pathlib import Path

from nemo.collections.common.tokenizers import SentencePieceTokenizer
from transformers import BatchEncoding

from nemo_speechllm.data.conversation import Conversation
from nemo_speechllm.errors import InputError
from nemo_speechllm.prompts.plain_text import symbols
from nemo_speechllm.prompts.segments import END_OF_INSTRUCTION, TextSegment


class InstructionTokenizer(SentencePieceTokenizer):
    """NeMo's SentencePiece tokenizer whose model has ``[EOT]`` and an end token as symbols that no text is read as.

    It is called as Hugging Face's tokenizers are.

    Args:
        model_file: from ``examples/data/train_tokenizer.py --instructions``.

    Raises:
        ValueError: the model lacks one of the two symbols, or reads ``[EOT]`` in a text as the symbol.
    """

    def __init__(self, model_file: Path):
        super().__init__(str(model_file))
        self._symbols = symbols(self.tokenizer)
        self.end_of_instruction_id = self.token_to_id(END_OF_INSTRUCTION)
        if not self.tokenizer.is_control(self.end_of_instruction_id) or self.eos_id < 0:
            raise ValueError(
                f"the tokenizer {model_file} has no control symbol {END_OF_INSTRUCTION} or no end token; train one "
                "with `python examples/data/train_tokenizer.py --instructions …`"
            )

    def __call__(self, text: str, add_special_tokens: bool = False) -> BatchEncoding:
        """Return ``input_ids`` of a text, white space folded, with the end token where special tokens are asked for.

        Raises:
            ValueError: the SentencePiece model reads part of the text as a symbol of its own
                (``user_defined_symbols``).
        """
        ids = self.text_to_ids(" ".join(text.split()))
        found = [piece for piece, index in self._symbols.items() if index in ids]
        if found:
            raise InputError(
                f"the text {text[:80]!r} holds {found}, which this model's tokenizer cannot read but as a symbol; "
                "remove it"
            )
        return BatchEncoding({"input_ids": ids + [self.eos_id] * add_special_tokens})


class InstructionPrompt:
    """Turns conversations into the decoder's text; the audio is no part of it, the decoder attends to it.

    Args:
        tokenizer: has the symbols.
        keywords: text that a question's keywords are written in; see `Question.rendered`.
    """

    def __init__(self, tokenizer: InstructionTokenizer, keywords: str | None = None):
        self.tokenizer = tokenizer
        self.keywords = keywords or ""

    def asked(self, conversation: Conversation) -> str:
        """Return the instruction: the text of the last user turn; it may be empty.

        Raises:
            ValueError: the conversation does not end with what a user asks.
        """
        turns = conversation.without_answer().rendered(self.keywords)
        if not turns or turns[-1].role != "user":
            raise InputError(f"{conversation.id}: the last turn before the answer must be the user's")
        return turns[-1].text

    def segments(self, conversation: Conversation) -> list[TextSegment]:
        """``instruction [EOT]``, and where the conversation has an answer, it and its end token, with loss.

        What was asked and answered before the instruction is not read: a model of this kind is taught one instruction
        at a time.

        Raises:
            ValueError: the conversation has not one audio, it does not end with what a user asks, or it is a training
                example with several answers.
        """
        if len(conversation.audios) != 1:
            raise InputError(
                f"{conversation.id}: a listen-attend-spell decoder answers about one audio, this conversation has "
                f"{len(conversation.audios)}"
            )
        asked = self.asked(conversation)
        if conversation.answer is not None and len(conversation.turns) > 2:
            raise InputError(
                f"{conversation.id}: a training example is one instruction and one answer; make one of each exchange"
            )
        ids = self.tokenizer(asked).input_ids
        instruction = TextSegment(ids + [self.tokenizer.end_of_instruction_id])
        if conversation.answer is None:
            return [instruction]
        answer = self.tokenizer(conversation.answer, add_special_tokens=True).input_ids
        return [instruction, TextSegment(answer, loss=True)]

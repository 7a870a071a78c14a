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

"""Renders a conversation with an LLM's chat template into segments of token ids and audio."""

import re
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from nemo_speechllm.data.conversation import Audio, Conversation, Turn
from nemo_speechllm.errors import InputError
from nemo_speechllm.prompts.chat_template import render_chat
from nemo_speechllm.prompts.plain_text import TextEncoder
from nemo_speechllm.prompts.segments import AudioSegment, Segment, TextSegment

# Private-use characters: no template and no transcript has a reason to hold them.
AUDIO_MARK, ANSWER_MARK, END_MARK, TEXT_MARK = "\ue0a0", "\ue0a1", "\ue0a2", "\ue0a3"
PLACEHOLDER = re.compile(f"{AUDIO_MARK}(\\d+){END_MARK}|{ANSWER_MARK}(\\d+){END_MARK}")
TEXT_PLACEHOLDER = re.compile(f"{TEXT_MARK}(\\d+){END_MARK}")


class ChatPrompt:
    """Turns conversations into segments by a Hugging Face chat template.

    The template is rendered with placeholders for audio and for all that is said, so that text is never expanded, read
    by the template or taken for its control tokens, and the loss covers exactly each answer and its end token. Of a
    text the template is given the white space around it, which some trim.

    Args:
        tokenizer: of the LLM.
        system_prompt: put before the conversation where it has no system turn; null leaves it to the template.
        chat_template: Jinja template to use instead of the tokenizer's.
        keywords: text that a question's keywords are written in; see `Question.rendered`.

    Raises:
        ValueError: neither the tokenizer nor the caller has a chat template, or no end token can be found.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        system_prompt: str | None = None,
        chat_template: str | None = None,
        keywords: str | None = None,
    ):
        self.tokenizer = tokenizer
        self.encode = TextEncoder(tokenizer)
        self.system_prompt = system_prompt
        self.keywords = keywords or ""
        self.chat_template = chat_template or tokenizer.chat_template
        if not self.chat_template:
            raise ValueError(
                f"the tokenizer of {tokenizer.name_or_path} has no chat template; give one in "
                "model.prompt.chat_template (a Jinja string), or use an instruction-tuned LLM"
            )
        self.end_token_id = self._find_end_token()
        self._answer_lead = self._find_answer_lead()

    def segments(self, conversation: Conversation) -> list[Segment]:
        """Return the segments that the chat template makes of a conversation.

        Args:
            conversation: one that ends with an assistant turn is rendered for training, loss on every assistant turn
                and its end token; any other is rendered up to where the assistant is to speak.

        Raises:
            ValueError: an assistant turn holds audio, a role is no word, the template leaves out a message, or a text
                holds one of the reserved characters or a control token that the tokenizer cannot read as text.
        """
        name = f"conversation {conversation.id}"
        rendered, texts = self._render(conversation)
        segments: list[Segment] = []
        position, in_answer = 0, False
        for match in PLACEHOLDER.finditer(rendered):
            text, follows_answer, in_answer = rendered[position : match.start()], in_answer, match[2] is not None
            if in_answer:
                text = text.removesuffix(self._answer_lead)
            segments += self._template_text(text, texts, follows_answer, name)
            if in_answer:
                (ids,) = self.answer_ids([texts[int(match[2])]], name)
                segments.append(TextSegment(ids, loss=True))
            else:
                segments.append(AudioSegment(int(match[1])))
            position = match.end()
        # what a template writes after the closing answer is never read
        if conversation.answer is None:
            segments += self._template_text(rendered[position:], texts, in_answer, name)
        return segments

    def answer_ids(self, texts: Sequence[str], name: str = "a text") -> list[list[int]]:
        """Return what the assistant has to write to answer each of the texts: their ids, and the end token.

        Args:
            name: where they come from, for messages.

        Raises:
            ValueError: a text holds a control token that the tokenizer cannot read as text.
        """
        return [[*ids, self.end_token_id] for ids in self.encode.texts(texts, name)]

    def _render(self, conversation: Conversation) -> tuple[str, list[str]]:
        """Return the conversation as template text with placeholders, and the texts they stand for."""
        messages: list[dict[str, str]] = []
        texts: list[str] = []
        n_audios = 0
        if self.system_prompt is not None and conversation.turns[0].role != "system":
            messages.append({"role": "system", "content": _hidden(self.system_prompt, texts)})
        for turn in conversation.rendered(self.keywords):
            _check_turn(turn, conversation.id)
            if turn.role == "assistant":
                content = f"{ANSWER_MARK}{len(texts)}{END_MARK}"
                texts.append(turn.text)
            else:
                content = ""
                for part in turn.parts:
                    if isinstance(part, Audio):
                        content, n_audios = f"{content}{AUDIO_MARK}{n_audios}{END_MARK}", n_audios + 1
                    else:
                        content += _hidden(part, texts)
            messages.append({"role": turn.role, "content": content})
        rendered = self._apply_template(messages, add_generation_prompt=messages[-1]["role"] != "assistant")
        for message in messages:
            if message["content"].strip() not in rendered:
                raise InputError(
                    f"conversation {conversation.id}: the chat template leaves out what the role {message['role']!r} "
                    "says; give one that takes it in model.prompt.chat_template"
                )
        return rendered, texts

    def _apply_template(self, messages: list[dict[str, str]], add_generation_prompt: bool) -> str:
        return render_chat(
            self.chat_template,
            messages,
            add_generation_prompt=add_generation_prompt,
            **self.tokenizer.special_tokens_map,
        )

    def _template_text(self, rendered: str, texts: list[str], after_answer: bool, name: str) -> list[TextSegment]:
        """Return what stands between audios and answers.

        After an answer the template's own end token has already been given.
        """
        first, *others = TEXT_PLACEHOLDER.split(rendered)
        text, inserted = first, []
        for number, literal in zip(others[::2], others[1::2], strict=True):
            begin, text = len(text), text + texts[int(number)]
            inserted.append((begin, len(text)))
            text += literal
        ids = self.encode.template(text, inserted, name)
        if after_answer and ids and ids[0] == self.end_token_id:
            ids = ids[1:]
        return [TextSegment(ids)] if ids else []

    def _find_end_token(self) -> int:
        """Find the special token that the template writes after an answer; the tokenizer's where it writes none."""
        following = self.encode.template(self._around_answer()[1], [])
        if following and following[0] in self.tokenizer.all_special_ids:
            return following[0]
        if self.tokenizer.eos_token_id is None:
            raise ValueError(
                f"the tokenizer of {self.tokenizer.name_or_path} has no end token and neither has the template"
            )
        return self.tokenizer.eos_token_id

    def _find_answer_lead(self) -> str:
        """White space that the template writes before an answer but not when it asks for one (Mistral's ``[/INST] ``).

        It is left out of the training prompt too: the model must learn to answer after what it will have read.
        """
        asked = self._apply_template([{"role": "user", "content": "?"}], add_generation_prompt=True)
        lead = self._around_answer()[0].removeprefix(asked)
        return lead if lead.isspace() else ""

    def _around_answer(self) -> list[str]:
        """Return what the template writes before and after an answer."""
        answer = f"{ANSWER_MARK}0{END_MARK}"
        messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}]
        return self._apply_template(messages, add_generation_prompt=False).split(answer)


def _hidden(text: str, texts: list[str]) -> str:
    """Return what a template is given in a text's place.

    That is a placeholder for its words, which are added to ``texts``, and the white space around them.
    """
    words = text.strip()
    if not words:
        return text
    before, _, after = text.partition(words)
    texts.append(words)
    return f"{before}{TEXT_MARK}{len(texts) - 1}{END_MARK}{after}"


def _check_turn(turn: Turn, conversation_id: str) -> None:
    if not turn.role.isidentifier():  # templates write it as it is
        raise InputError(
            f"conversation {conversation_id}: the role {turn.role!r} is no word such as user or assistant"
        )
    if turn.role == "assistant" and any(isinstance(part, Audio) for part in turn.parts):
        raise InputError(f"conversation {conversation_id}: an assistant turn holds audio; answers are text")
    if any(mark in turn.text for mark in (AUDIO_MARK, ANSWER_MARK, END_MARK, TEXT_MARK)):
        raise InputError(
            f"conversation {conversation_id}: its text holds one of the private-use characters U+E0A0 to U+E0A3, "
            "which stand for audio and text inside prompts; remove them"
        )

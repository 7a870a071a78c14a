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

"""What a user asks a model, checked before any of it is answered: conversations of text and audio that ask something.

The conversations of a training are not looked at here: their rows were checked as those of a manifest.
"""

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nemo.utils import logging
from nemo.utils.nemo_logging import LogMode

from nemo_speechllm.data.conversation import Audio, Conversation, Question, Turn, audio_remedy
from nemo_speechllm.data.dataset import place_of
from nemo_speechllm.data.keywords import keyword_list
from nemo_speechllm.errors import InputError
from nemo_speechllm.manifests.rows import character_problem

ROLES = ("system", "user", "assistant")


def check_conversations(given: Any, answered: bool = False) -> list[Conversation]:
    """Return conversations that a model is to answer, or has answers of, as a list.

    Args:
        given: the conversations.
        answered: each must have its answer, and need ask nothing.

    Raises:
        TypeError: they are no list of conversations, or one is made of something else than turns of text and audio.
        ValueError: one asks nothing, has a role that there is not, an answer that is audio, or a text with a character
            that no text may hold, or a keyword that is too long. Conversation, turn and remedy are named.
    """
    if isinstance(given, (str, bytes, Mapping, Conversation)) or not isinstance(given, Iterable):
        raise TypeError(f"expected a list of conversations, got {_kind(given)}; give [Conversation(id, turns), …]")
    conversations = list(given)
    for number, conversation in enumerate(conversations, 1):
        if not isinstance(conversation, Conversation):
            raise TypeError(
                f"conversation {number} is {_kind(conversation)}; give Conversation(id, turns), or call transcribe "
                "for files, samples and rows"
            )
        _check_conversation(conversation, answered)
    return conversations


def check_ctc_can_answer(conversations: Iterable[Conversation]) -> None:
    """Refuse conversations without audio, and tell where what is asked is not read: CTC answers with what is said.

    Raises:
        ValueError: there is no audio in one.
    """
    silent = [conversation.id for conversation in conversations if not conversation.audios]
    if silent:
        raise InputError(f"decoder=ctc reads audio, and these conversations have none: {silent}")
    if any(conversation.task != "asr" for conversation in conversations):
        logging.warning(
            "CTC answers with what is said and reads no instruction: for answers to these, ask a model whose text "
            "decoder is trained, with decoder=llm",
            mode=LogMode.ONCE,
        )


def _check_conversation(conversation: Conversation, answered: bool) -> None:
    if not isinstance(conversation.metadata, Mapping):
        raise TypeError(f"conversation {conversation.id}: metadata is {_kind(conversation.metadata)}; give a mapping")
    name = f"conversation {place_of(conversation)}"
    _check_list(conversation.turns, f"{name}: turns", "[Turn(role, [text or audio, …]), …]")
    for number, turn in enumerate(conversation.turns, 1):
        _check_turn(turn, f"{name}, turn {number}")
    asked = conversation.without_answer().turns
    if not asked or asked[-1].role != "user" or not (answered or _says_something(asked[-1])):
        raise InputError(
            f"{name}: nothing is asked; the last turn, or the last before a closing answer, must be the user's and "
            'hold audio or text, Turn("user", [audio, instruction])'
        )
    if answered and conversation.answer is None:
        raise InputError(f"{name}: it has no answer; give it by with_answer(text)")


def _check_turn(turn: Any, place: str) -> None:
    if not isinstance(turn, (Turn, Question)):
        raise TypeError(f"{place} is {_kind(turn)}; give Turn(role, [text or audio, …])")
    if turn.role not in ROLES:
        raise InputError(f"{place}: the role is {turn.role!r}; it must be one of {', '.join(ROLES)}")
    place = f"{place} ({turn.role})"
    for number, part in enumerate(_parts_of(turn, place), 1):
        _check_part(part, f"{place}, part {number}", turn.role)
    if isinstance(turn, Question):
        keyword_list(turn.keywords, place)


def _says_something(turn: Turn | Question) -> bool:
    return any(isinstance(part, Audio) or part.strip() for part in _parts_of(turn))


def _parts_of(turn: Turn | Question, place: str = "") -> list[Any]:
    if isinstance(turn, Turn):
        return _check_list(turn.parts, f"{place}: parts", "[text or audio, …]")
    audios = _check_list(turn.audios, f"{place}: audios", "[audio, …]", Audio)
    keywords = _check_list(turn.keywords, f"{place}: keywords", '["one", "two"]', str)
    return [*audios, *_check_list([turn.instruction], f"{place}: instruction", '"text"', str), *keywords]


def _check_list(given: Any, name: str, example: str, kind: type = object) -> list[Any]:
    if isinstance(given, (str, bytes)) or not isinstance(given, Sequence):
        raise TypeError(f"{name} is {_kind(given)}; give a list, {example}")
    for item in given:
        if not isinstance(item, kind):
            raise TypeError(f"{name}: {_kind(item)}; {audio_remedy(item) if kind is Audio else f'give {example}'}")
    return list(given)


def _check_part(part: Any, place: str, role: str) -> None:
    if isinstance(part, Audio):
        if role == "assistant":
            raise InputError(f"{place} is audio, and answers are text; write what was said")
    elif not isinstance(part, str):
        raise TypeError(f"{place} is {_kind(part)}; {audio_remedy(part)}, or text")
    elif problem := character_problem(part):
        _, what, remedy = problem
        raise InputError(f"{place}: {what}; {remedy}")


def _kind(given: Any) -> str:
    return f"{type(given).__name__}, {reprlib.repr(given)}"

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

"""OpenAI's chat completions: a conversation whose turns hold text and audio, ``input_audio``."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nemo_speechllm.command_line import nearest_of
from nemo_speechllm.data.conversation import Audio, Conversation, Turn
from nemo_speechllm.data.conversation_check import ROLES, check_conversations
from nemo_speechllm.serving.errors import RequestError
from nemo_speechllm.serving.forms import SEARCH
from nemo_speechllm.serving.upload import Upload

# → the values that ask for nothing, and the remedy
UNSUPPORTED: dict[str, tuple[tuple[Any, ...], str]] = {
    "temperature": ((0, None), f"{SEARCH}: leave it unset, or 0"),
    "top_p": ((1, None), SEARCH),
    "top_k": ((0, -1, None), SEARCH),
    "n": ((1, None), "there is one answer"),
    "stop": ((None, []), "the model ends its answer; max_completion_tokens bounds it"),
    "frequency_penalty": ((0, None), SEARCH),
    "presence_penalty": ((0, None), SEARCH),
    "logit_bias": ((None, {}), SEARCH),
    "logprobs": ((False, None), "no log-probabilities are given"),
    "top_logprobs": ((0, None), "no log-probabilities are given"),
    "response_format": (({"type": "text"}, None), "answers are text"),
    "modalities": ((["text"], None), "answers are text"),
    "audio": ((None,), "answers are text"),
    "tools": ((None, []), "there are no tools"),
    "tool_choice": ((None, "none", "auto"), "there are no tools"),
    "stream_options": ((None, {"include_usage": False}), "tokens are not counted in events"),
}
# what says who asks, or changes nothing where nothing is random
IDLE = ("seed", "user", "metadata", "store", "parallel_tool_calls", "safety_identifier", "service_tier")
KNOWN = (
    *("model", "messages", "stream", "max_tokens", "max_completion_tokens", "beam_size", "decoder"),
    *UNSUPPORTED,
    *IDLE,
)
TEXT_PARTS = ("text", "input_text")


@dataclass(frozen=True)
class AskedChat:
    """What a client asks.

    Attributes:
        model: its name, as given.
        messages: role, and its parts: text, or an audio file.
        options: of generation.
        stream: send the answer as events.
    """

    model: str
    messages: list[tuple[str, list[str | Upload]]]
    options: dict[str, Any]
    stream: bool

    @property
    def parts(self) -> list[str | Upload]:
        """The texts and audio files, in order."""
        return [part for _, parts in self.messages for part in parts]

    def conversation(self, channel_selector: int | str | None) -> Conversation:
        """Return the conversation, its audio loaded.

        Raises:
            AudioError: an audio cannot be read.
            ValueError: nothing is asked, or a text holds a character that no text may.
        """
        turns = [
            Turn(
                role,
                [
                    Audio.from_bytes(part.content, part.name, channel_selector) if isinstance(part, Upload) else part
                    for part in parts
                ],
            )
            for role, parts in self.messages
        ]
        (conversation,) = check_conversations([Conversation("chat", turns)])
        return conversation.loaded()


def read_chat(body: Any) -> AskedChat:
    """Return what the JSON of a request asks.

    Raises:
        RequestError: a field is unknown or has a value that cannot be; it is named.
    """
    if not isinstance(body, dict):
        raise RequestError('the body is no JSON object; send {"model": …, "messages": […]}')
    for name, value in body.items():
        if name not in KNOWN:
            raise RequestError(f"there is no field {name!r}; {nearest_of(name, KNOWN)}", name, code="unknown_field")
        if name in UNSUPPORTED and value not in UNSUPPORTED[name][0]:
            told = f"{name}={str(value)[:80]} cannot be honoured: {UNSUPPORTED[name][1]}"
            raise RequestError(told, name, code="unsupported_value")
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RequestError("messages must be a list of at least one", "messages")
    if not isinstance(body.get("stream") or False, bool):
        raise RequestError("stream must be true or false", "stream")
    options = {
        "max_new_tokens": _first(body, "max_completion_tokens", "max_tokens"),
        "beam_size": body.get("beam_size"),
        "decoder": body.get("decoder"),
    }
    read = [_message(message, f"messages[{number}]") for number, message in enumerate(messages)]
    if read[-1][0] != "user":
        raise RequestError(f"the last message is the {read[-1][0]}'s; it must be the user's, who asks", "messages")
    return AskedChat(str(body.get("model") or ""), read, options, bool(body.get("stream")))


def _first(body: dict[str, Any], *names: str) -> Any:
    return next((body[name] for name in names if body.get(name) is not None), None)


def _message(message: Any, place: str) -> tuple[str, list[str | Upload]]:
    if not isinstance(message, dict) or "content" not in message:
        raise RequestError(f"{place} must have role and content", place)
    role = "system" if message.get("role") == "developer" else message.get("role")
    if role not in ROLES:
        raise RequestError(f"{place}.role is {str(role)[:40]!r}; there are {', '.join(ROLES)}", f"{place}.role")
    content = message["content"]
    parts = [content] if isinstance(content, str) else content
    if not isinstance(parts, Sequence) or not parts:
        raise RequestError(f"{place}.content must be a text or a list of parts", f"{place}.content")
    return role, [_part(part, f"{place}.content[{number}]") for number, part in enumerate(parts)]


def _part(part: Any, place: str) -> str | Upload:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    if kind in TEXT_PARTS and isinstance(part.get("text"), str):
        return part["text"]
    if kind != "input_audio":
        raise RequestError(
            f"{place} is of the type {str(kind)[:40]!r}; there are text and input_audio (nothing is fetched from "
            "addresses: send the content of the file in base64)",
            place,
        )
    audio = part.get("input_audio")
    data = str(audio.get("data") or "") if isinstance(audio, dict) else ""
    try:
        content = base64.b64decode(data.partition("base64,")[2] or data, validate=True)
    except ValueError as error:
        raise RequestError(f"{place}.input_audio.data must be the content of a file in base64", place) from error
    if not content:
        raise RequestError(f"{place}.input_audio.data is empty", place)
    return Upload(f"{place}.input_audio", content)

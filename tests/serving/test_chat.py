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

"""What a conversation's JSON may hold; over HTTP: tests/serving/test_app.py."""

import base64

import pytest

from nemo_speechllm.serving.chat import UNSUPPORTED, read_chat
from nemo_speechllm.serving.errors import RequestError
from nemo_speechllm.serving.upload import Upload
from tests.serving.conftest import DIGITS


def asked(*parts, **fields):
    return {"model": "m", "messages": [{"role": "user", "content": list(parts)}]} | fields


def audio(content: bytes = b"x", prefix: str = ""):
    return {
        "type": "input_audio",
        "input_audio": {"data": prefix + base64.b64encode(content).decode(), "format": "wav"},
    }


def test_texts_and_audio_stand_in_their_order():
    chat = read_chat(asked(audio(b"one"), {"type": "text", "text": "and"}, audio(b"two", "data:audio/wav;base64,")))
    one, two = (part for part in chat.parts if isinstance(part, Upload))
    assert chat.messages == [("user", [one, "and", two])] and (one.content, two.content) == (b"one", b"two")
    assert two.name == "messages[0].content[2].input_audio"


def test_turns_have_their_roles_and_options_their_names():
    messages = [{"role": role, "content": role} for role in ("developer", "user", "assistant", "user")]
    chat = read_chat({"model": "m", "messages": messages, "max_tokens": 5, "temperature": 0, "user": "x"})
    assert [role for role, _ in chat.messages] == ["system", "user", "assistant", "user"]
    assert chat.options == {"max_new_tokens": 5, "beam_size": None, "decoder": None}


def test_a_conversation_has_its_audio_loaded():
    chat = read_chat(asked(audio(DIGITS.read_bytes()), "What is said?"))
    conversation = chat.conversation("average")
    assert conversation.audios[0].duration == pytest.approx(1.747, abs=0.001)
    assert conversation.turns[0].text == "What is said?"


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_a_speech_lm_does_not_have_is_refused_but_for_values_that_ask_for_nothing(name):
    for idle in UNSUPPORTED[name][0]:
        read_chat(asked("x", **{name: idle}))
    with pytest.raises(RequestError, match=f"^{name}=.* cannot be honoured: "):
        read_chat(asked("x", **{name: 0.37}))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([], "no JSON object"),
        ({"messages": "x"}, "messages must be a list"),
        (asked("x", mesages=1), "no field 'mesages'; did you mean 'messages'"),
        (asked("x", stream="yes"), "stream must be true or false"),
        ({"messages": ["x"]}, r"messages\[0\] must have role and content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, r"messages\[0\].role is 'tool'"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "it must be the user's, who asks"),
        ({"messages": [{"role": "user", "content": None}]}, r"messages\[0\].content must be"),
        (asked({"type": "image_url", "image_url": {"url": "http://x"}}), "nothing is fetched"),
        (asked({"type": "audio_url", "audio_url": {"url": "file:///etc/passwd"}}), "nothing is fetched"),
        (asked({"type": "input_audio", "input_audio": {"data": "!"}}), "in base64"),
        (asked({"type": "input_audio", "input_audio": {"url": "x"}}), "is empty"),
        (asked({"type": "input_audio", "input_audio": 3}), "is empty"),
        (asked(3), "is of the type 'int'"),
    ],
)
def test_what_cannot_be_is_named(body, said):
    with pytest.raises(RequestError, match=said):
        read_chat(body)

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

"""A model answers conversations that ask something; whatever else is given is named, with what to give instead."""

from pathlib import Path

import numpy as np
import pytest
import torch

from nemo_speechllm.data.conversation import Audio, Conversation, Question, Turn
from nemo_speechllm.data.conversation_check import check_conversations, check_ctc_can_answer

SAMPLES = np.full(1600, 0.1, np.float32)
AUDIO = Audio.from_samples(SAMPLES)
USER, ANSWER = Turn("user", [AUDIO, "What is said?"]), Turn("assistant", ["Hello."])


def of(*turns) -> Conversation:
    return Conversation("call 7", list(turns))


@pytest.mark.parametrize(
    "turns",
    [
        [USER, ANSWER, Turn("user", [AUDIO, AUDIO, "And here?"]), ANSWER, Turn("user", ["Why?"])],
        [Turn("system", [""]), USER, Turn("assistant", [""])],
        [Turn("assistant", ["Ask me."]), Turn("user", (AUDIO,))],
        [Question([AUDIO], "", ["Ada"]), ANSWER],
        [Turn("user", ["tab\t, line\r\n, 👍🏽, <|im_end|>"])],
    ],
)
def test_whatever_asks_something_is_taken_as_it_is(turns):
    conversation = of(*turns)
    assert check_conversations(iter([conversation])) == [conversation] and conversation.turns == turns


def test_what_ctc_does_not_read_is_told(nemo_log):
    transcript = of(Question([AUDIO], "Transcribe the speech.", task="asr"))
    check_ctc_can_answer([transcript])
    assert not nemo_log.text
    check_ctc_can_answer([transcript, of(Question([AUDIO], "Say it backwards."))])
    assert "CTC answers with what is said and reads no instruction" in nemo_log.text
    with pytest.raises(ValueError, match=r"decoder=ctc reads audio, and these conversations have none: \['call 7'\]"):
        check_ctc_can_answer([transcript, of(Turn("user", ["Why?"]))])


@pytest.mark.parametrize("given", ["call.wav", {"turns": []}, of(USER), None, 5, b"RIFF"])
def test_what_is_no_list_is_named(given):
    kind = type(given).__name__
    with pytest.raises(TypeError, match=rf"expected a list of conversations, got {kind}, .*give \[Conversation"):
        check_conversations(given)


@pytest.mark.parametrize("item", ["call.wav", {"turns": []}, SAMPLES, USER, None])
def test_what_is_no_conversation_is_named_with_its_place(item):
    with pytest.raises(TypeError, match=rf"conversation 2 is {type(item).__name__}, .*or call transcribe"):
        check_conversations([of(USER), item])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (USER, "call 7: turns is Turn.*give a list"),
        ([{"role": "user", "content": "Hi."}], r"call 7, turn 1 is dict.*give Turn\(role"),
        ([Turn("user", "Hi.")], r"call 7, turn 1 \(user\): parts is str, 'Hi.'; give a list"),
        ([Turn("user", AUDIO)], "turn 1 .*: parts is Audio.*give a list"),
        (
            [USER, ANSWER, Turn("user", [AUDIO, 5])],
            r"call 7, turn 3 \(user\), part 2 is int, 5; give an Audio, or text",
        ),
        ([Turn("user", [None])], "part 1 is NoneType"),
        ([Turn("user", [SAMPLES])], r"part 1 is ndarray.*give Audio.from_samples\(array\)"),
        ([Turn("user", [torch.zeros(9)])], r"part 1 is Tensor.*give Audio.from_samples\(array\)"),
        ([Turn("user", [Path("a.wav")])], r"part 1 is PosixPath.*give Audio.from_file\(path\)"),
        ([Turn("user", [b"RIFF"])], r"part 1 is bytes.*give Audio.from_bytes\(content, name\)"),
        ([Question(AUDIO, "Hi.")], "audios is Audio.*give a list"),
        ([Question(["a.wav"], "Hi.")], r"audios: str, 'a.wav'; give Audio.from_file\(path\)"),
        ([Question([AUDIO], 5)], "instruction: int, 5; give"),
        ([Question([AUDIO], "Hi.", [1])], "keywords: int, 1; give"),
    ],
)
def test_what_a_conversation_is_made_of_is_named(given, message):
    with pytest.raises(TypeError, match=message):
        check_conversations([Conversation("call 7", given)])


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([], "call 7: nothing is asked; .*must be the user's"),
        ([ANSWER], "call 7: nothing is asked"),
        ([USER, ANSWER, ANSWER], "call 7: nothing is asked"),
        ([USER, Turn("system", ["Be brief."])], "call 7: nothing is asked"),
        ([Turn("user", [])], "call 7: nothing is asked"),
        ([USER, ANSWER, Turn("user", [" "]), ANSWER], "call 7: nothing is asked; .*hold audio or text"),
        ([Question([], "")], "call 7: nothing is asked"),
        ([Turn("usr", [AUDIO])], "call 7, turn 1: the role is 'usr'; it must be one of system, user, assistant"),
        ([Turn("audio", [AUDIO]), USER], "the role is 'audio'"),
        ([Turn(None, [AUDIO])], "the role is None"),
        ([USER, Turn("assistant", [AUDIO])], r"turn 2 \(assistant\), part 1 is audio, and answers are text"),
        (
            [Turn("user", [AUDIO, "half \ud800"])],
            r"turn 1 \(user\), part 2: .*surrogate.*; write the character itself",
        ),
        ([Turn("system", ["a\0b"]), USER], r"turn 1 \(system\), part 1: .*control character U\+0000; remove it"),
        ([USER, Turn("assistant", ["\x1b[31m"]), USER], r"turn 2 \(assistant\), part 1: .*control character"),
        ([Question([AUDIO], "Hi.", ["Ada", "a" * 101])], r"turn 1 \(user\): the keyword 'aa.*' has 101 characters"),
        ([Turn("user", [AUDIO, "\ue0a3"])], r"a text has U\+E0A3, a private-use character"),
        ([Question([AUDIO], "Hi.", ["\x07"])], "control character"),
    ],
)
def test_what_cannot_be_asked_is_named(turns, message):
    with pytest.raises(ValueError, match=message):
        check_conversations([of(USER), of(*turns)])


def test_a_row_is_named_by_its_line_and_metadata_are_a_mapping():
    with pytest.raises(ValueError, match="conversation m.jsonl:3: nothing is asked"):
        check_conversations([Conversation("x", [], {"manifest_line": "m.jsonl:3"})])
    with pytest.raises(TypeError, match="conversation x: metadata is NoneType"):
        check_conversations([Conversation("x", [USER], None)])


def test_an_answer_may_be_needed():
    assert check_conversations([of(USER, ANSWER), of(Turn("user", [""]), ANSWER)], answered=True)
    with pytest.raises(ValueError, match="conversation call 7: it has no answer"):
        check_conversations([of(USER, ANSWER), of(USER)], answered=True)

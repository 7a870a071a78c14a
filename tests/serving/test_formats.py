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

"""Answers in OpenAI's forms; over HTTP: tests/serving/test_app.py."""

import json

import pytest

from nemo_speechllm.decoding.word_times import Word
from nemo_speechllm.models.answers import Answer
from nemo_speechllm.serving.errors import RequestError
from nemo_speechllm.serving.formats import _told, body_of, event
from nemo_speechllm.serving.forms import read_form

ANSWER = Answer("Hello there. You", [1, 2], False, words=(Word("Hello", 0.0, 0.4), Word("there.", 0.5, 0.9),
                Word("You", 1.5, 1.75)), frame_shift=0.08)  # fmt: skip


def asked(**fields):
    return read_form(list(fields.items()))


def test_segments_end_with_sentences_and_words_are_those_asked_for():
    both = read_form(
        [("response_format", "verbose_json"), *(("timestamp_granularities[]", g) for g in ("word", "segment"))]
    )
    told = body_of(ANSWER, both, 1.8, translate=False)
    assert told["segments"] == [
        {"id": 0, "text": "Hello there.", "start": 0.0, "end": 0.9},
        {"id": 1, "text": "You", "start": 1.5, "end": 1.75},
    ]
    assert told["words"][2] == {"word": "You", "start": 1.5, "end": 1.75}
    assert told["usage"] == {"type": "duration", "seconds": 2} and told["task"] == "transcribe"


def test_a_words_confidence_comes_with_it():
    word = {"word": "You", "start_offset": 1, "end_offset": 2, "start": 1.50001, "end": 1.75, "confidence": 0.9}
    assert _told(word, "word") == {"word": "You", "start": 1.5, "end": 1.75, "confidence": 0.9}


@pytest.mark.parametrize("response_format", ["srt", "vtt", "verbose_json"])
def test_words_without_times_are_an_error_where_times_are_asked_for(response_format):
    with pytest.raises(RequestError, match="could be given no times; ask for response_format=json") as raised:
        body_of(Answer("Hello", [1], False), asked(response_format=response_format), 1.0, translate=False)
    assert raised.value.status == 422


def test_what_was_cut_or_replaced_is_said():
    told = body_of(Answer("He", [1], True, ("loop: ctc",)), asked(), 1.0, translate=False)
    assert told["truncated"] is True and told["interventions"] == ["loop: ctc"]


def test_events_are_a_line_each():
    text = event({"delta": "Größe\nx"})
    assert text.startswith("data: ") and text.endswith("\n\n") and text.count("\n") == 2
    assert json.loads(text[6:]) == {"delta": "Größe\nx"}

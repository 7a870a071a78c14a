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

"""Answers as NeMo's hypotheses."""

import pytest

from nemo_speechllm.decoding.word_times import Word
from nemo_speechllm.models.answers import Answer
from nemo_speechllm.models.hypotheses import hypothesis_of

WORDS = (Word("Hold", 0.16, 0.4), Word("on.", 0.48, 0.8), Word("Bye", 1.0, 1.24))


def answer(words: tuple[Word, ...] | None, frame_shift: float | None = 0.08) -> Answer:
    return Answer("Hold on. Bye", [1, 2, 3], False, ("loop: ctc",), words, frame_shift)


def test_what_was_answered():
    hypothesis = hypothesis_of(answer(WORDS))
    assert (hypothesis.text, hypothesis.y_sequence.tolist()) == ("Hold on. Bye", [1, 2, 3])
    assert hypothesis.interventions == ("loop: ctc",) and "word" not in hypothesis.timestamp


def test_times_are_in_frames_and_seconds_by_word_and_by_sentence():
    timestamp = hypothesis_of(answer(WORDS), timestamps=True).timestamp
    assert timestamp["word"] == [
        {"word": "Hold", "start_offset": 2, "end_offset": 5, "start": 0.16, "end": 0.4},
        {"word": "on.", "start_offset": 6, "end_offset": 10, "start": 0.48, "end": 0.8},
        {"word": "Bye", "start_offset": 12, "end_offset": 16, "start": 1.0, "end": 1.24},
    ]
    assert timestamp["segment"] == [
        {"segment": "Hold on.", "start_offset": 2, "end_offset": 10, "start": 0.16, "end": 0.8},
        {"segment": "Bye", "start_offset": 12, "end_offset": 16, "start": 1.0, "end": 1.24},
    ]


@pytest.mark.parametrize("given", [answer(None), answer(None, None), answer(())])
def test_where_there_are_no_times_the_lists_are_empty(given):
    assert hypothesis_of(given, timestamps=True).timestamp == {"word": [], "segment": []}

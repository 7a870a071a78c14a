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

"""Which answers are found at fault, and why."""

import pytest
import torch

from nemo_speechllm.decoding.guards import chosen_guards, disagrees, find_fault, is_silent
from nemo_speechllm.recipes.generation import Guards

SPEECH = 0.1 * torch.sin(torch.arange(16000) / 20)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (torch.zeros(48000), True),
        (torch.zeros(7), True),
        (1e-4 * torch.randn(16000, generator=torch.Generator().manual_seed(0)), True),
        (SPEECH, False),
        (torch.cat([torch.zeros(32000), SPEECH[:1600]]), False),  # a word at the end
    ],
)
def test_silence_is_where_no_moment_is_loud(samples, expected):
    assert is_silent(samples) == expected


@pytest.mark.parametrize(
    ("text", "heard", "expected"),
    [
        ("please hold the line", "pleas holt the line", False),
        ("You will now copy the speech.", "press one for sales", True),
        ("Please hold, the line!", "PLEASE HOLD THE LINE", False),
        ("something", "", False),
    ],
)
def test_disagreement_is_with_what_ctc_heard(text, heard, expected):
    assert disagrees(text, heard) == expected


def test_the_first_fault_is_named_and_only_those_that_are_looked_for():
    kinds = ["silence", "loop", "chatter", "disagreement"]
    loop = "the line " * 20
    assert find_fault(kinds, loop, torch.zeros(16000), ["the line"]) == "silence"
    assert find_fault(kinds, loop, SPEECH, ["the line"]) == "loop"
    assert find_fault(kinds, "As an AI I have no ears.", SPEECH, ["the line"]) == "chatter"
    assert find_fault(kinds, "Good morning", SPEECH, ["the line is busy"]) == "disagreement"
    said = "We are unable to process your request."
    assert find_fault(kinds, said, SPEECH, ["we're unable to process you"]) is None
    assert find_fault(["chatter"], said, SPEECH) == "chatter"
    assert find_fault(kinds, "the line", SPEECH, ["the line"]) is None
    assert find_fault(["chatter"], loop, torch.zeros(16000)) is None and find_fault([], loop, SPEECH) is None


@pytest.mark.parametrize(
    ("text", "truncated", "expected"),
    [
        ("Press", True, None),  # of as many tokens as were asked for
        ("You", True, None),
        ("Press", False, "disagreement"),
        ("You will now copy the speech and then go on talking of it", True, "disagreement"),
        ("You You You You You You You You", True, "loop"),
    ],
)
def test_an_answer_that_was_cut_is_not_compared_with_all_that_ctc_heard(text, truncated, expected):
    heard = "press one for sales or two for all other things"
    assert find_fault(["loop", "disagreement"], text, SPEECH, [heard], truncated) == expected


def test_one_that_heard_the_same_vouches_for_an_answer():
    kinds = ["chatter", "disagreement"]
    assert find_fault(kinds, "eleven", SPEECH, ["hold the line", "Eleven."]) is None
    assert find_fault(kinds, "eleven", SPEECH, ["hold the line", "press one for sales"]) == "disagreement"
    assert find_fault(kinds, "eleven", SPEECH, ["", "press one for sales"]) is None, "CTC heard nothing"


def test_guards_come_beside_the_default_ones_in_the_order_they_are_looked_for():
    assert list(chosen_guards(Guards(disagreement="ctc"))) == ["silence", "disagreement"]
    assert chosen_guards(Guards(loop="retry")) == {"silence": "empty", "loop": "retry"}
    assert chosen_guards(Guards(silence=None, loop="ctc")) == {"loop": "ctc"}
    assert chosen_guards(None) == {}

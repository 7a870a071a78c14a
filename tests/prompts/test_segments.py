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

"""A prompt that a model cannot read is named before it is run."""

import pytest

from nemo_speechllm.prompts.segments import AudioSegment, ContextError, TextSegment, check_context

PROMPT = [TextSegment([1] * 40), AudioSegment(1), AudioSegment(0), TextSegment([2] * 10, loss=True)]


@pytest.mark.parametrize("limit", [60, 61, None])
def test_a_prompt_within_the_limit_passes(limit):
    check_context(PROMPT, [7, 3], limit, "a.wav")


def test_a_longer_prompt_is_named_with_its_numbers_and_the_remedy():
    with pytest.raises(
        ContextError,
        match="m.jsonl:3: 50 tokens of text and 10 positions of audio are more than the 59 .*shorten its text",
    ):
        check_context(PROMPT, [7, 3], 59, "m.jsonl:3")

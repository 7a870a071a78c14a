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

"""What is not to be learnt from: refusals, echoes, cut descriptions."""

import pytest

from nemo_speechllm.desta.rejection import reason_to_reject
from nemo_speechllm.engines.engine import Completion

SEED = '[00:00:00 - 00:00:02]: "Go." (Gender:Male, Emotion: neutral)'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("I can hear a man who says “Go.” He sounds neutral.", None),
        ("A man says that he cannot help. I am sure he is sad.", None),
        ("", "empty"),
        ("I'm sorry, but I cannot listen to audio.", "refusal"),
        ("As a text-based AI, I don't have the ability to hear.", "refusal"),
        ("As an AI language model, I hear nothing.", "refusal"),
        ("I'm just a language model.", "refusal"),
        (f"The audio is: {SEED}", "echo"),
        ("[00:00:00 - 00:00:02] A man speaks.", "echo"),
        ('He says: "Go." (Gender:Male, Emotion: neutral)', "echo"),
    ],
)
def test_rejects_refusals_and_echoes(text, reason):
    assert reason_to_reject(Completion(text, False), SEED) == reason


def test_rejects_truncated_answers():
    assert reason_to_reject(Completion("I can hear a", True), SEED) == "truncated"

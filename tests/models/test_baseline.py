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

"""What the systems that speech LMs are compared with have in common."""

import pytest
import torch
from torch import nn

from nemo_speechllm.models.answers import answering_record
from nemo_speechllm.models.baseline import Baseline


class Counter(Baseline):
    """Answers with how many audios it was given."""

    def generate(self, conversations, batch_size=8, max_new_tokens=None, beam_size=None, decoder=None):
        self.generation_limits(max_new_tokens, beam_size, decoder)
        return [str(len(conversation.audios)) for conversation in conversations]


@pytest.fixture
def counter() -> Counter:
    return Counter(30, {"asr": "Count.", "ast": "Count into {target_lang}."}, part=nn.Dropout())


def test_it_is_asked_as_a_speech_lm_is_and_never_trains(counter):
    conversation = counter.builder.conversation([], {"lang": "en", "target_lang": "es"}, "x")
    assert conversation.rendered("")[-1].text == "Count into es." and counter.generate([conversation]) == ["0"]
    assert not counter.part.training


def test_its_limits_are_its_own_unless_others_are_asked_for(counter):
    assert counter.generation_limits(None, None, None) == {"max_new_tokens": 30, "beam_size": 1}
    assert counter.generation_limits(4, 2, None) == {"max_new_tokens": 4, "beam_size": 2}
    with pytest.raises(ValueError, match="beam_size is 0"):
        counter.generate([], beam_size=0)


def test_it_has_one_decoder(counter):
    with pytest.raises(ValueError, match="decoder=ctc: Counter has its own decoder and no other"):
        counter.generate([], decoder="ctc")


def test_what_its_answers_depend_on_can_be_recorded():
    torch.manual_seed(0)
    one, other = (Counter(30, {"asr": "Count."}, part=nn.Linear(2, 2)) for _ in range(2))
    assert answering_record(one)["generation"]["max_new_tokens"] == 30
    assert answering_record(one) == answering_record(one) != answering_record(other)

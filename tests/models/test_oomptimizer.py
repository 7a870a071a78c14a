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

"""Batches of a given size for NeMo's OOMptimizer."""

import torch

from nemo_speechllm.models.oomptimizer import schema_of


def test_a_batch_has_the_audio_and_at_least_the_tokens_that_are_asked_for(salm):
    schema = schema_of(salm.builder, salm.tokenizer)
    assert [item["name"] for item in schema["inputs"]] == ["audio", "audio_lengths", "answers"]
    for size, samples, tokens in ((1, 4000, 1), (3, 16000, 17)):
        audio, answers = torch.randn(size, samples), torch.zeros(size, tokens, dtype=torch.long)
        batch = schema["cls"](audio=audio, audio_lengths=torch.full((size,), samples), answers=answers)
        assert torch.equal(batch.audio, audio) and len(batch.conversations) == size
        for conversation in batch.conversations:
            ids = salm.tokenizer(conversation.answer, add_special_tokens=False).input_ids
            assert tokens <= len(ids) <= tokens + 2 and conversation.audios[0].duration == samples / 16000

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

"""Batches by the sum of audio and text, whatever an example is."""

import pytest

from nemo_speechllm.data.conversation import Conversation
from nemo_speechllm.data.dataset import (
    ConversationBatch,
)
from tests.questions import PROMPT, conversations

BY_TOKENS = {"use_multimodal_sampling": True, "token_equivalent_duration": 0.08}


def tokens_of(conversation: Conversation, tokenizer) -> int:
    """Text of all turns and one token per 80 ms of audio."""
    text = sum(
        len(tokenizer(turn.text, add_special_tokens=False).input_ids)
        for turn in conversation.rendered(PROMPT.keywords)
    )
    return text + sum(-(-round(audio.duration * 1000) // 80) for audio in conversation.audios)


def assert_batches_hold(batches: list[ConversationBatch], limit: int, tokenizer) -> None:
    """A batch counts as its longest item times its items; Lhotse closes it before or with the item that is too
    much."""
    for batch in batches:
        *others, _ = [tokens_of(c, tokenizer) for c in batch.conversations]
        assert max(others, default=0) * len(batch.conversations) <= limit
    assert 1 < max(len(batch.conversations) for batch in batches) < len(conversations(batches))


def assert_lengths_are_known(batches: list[ConversationBatch], tokenizer) -> None:
    """NeMo leaves what it measured in the example."""
    for conversation in conversations(batches):
        assert conversation.metadata["num_tokens"] == tokens_of(conversation, tokenizer)


@pytest.mark.parametrize("bucketing", [{}, {"use_bucketing": True, "num_buckets": 2}])
def test_manifest_batched_by_tokens(load, make_manifest, tokenizer, bucketing):
    keywords = {"keywords": "one, two, three, four, five, six, seven, eight"}
    manifest = make_manifest([0.4, 0.4, 0.5, 0.5, 2.0, 2.2], rows=[{}] * 5 + [keywords])
    batches = list(load(manifest_filepath=str(manifest), batch_tokens=70, **BY_TOKENS, **bucketing))
    assert len(conversations(batches)) == 6
    assert_batches_hold(batches, 70, tokenizer)
    assert_lengths_are_known(batches, tokenizer)


@pytest.mark.parametrize("bucketing", [{}, {"use_bucketing": True, "num_buckets": 2}])
def test_conversations_batched_by_tokens(load, dialogue_file, tokenizer, bucketing):
    source = {"type": "multimodal_conversation", "manifest_filepath": str(dialogue_file)}
    batches = list(load(input_cfg=[source], batch_tokens=80, **BY_TOKENS, **bucketing))
    assert sorted(c.id for c in conversations(batches)) == ["talk-0", "talk-1", "talk-2", "talk-3"]
    assert_batches_hold(batches, 80, tokenizer)
    assert_lengths_are_known(batches, tokenizer)


def test_manifest_in_bins_of_seconds_and_tokens_of_answers(load, make_manifest, tokenizer, nemo_log):
    """The question and its keywords do not count: NeMo's scripts find these bins by the answers alone."""
    texts = ["yes", "press one for support", "no", "please hold the line", "thank you", "one " * 20]
    rows = [{"text": text, "keywords": "one, two, three, four"} for text in texts]
    manifest = make_manifest([0.4, 0.4, 0.5, 0.5, 1.2, 0.6], rows=rows)
    bins = {"bucket_duration_bins": [[0.8, 2], [0.8, 8], [2.0, 2], [2.0, 8]], "bucket_batch_size": [3, 2, 1, 1]}
    found = list(load(manifest_filepath=str(manifest), batch_size=None, **bins))
    answers = sorted(sorted(conversation.answer for conversation in batch.conversations) for batch in found)
    assert answers == [["no", "yes"], ["please hold the line", "press one for support"], ["thank you"]]
    assert max(len(tokenizer(text).input_ids) for text in texts[:5]) > 2
    assert "manifest.jsonl:6 is left out by NeMo's BucketingFilter" in nemo_log.text

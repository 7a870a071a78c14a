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

"""Joining segments: labels at their places, padding known by place and not by id."""

import torch
from torch import nn

from nemo_speechllm.modules.segments import IGNORE_INDEX, join_segments, mask_text
from nemo_speechllm.prompts.segments import AudioSegment, TextSegment

END = 2  # ends an answer, and is the padding token of many LLMs


def test_labels_and_embeddings_stand_at_their_places():
    embed = nn.Embedding(10, 4, padding_idx=END)
    audio = [torch.full((3, 4), 5.0), torch.full((2, 4), 6.0)]
    prompts = [
        [TextSegment([7]), AudioSegment(0), TextSegment([8, END]), TextSegment([3, 4, END], loss=True)],
        [AudioSegment(0), TextSegment([END], loss=True)],
    ]
    inputs = join_segments(prompts, [audio[:1], audio[1:]], embed)
    skip = IGNORE_INDEX
    assert inputs.labels.tolist() == [
        [skip, skip, skip, skip, skip, skip, 3, 4, END],
        [skip, skip, skip, skip, skip, skip, skip, skip, END],
    ]
    assert inputs.attention_mask.tolist() == [[1] * 9, [0] * 6 + [1] * 3]
    first = torch.cat([embed(torch.tensor([7])), audio[0], embed(torch.tensor([8, END, 3, 4, END]))])
    assert torch.equal(inputs.embeddings[0], first)
    assert not inputs.embeddings[1, :6].any() and torch.equal(inputs.embeddings[1, 6:8], audio[1])


def test_every_answer_of_a_conversation_keeps_its_end_token():
    embed = nn.Embedding(10, 4)
    answer = TextSegment([5, END], loss=True)
    inputs = join_segments([[TextSegment([END, END]), answer, TextSegment([END]), answer]], [[]], embed)
    assert inputs.labels.tolist() == [[IGNORE_INDEX, IGNORE_INDEX, 5, END, IGNORE_INDEX, 5, END]]


def test_audios_go_where_their_index_says():
    embed = nn.Embedding(10, 2)
    audios = [torch.ones(1, 2), torch.full((2, 2), 2.0)]
    inputs = join_segments([[AudioSegment(1), AudioSegment(0)]], [audios], embed)
    assert inputs.embeddings[0].tolist() == [[2, 2], [2, 2], [1, 1]]


def test_gradient_reaches_the_audio_and_its_precision_becomes_the_llm_s():
    embed = nn.Embedding(10, 2, dtype=torch.bfloat16)
    audio = torch.ones(3, 2, requires_grad=True)
    inputs = join_segments([[AudioSegment(0), TextSegment([1], loss=True)]], [[audio]], embed)
    assert inputs.embeddings.dtype == torch.bfloat16
    inputs.embeddings.sum().backward()
    assert (audio.grad == 1).all()


PROMPT = [TextSegment([7] * 50), AudioSegment(0), TextSegment([*range(3, 10)] * 60 + [END], loss=True)]


def test_masking_replaces_a_fraction_of_what_is_read_and_no_label():
    question, audio, answer = mask_text(PROMPT, 0.25, 1, (0, 0, "a"))
    assert (question, audio) == tuple(PROMPT[:2])
    assert answer.ids == PROMPT[2].ids and answer.loss
    masked = [read != label for read, label in zip(answer.read, answer.ids, strict=True)]
    assert len(answer.read) == len(answer.ids) and not masked[-1]  # the end token stays
    assert {read for read, hidden in zip(answer.read, masked, strict=True) if hidden} == {1}
    assert 0.15 < sum(masked) / 420 < 0.35

    embed = nn.Embedding(10, 4)
    inputs = join_segments([[question, answer]], [[]], embed)
    assert inputs.labels[0, 50:].tolist() == answer.ids
    assert torch.equal(inputs.embeddings[0, 50:], embed(torch.tensor(answer.read)))


def test_masking_depends_on_its_name_alone():
    def read(seed: int, epoch: int, sample: str) -> list[int]:
        return mask_text(PROMPT, 0.5, 1, (seed, epoch, sample))[2].read

    first = read(0, 0, "a")
    torch.manual_seed(5)
    assert read(0, 0, "a") == first
    assert len({tuple(ids) for ids in (first, read(1, 0, "a"), read(0, 1, "a"), read(0, 0, "b"))}) == 4


def test_masking_at_its_ends():
    assert mask_text(PROMPT, 0.0, 1, ())[2].read == PROMPT[2].ids
    assert mask_text(PROMPT, 1.0, 1, ())[2].read == [1] * 420 + [END]
    assert mask_text([TextSegment([END], loss=True)], 1.0, 1, ())[0].read == [END]

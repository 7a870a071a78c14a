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

"""Generation: equal to Hugging Face's own, the same in any batch, cut answers reported."""

import pytest
import torch
from transformers import LlamaForCausalLM

from nemo_speechllm.decoding.generate import generate_ids
from nemo_speechllm.modules.segments import LLMInputs, join_segments
from nemo_speechllm.prompts.segments import TextSegment

NEVER = 49151  # an id that the tiny model does not produce below
PROMPTS = [[5, 17, 900, 41], [33], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]]


@pytest.fixture(scope="module")
def llm(tiny_llm_folder) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(tiny_llm_folder).eval()


def inputs_of(llm: LlamaForCausalLM, prompts: list[list[int]], padding: int = 0) -> LLMInputs:
    inputs = join_segments([[TextSegment(ids)] for ids in prompts], [[]] * len(prompts), llm.get_input_embeddings())
    pad = torch.nn.functional.pad
    return LLMInputs(
        pad(inputs.embeddings, (0, 0, padding, 0)),
        pad(inputs.attention_mask, (padding, 0)),
        pad(inputs.labels, (padding, 0)),
    )


@pytest.mark.parametrize("beam_size", [1, 3])
def test_equals_generation_from_ids(llm, beam_size):
    ids, _ = generate_ids(llm, inputs_of(llm, PROMPTS[:1]), NEVER, max_new_tokens=10, beam_size=beam_size)
    expected = llm.generate(
        torch.tensor(PROMPTS[:1]),
        attention_mask=torch.ones(1, 4),
        max_new_tokens=10,
        num_beams=beam_size,
        do_sample=False,
        eos_token_id=NEVER,
        pad_token_id=NEVER,
    )
    assert ids == expected[:, 4:].tolist()


@pytest.mark.parametrize("beam_size", [1, 3])
def test_same_tokens_alone_in_a_batch_and_over_padded(llm, beam_size):
    options = {"max_new_tokens": 10, "beam_size": beam_size}
    alone = [generate_ids(llm, inputs_of(llm, [prompt]), NEVER, **options)[0][0] for prompt in PROMPTS]
    for padding in (0, 10):
        assert generate_ids(llm, inputs_of(llm, PROMPTS, padding), NEVER, **options)[0] == alone


def test_answers_end_before_the_end_token_and_cut_ones_are_reported(llm):
    (first, *others), truncated = generate_ids(llm, inputs_of(llm, PROMPTS), NEVER, max_new_tokens=6)
    assert truncated.tolist() == [True] * 3 and len(first) == 6
    end = next(token for token in first if not any(token in other for other in others))
    ids, truncated = generate_ids(llm, inputs_of(llm, PROMPTS), end, max_new_tokens=6)
    assert ids == [first[: first.index(end)], *others]
    assert truncated.tolist() == [False, True, True]


def test_an_answer_may_be_empty(llm):
    (ids,), _ = generate_ids(llm, inputs_of(llm, PROMPTS[:1]), NEVER, max_new_tokens=1)
    answers, truncated = generate_ids(llm, inputs_of(llm, PROMPTS[:1]), ids[0], max_new_tokens=5)
    assert answers == [[]] and truncated.tolist() == [False]


def test_repetition_penalty_forbids_a_loop(llm):
    plain, _ = generate_ids(llm, inputs_of(llm, PROMPTS[1:2]), NEVER, max_new_tokens=20)
    varied, _ = generate_ids(llm, inputs_of(llm, PROMPTS[1:2]), NEVER, max_new_tokens=20, repetition_penalty=10.0)
    assert len(set(varied[0])) > len(set(plain[0]))

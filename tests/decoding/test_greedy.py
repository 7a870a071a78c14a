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

"""Greedy search writes what Hugging Face's does, whatever a draft foresees, and needs fewer passes for a good one."""

import pytest
import torch
from transformers import LlamaForCausalLM

from nemo_speechllm.decoding.generate import generate_ids
from nemo_speechllm.decoding.joint import JointCTCScores
from nemo_speechllm.modules.llm import load_llm
from nemo_speechllm.modules.segments import join_segments
from nemo_speechllm.prompts.segments import TextSegment

NEVER = 49151
PROMPTS = [[5, 17, 900, 41], [33], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]]
LIMIT = 14


@pytest.fixture
def llm(tiny_llm_folder) -> LlamaForCausalLM:
    return load_llm(tiny_llm_folder).eval()


def answers(llm, prompts=PROMPTS, end=NEVER, limit=LIMIT, **options):
    inputs = join_segments([[TextSegment(ids)] for ids in prompts], [[]] * len(prompts), llm.get_input_embeddings())
    ids, cut = generate_ids(llm, inputs, end, max_new_tokens=limit, **options)
    return ids, cut.tolist()


def hugging_faces(llm, **options):
    llm.set_attn_implementation("sdpa")
    expected = answers(llm, **options)
    llm.set_attn_implementation("nemo_speechllm_rows")
    return expected


@pytest.fixture
def passes(llm) -> list[int]:
    """Positions read in each pass of the LLM."""
    read = []
    llm.register_forward_pre_hook(lambda _, __, given: read.append(given["inputs_embeds"].shape[1]), with_kwargs=True)
    return read


@pytest.mark.parametrize("repetition_penalty", [1.0, 1.5])
def test_it_writes_what_hugging_faces_search_does(llm, repetition_penalty):
    (plain, *_), _ = hugging_faces(llm)
    for end in (NEVER, plain[3]):
        options = {"end": end, "repetition_penalty": repetition_penalty}
        assert answers(llm, **options) == hugging_faces(llm, **options)


def test_what_an_llm_asks_of_its_own_answers_is_heeded(llm):
    plain, _ = answers(llm)
    llm.generation_config.suppress_tokens = [plain[0][0]]
    assert plain[0][0] not in answers(llm)[0][0]
    assert answers(llm) == hugging_faces(llm)


def test_nothing_is_read_for_a_row_that_has_ended(llm, passes):
    (first, second, third), _ = answers(llm)
    end = next(token for token in first if token not in second + third)
    passes.clear()
    answers(llm, end=end)
    assert passes == [15] + [3] * first.index(end) + [2] * (LIMIT - 1 - first.index(end))


BEGUN_ALIKE = [
    ([[8, 9, 5, 17], [8, 9, 33], [8, 9, 6, 2, 3]], 2 + 2 + 1 + 3),
    ([[8, 9, 5], [8, 9, 5], [8, 9, 5]], 2 + 3),  # each answer begins behind a position of its own
    ([[8, 9, 5], [8], [8, 9, 4]], 7),  # nothing is left of the second to be shared
    ([[8, 9, 5]], 3),
]


@pytest.mark.parametrize(("prompts", "read"), BEGUN_ALIKE)
def test_what_all_prompts_begin_with_is_read_once(llm, passes, prompts, read):
    answers(llm, prompts)
    assert passes[0] == read


@pytest.mark.parametrize("prompts", [prompts for prompts, _ in BEGUN_ALIKE])
def test_prompts_that_begin_alike_are_answered_as_each_alone(llm, prompts):
    written = answers(llm, prompts)
    assert written == hugging_faces(llm, prompts=prompts)
    assert written[0] == [answers(llm, [prompt])[0][0] for prompt in prompts]
    assert answers(llm, prompts, drafts=written[0]) == written


def drafts_of(written: list[list[int]]) -> dict[str, list[list[int]]]:
    return {
        "right": [row + [NEVER] for row in written],
        "short": [row[:5] for row in written],
        "empty": [[] for _ in written],
        "wrong": [[7] * 20 for _ in written],
        "a word else": [row[:4] + [7] + row[5:] for row in written],
        "a word more": [row[:4] + [7] + row[4:] for row in written],
        "a word less": [row[:4] + row[5:] for row in written],
        "of some": [written[0], [], written[1]],
    }


@pytest.mark.parametrize("kind", drafts_of([[], [], []]))
@pytest.mark.parametrize("repetition_penalty", [1.0, 1.5])
def test_drafts_do_not_change_what_is_written(llm, kind, repetition_penalty):
    plain = answers(llm, repetition_penalty=repetition_penalty)
    drafts = drafts_of(plain[0])[kind]
    assert answers(llm, repetition_penalty=repetition_penalty, drafts=drafts) == plain
    end = plain[0][0][3]
    ended = answers(llm, end=end, repetition_penalty=repetition_penalty)
    assert answers(llm, end=end, repetition_penalty=repetition_penalty, drafts=drafts) == ended
    assert ended[1][0] is False


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_no_more_is_written_than_is_allowed(llm, limit):
    assert answers(llm, limit=limit, drafts=answers(llm)[0]) == answers(llm, limit=limit)


def test_a_right_draft_takes_one_pass(llm, passes):
    (plain, *_), _ = answers(llm, PROMPTS[:1])
    passes.clear()
    answers(llm, PROMPTS[:1], drafts=[plain])
    assert passes == [4 + LIMIT - 1]


def test_a_draft_is_taken_up_again_behind_a_wrong_word(llm, passes):
    (plain, *_), _ = answers(llm, PROMPTS[:1])
    passes.clear()
    answers(llm, PROMPTS[:1], drafts=[plain[:4] + [7] + plain[4:]])
    assert passes == [4 + LIMIT - 1, LIMIT - 5]


def test_ctc_has_its_say_in_what_is_drafted(llm):
    tokens = torch.tensor([40, 300, 7000])
    audio = (torch.randn(9, 4, generator=torch.Generator().manual_seed(0)) * 3).log_softmax(-1)

    def joint() -> JointCTCScores:
        return JointCTCScores([audio, None, audio], tokens, NEVER, weight=0.5)

    plain = answers(llm, joint=joint())
    assert plain == hugging_faces(llm, joint=joint())
    for drafts in drafts_of(plain[0]).values():
        assert answers(llm, joint=joint(), drafts=drafts) == plain

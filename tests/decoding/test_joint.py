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

"""Joint decoding of LLM and CTC, against an enumeration of all CTC paths and against torch's CTC loss."""

import itertools

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from nemo_speechllm.decoding.generate import generate_ids
from nemo_speechllm.decoding.joint import CTCPrefixScores, JointCTCScores, _prolonged
from nemo_speechllm.modules.segments import join_segments
from nemo_speechllm.prompts.segments import TextSegment

END = 2


def random_log_probs(frames: int, classes: int, seed: int = 0) -> np.ndarray:
    return torch.randn(frames, 1 + classes, generator=torch.Generator().manual_seed(seed)).log_softmax(-1).numpy()


def collapsed(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(label - 1 for label, _ in itertools.groupby(path) if label > 0)


@pytest.mark.parametrize("prefix", [(), (0,), (1,), (0, 0), (0, 1), (1, 0, 1), (0, 0, 0)])
def test_next_token_probabilities_are_those_of_all_paths(prefix):
    log_probs = random_log_probs(frames=5, classes=2)
    totals = {}
    for path in itertools.product(range(3), repeat=5):
        text = collapsed(path)
        totals[text] = totals.get(text, 0.0) + float(np.exp(log_probs[range(5), path].sum()))

    def begins_with(start: tuple[int, ...]) -> float:
        return sum(p for text, p in totals.items() if text[: len(start)] == start)

    tokens, end = CTCPrefixScores(log_probs).next(prefix)
    expected = [begins_with((*prefix, token)) / begins_with(prefix) for token in (0, 1)]
    assert np.exp(tokens) == pytest.approx(expected, rel=1e-5)
    assert np.exp(end) == pytest.approx(totals.get(prefix, 0.0) / begins_with(prefix), rel=1e-5)


def test_next_tokens_sum_up_to_torchs_ctc_loss():
    log_probs, text = random_log_probs(frames=40, classes=6, seed=1), (3, 3, 0, 5, 1)
    scores, total = CTCPrefixScores(log_probs), 0.0
    for i, token in enumerate(text):
        total += scores.next(text[:i])[0][token]
    total += scores.next(text)[1]
    loss = torch.nn.functional.ctc_loss(
        torch.from_numpy(log_probs)[:, None], torch.tensor([text]) + 1, [40], [5], reduction="sum"
    )
    assert total == pytest.approx(-loss.item(), rel=1e-5)


def test_a_text_longer_than_its_audio_cannot_go_on():
    tokens, end = CTCPrefixScores(random_log_probs(frames=2, classes=3)).next((0, 1))
    assert np.isneginf(tokens).all() and end == pytest.approx(0.0, abs=1e-9)


def test_audio_without_frames_ends_at_once():
    tokens, end = CTCPrefixScores(np.zeros((0, 4))).next(())
    assert np.isneginf(tokens).all() and end == 0.0


@pytest.fixture(scope="module")
def llm(tiny_llm_folder) -> LlamaForCausalLM:
    return LlamaForCausalLM.from_pretrained(tiny_llm_folder).eval()


def clear_audio(classes: int, *spoken: int) -> torch.Tensor:
    """Each class in turn, blanks between, hardly a doubt."""
    frames = [label for token in spoken for label in (0, token + 1, 0)]
    return (torch.nn.functional.one_hot(torch.tensor(frames), classes + 1) * 12.0).log_softmax(-1)


@pytest.mark.parametrize("beam_size", [1, 3])
def test_ctc_alone_answers_what_is_heard_in_any_batch(llm, beam_size):
    tokens, prompts = torch.tensor([40, 300, 7000]), [[5, 17, 900], [33]]
    audios = [clear_audio(3, 1, 1, 2, 0), clear_audio(3, 2)]

    def answers(which: list[int]) -> list[list[int]]:
        inputs = join_segments(
            [[TextSegment(prompts[i])] for i in which], [[]] * len(which), llm.get_input_embeddings()
        )
        joint = JointCTCScores([audios[i] for i in which], tokens, END, weight=1.0, beam_size=beam_size)
        return generate_ids(llm, inputs, END, max_new_tokens=12, beam_size=beam_size, joint=joint)[0]

    assert answers([0, 1]) == [[300, 300, 7000, 40], [7000]] == answers([0]) + answers([1])


def test_where_ctc_has_no_say_the_llm_decides_alone(llm):
    inputs = join_segments([[TextSegment([5, 17])]] * 2, [[]] * 2, llm.get_input_embeddings())
    alone, _ = generate_ids(llm, inputs, END, max_new_tokens=6)
    joint = JointCTCScores([None, clear_audio(3, 1)], torch.tensor([40, 300, 7000]), END, weight=1.0)
    together, _ = generate_ids(llm, inputs, END, max_new_tokens=6, joint=joint)
    assert together == [alone[0], [300]]


@pytest.mark.parametrize("frames", [0, 1, 60])
def test_what_stays_for_many_frames_is_summed_as_frame_by_frame(frames):
    rng = np.random.default_rng(frames)
    entered = rng.normal(-30, 20, frames + 1)
    entered[: frames // 3] = -np.inf
    stays = -rng.exponential(3, frames)
    expected = [-np.inf]
    for t in range(frames):
        expected.append(np.logaddexp(expected[t], entered[t]) + stays[t])
    np.testing.assert_allclose(_prolonged(entered, stays), expected, rtol=1e-9)

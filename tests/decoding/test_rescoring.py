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

"""What CTC may have heard, against all paths counted out."""

from itertools import groupby, product

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from nemo_speechllm.decoding.rescoring import (
    Hypothesis,
    answer_log_probs,
    ctc_hypotheses,
    token_log_probs,
)
from nemo_speechllm.modules.ctc import EmbeddingCTC
from nemo_speechllm.modules.packing import allow_packing, can_pack


@pytest.fixture
def ctc() -> EmbeddingCTC:
    """Blank and the tokens 3, 5, 9; texts are numbers of tokens."""
    encode = lambda texts: [list(map(int, text.split())) for text in texts]  # noqa: E731
    ctc = EmbeddingCTC(lambda: torch.eye(12), encode, lambda ids: " ".join(map(str, ids)))
    ctc.seen[[3, 5, 9]] = True
    return ctc


def draw(frames: int, seed: int) -> torch.Tensor:
    return torch.randn(frames, 4, generator=torch.Generator().manual_seed(seed)).log_softmax(-1)


def all_texts(ctc: EmbeddingCTC, log_probs: torch.Tensor) -> dict[str, float]:
    """Return the probability of each text, summed over all its paths."""
    tokens, texts = ctc.tokens.tolist(), {}
    for path in product(range(4), repeat=len(log_probs)):
        text = ctc.text([tokens[label] for label, _ in groupby(path) if label != ctc.blank])
        texts[text] = texts.get(text, 0.0) + float(log_probs[range(len(path)), path].sum().exp())
    return texts


@pytest.mark.parametrize("seed", range(3))
def test_hypotheses_are_the_likeliest_texts_with_the_probability_of_all_their_paths(ctc, seed):
    log_probs = draw(5, seed)
    counted = all_texts(ctc, log_probs)
    found = ctc_hypotheses(ctc, log_probs, beam_size=128)
    assert [item.text for item in found[:20]] == sorted(counted, key=counted.__getitem__, reverse=True)[:20]
    for item in found:
        assert item.log_prob == pytest.approx(torch.tensor(counted[item.text]).log().item(), abs=1e-4)


def test_a_beam_of_one_follows_the_best_path(ctc):
    log_probs = draw(6, seed=7)
    (greedy,) = ctc.greedy(log_probs[None], torch.tensor([len(log_probs)]))
    assert [item.text for item in ctc_hypotheses(ctc, log_probs, beam_size=1)] == [greedy.text]


def test_other_texts_are_scored_as_well_if_the_audio_has_a_path_for_them(ctc):
    log_probs = draw(5, seed=1)
    counted = all_texts(ctc, log_probs)
    heard = {item.text: item.log_prob for item in ctc_hypotheses(ctc, log_probs, 1, "9 9 9", "3 3 3 3", "7", "5 9")}
    assert {"9 9 9", "5 9"} <= heard.keys() and not {"3 3 3 3", "7"} & heard.keys()
    assert heard["9 9 9"] == pytest.approx(torch.tensor(counted["9 9 9"]).log().item(), abs=1e-4)


def test_no_frames_are_no_words(ctc):
    assert ctc_hypotheses(ctc, torch.zeros(0, 4), 4, "5") == [Hypothesis("", 0.0)]


def tiny(family: str, **sizes) -> PreTrainedModel:
    torch.manual_seed(0)
    sizes |= {"vocab_size": 50, "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes)).eval()


@pytest.fixture(params=["bloom", "llama", "packed", "window", "narrow"])
def llm(request) -> PreTrainedModel:
    """An LLM that answers a batch, or reads packed rows; its window has room for the answers or has not."""
    if request.param == "bloom":  # ALiBi
        return tiny("bloom")
    windows = {"window": 13, "narrow": 12}
    if request.param in windows:
        llm = tiny("mistral", num_key_value_heads=2, intermediate_size=48, sliding_window=windows[request.param])
    else:
        llm = tiny("llama", num_key_value_heads=2, intermediate_size=48)
    if request.param != "llama":
        allow_packing(llm)
        assert can_pack(llm)
    return llm


def prompt_of(llm: PreTrainedModel) -> torch.Tensor:
    width = llm.get_input_embeddings().weight.shape[1]
    return torch.randn(7, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "answers", [[[5, 9, 3], [2], [5, 9, 8, 1, 1, 2], [7, 2], [5, 9, 3, 2], [7, 2]], [[4]], [[4], [2]]]
)
def test_a_prompt_that_is_read_once_gives_what_each_answer_has_alone(llm, answers):
    embed, prompt = llm.get_input_embeddings(), prompt_of(llm)
    alone = []
    for ids in answers:
        with torch.no_grad():
            logits = llm(inputs_embeds=torch.cat([prompt, embed(torch.tensor(ids))])[None]).logits[0]
        log_probs = logits[len(prompt) - 1 : -1].log_softmax(-1)
        alone.append(log_probs[range(len(ids)), ids])
    expected = pad_sequence(alone, batch_first=True)
    torch.testing.assert_close(token_log_probs(llm, prompt, answers), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(answer_log_probs(llm, prompt, answers), expected.sum(1), rtol=1e-5, atol=1e-5)


def test_what_answers_begin_with_alike_is_read_once():
    llm, read = tiny("llama", num_key_value_heads=2, intermediate_size=48), []
    allow_packing(llm)
    llm.model.register_forward_hook(lambda module, arguments, output: read.append(output.last_hidden_state.shape[:2]))
    prompt = prompt_of(llm)
    token_log_probs(llm, prompt, [[5, 9, 3, 2], [5, 9, 2], [5, 9, 3, 8, 2], [7, 9, 2]])
    assert read == [(1, len(prompt) + len(["5", "5 9", "5 9 3", "5 9 3 8", "7", "7 9"]))]

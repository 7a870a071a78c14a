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
from pathlib import Path

import pytest
import torch
from nemo.collections.asr.parts.context_biasing.boosting_graph_batched import (
    BoostingTreeModelConfig,
    GPUBoostingTreeModel,
)
from nemo.collections.common.tokenizers.sentencepiece_tokenizer import create_spt_model
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from nemo_speechllm.decoding.rescoring import (
    Hypothesis,
    answer_log_probs,
    ctc_hypotheses,
    preference_of,
    token_log_probs,
)
from nemo_speechllm.modules.ctc import CTCHead, EmbeddingCTC
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


@pytest.fixture
def head(ctc_tokenizer_folder) -> CTCHead:
    return CTCHead(8, ctc_tokenizer_folder / "tokenizer.model")


def heard_of(head: CTCHead, *texts: str) -> torch.Tensor:
    """Return frames in which each of the texts is heard, of as many pieces, the earlier the better, (T, C)."""
    logits = torch.zeros(2 * len(head.ids([texts[0]])[0]), head.blank + 1)
    logits[1::2, head.blank] = 12.0
    for place, ids in enumerate(head.ids([*texts])):
        logits[range(0, 2 * len(ids), 2), ids] = 9.0 - 0.5 * place
    return logits.log_softmax(-1)


def test_a_preference_finds_keywords_and_leaves_what_they_are_worth(head):
    said, meant = "thank you", "hold line"
    pieces = head.ids([said, meant])
    count = min(map(len, pieces))
    said, meant = (head.tokenizer.ids_to_text(ids[:count]) for ids in pieces)
    log_probs = heard_of(head, said, meant)
    plain = ctc_hypotheses(head, log_probs, 2)
    led = ctc_hypotheses(head, log_probs, 2, preference=preference_of(head, [meant]))
    assert plain[0].text == said and meant not in [item.text for item in plain]
    assert [item.text for item in led] == [said, meant], "CTC's own order"
    (scored,) = [item for item in ctc_hypotheses(head, log_probs, 1, meant) if item.text == meant]
    assert led[1].log_prob == pytest.approx(scored.log_prob)


def test_keywords_that_the_head_cannot_write_are_named_and_lead_nowhere(head, nemo_log):
    log_probs = heard_of(head, "thank you")
    plain = ctc_hypotheses(head, log_probs, 4)
    for odd in (["\u200b"], ["咖啡"], ["▁", "😀"]):
        assert preference_of(head, odd) is None
        assert f"CTC cannot write {odd[0]!r}" in nemo_log.text
    among = preference_of(head, ["咖啡", "thank"])
    assert ctc_hypotheses(head, log_probs, 4, preference=among)[0] == plain[0]


def make_head(folder: Path, text: str) -> CTCHead:
    """Return a head whose pieces spell a text, as it is written."""
    (folder / "text.txt").write_text(f"{text}\n" * 5)
    create_spt_model(str(folder / "text.txt"), 24, -1, do_lower_case=False, output_dir=str(folder / "out"))
    return CTCHead(8, folder / "out/tokenizer.model")


def bonuses(head: CTCHead, keywords: list[str], text: str) -> list[float]:
    """Return what each piece of a text gains by keywords."""
    return preference_of(head, keywords)(torch.tensor(head.ids([text])))[0].tolist()


def test_a_keyword_is_preferred_as_it_is_written_and_at_a_sentence_s_start(tmp_path):
    head = make_head(tmp_path, "Thank you. Hold the Line. thank you, hold the line")
    keywords = ["thank", "hold the line", "Line"]
    for written in ("thank", "Thank", "hold the line", "Hold the line", "Line"):
        assert min(bonuses(head, keywords, written)) > 0, written
    for other in ("you", "line", "hold The line"):
        assert min(bonuses(head, keywords, other)) <= 0, other


def test_pieces_without_capitals_have_the_keywords_that_are_given(head, tmp_path, nemo_log):
    keywords = ["thank", "hold the line"]
    for small in (head, make_head(tmp_path, "thank you hold the line")):
        as_given = GPUBoostingTreeModel.from_config(
            BoostingTreeModelConfig(key_phrases_list=keywords), small.tokenizer
        )
        tree = preference_of(small, keywords)
        torch.testing.assert_close(tree.state_dict(), as_given.state_dict(), rtol=0, atol=0)
    assert "CTC cannot write" not in nemo_log.text


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

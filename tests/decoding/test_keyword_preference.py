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

"""Keywords lead CTC's search in whatever case they are given, and have a say in the choice where a text holds them."""

from pathlib import Path

import pytest
import torch
from nemo.collections.asr.parts.context_biasing.boosting_graph_batched import (
    BoostingTreeModelConfig,
    GPUBoostingTreeModel,
)
from nemo.collections.common.tokenizers.sentencepiece_tokenizer import create_spt_model

from nemo_speechllm.decoding.keyword_preference import LETTERS_PER_NAT, KeywordPreference
from nemo_speechllm.decoding.rescoring import ctc_hypotheses
from nemo_speechllm.modules.ctc import CTCHead


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


def test_a_search_that_keywords_lead_finds_them_and_leaves_what_ctc_says_of_them(head):
    said, meant = "thank you", "hold line"
    pieces = head.ids([said, meant])
    count = min(map(len, pieces))
    said, meant = (head.tokenizer.ids_to_text(ids[:count]) for ids in pieces)
    log_probs = heard_of(head, said, meant)
    plain = ctc_hypotheses(head, log_probs, 2)
    led = ctc_hypotheses(head, log_probs, 2, preference=KeywordPreference(head, [meant]).tree)
    assert plain[0].text == said and meant not in [item.text for item in plain]
    assert [item.text for item in led] == [said, meant], "CTC's own order"
    (scored,) = [item for item in ctc_hypotheses(head, log_probs, 1, meant) if item.text == meant]
    assert led[1].log_prob == pytest.approx(scored.log_prob)


def test_keywords_that_the_head_cannot_write_are_named_and_lead_nowhere(head, nemo_log):
    log_probs = heard_of(head, "thank you")
    plain = ctc_hypotheses(head, log_probs, 4)
    for odd in (["\u200b"], ["咖啡"], ["▁", "😀"]):
        assert KeywordPreference(head, odd).tree is None
        assert f"CTC cannot write {odd[0]!r}" in nemo_log.text
    among = KeywordPreference(head, ["咖啡", "thank"]).tree
    assert ctc_hypotheses(head, log_probs, 4, preference=among)[0] == plain[0]


def make_head(folder: Path, text: str) -> CTCHead:
    """Return a head whose pieces spell a text, as it is written."""
    (folder / "text.txt").write_text(f"{text}\n" * 5)
    create_spt_model(str(folder / "text.txt"), 24, -1, do_lower_case=False, output_dir=str(folder / "out"))
    return CTCHead(8, folder / "out/tokenizer.model")


def tree_of(head: CTCHead, keywords: list[str]) -> GPUBoostingTreeModel:
    tree = KeywordPreference(head, keywords).tree
    assert tree is not None
    return tree


def bonuses(head: CTCHead, keywords: list[str], text: str) -> list[float]:
    """Return what each piece of a text gains by keywords."""
    return tree_of(head, keywords)(torch.tensor(head.ids([text])))[0].tolist()


def test_a_keyword_is_preferred_as_it_is_written_and_at_a_sentence_s_start(tmp_path):
    head = make_head(tmp_path, "Thank you. Hold the Line. thank you, hold the line")
    keywords = ["thank", "hold the line"]
    for written in ("thank", "Thank", "hold the line", "Hold the line"):
        assert min(bonuses(head, keywords, written)) > 0, written
    for other in ("you", "line", "hold The line"):
        assert min(bonuses(head, keywords, other)) <= 0, other


def test_a_head_of_small_letters_writes_keywords_given_in_capitals(tmp_path, nemo_log):
    head = make_head(tmp_path, "hold the line please")
    for given in ("HOLD", "Hold the Line"):
        assert min(bonuses(head, [given], given.lower())) > 0, given
    assert "CTC cannot write" not in nemo_log.text


@pytest.mark.parametrize("given", ["HOLD THE LINE", "Hold The Line", "Hold the line"])
def test_what_the_capitals_of_a_keyword_hide_is_preferred_as_well(tmp_path, given):
    head = make_head(tmp_path, "Hold The Line. Hold the line. hold the line. HOLD THE LINE")
    for written in (given, "hold the line", "Hold the line", "Hold The Line"):
        assert min(bonuses(head, [given], written)) > 0, written


def test_pieces_without_capitals_have_the_keywords_that_are_given(head, tmp_path, nemo_log):
    keywords = ["thank", "hold the line"]
    for small in (head, make_head(tmp_path, "thank you hold the line")):
        as_given = GPUBoostingTreeModel.from_config(
            BoostingTreeModelConfig(key_phrases_list=keywords), small.tokenizer
        )
        tree = tree_of(small, keywords)
        torch.testing.assert_close(tree.state_dict(), as_given.state_dict(), rtol=0, atol=0)
    assert "CTC cannot write" not in nemo_log.text


@pytest.mark.parametrize(
    ("keywords", "text", "letters"),
    [
        (["steels"], "Philip Steels, etc.", 6),
        (["PHILIP STEELS"], "It was Philip Steels.", 12),
        (["Steels"], "He steels himself, and Steels is his name.", 12),
        (["steel"], "Philip Steels", 0),  # a part of a word
        (["soy milk", "milk"], "soy milk and milk", 11),  # the longer one first, no letter twice
        (["milk soy"], "soy milk", 0),
        (["don't"], "I don't know", 5),
        (["ünsal"], "Herr Ünsal", 5),
        ([], "thank you", 0),
        (["thank"], "", 0),
        (["!?"], "thank you!?", 0),
    ],
)
def test_a_text_is_worth_more_for_the_letters_of_keywords_that_it_holds_as_words(head, keywords, text, letters):
    assert KeywordPreference(head, keywords).nats(text) == letters / LETTERS_PER_NAT

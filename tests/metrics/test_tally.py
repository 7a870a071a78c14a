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

"""Errors by language in validation, on one rank and on several."""

import multiprocessing
from pathlib import Path

import pytest
import sacrebleu
import torch

from nemo_speechllm.metrics.tally import ErrorTally
from nemo_speechllm.models.validation import _sum_over_ranks


def tally(*triples: tuple[str, str, str], loss: float = 1.0) -> ErrorTally:
    """Of (hypothesis, reference, language)."""
    counted = ErrorTally(loss, len(triples))
    counted.count(*map(list, zip(*triples, strict=True)), "basic")
    return counted


def test_languages_weigh_alike_in_the_macro_average_and_words_in_the_other():
    counted = tally(("a b", "a x", "en"), ("c d e f", "c d e f", "en"), ("un", "deux", "fr"))
    assert counted.figures() == pytest.approx({"loss": 1 / 3, "wer": 2 / 7, "cer": counted.figures()["cer"]})
    languages = counted.language_figures()
    assert (languages["wer_en"], languages["wer_fr"]) == pytest.approx((1 / 6, 1.0))
    assert languages["wer_macro"] == pytest.approx((1 / 6 + 1.0) / 2)
    assert set(languages) == {f"{rate}_{name}" for rate in ("wer", "cer") for name in ("en", "fr", "macro")}


def test_each_language_is_normalised_by_its_own_rules():
    counted = ErrorTally(1.0, 2)
    counted.count(["acht", "yes"], ["um acht", "um yes"], ["de-DE", "en"], "auto")
    counted.count(["今日"], ["今日は"], ["ja"], "auto")
    figures = counted.language_figures()
    assert (figures["wer_de-DE"], figures["wer_en"], figures["wer_ja"]) == (1 / 2, 0, pytest.approx(1 / 3))


def test_translations_into_a_region_s_chinese_have_its_tokenizer():
    counted = ErrorTally(1.0, 1)
    counted.count_translation("这天晚上，两个人第二十次握手。", "那天晚上，两个人第二十次握手。", ("en", "zh-TW"))
    assert counted.figures()["bleu"] > 80


def test_a_single_language_has_no_figures_of_its_own():
    assert tally(("a", "b", "en")).language_figures() == {}


def test_translations_have_sacrebleus_figures_by_direction_and_their_mean():
    counted, other = ErrorTally(1.0, 2), ErrorTally(1.0, 1)
    for pair in (("un dos tres cuatro cinco", "un dos tres cuatro seis"), ("la casa es muy azul", "La casa es azul.")):
        counted.count_translation(*pair, ("en", "es"))
    assert counted.figures().keys() == {"loss", "wer", "cer", "bleu", "chrf"}
    assert counted.language_figures() == {}  # a single direction
    other.count_translation("le chat dort sur le lit", "le chat dort sur le lit", ("en", "fr"))
    both = counted + other
    hypotheses, references = zip(*both.translations["en", "es"], strict=True)
    bleu, chrf = (
        sacrebleu.corpus_bleu(hypotheses, [references]).score,
        sacrebleu.corpus_chrf(hypotheses, [references]).score,
    )
    assert both.language_figures() == pytest.approx(
        {"bleu_en-es": bleu, "chrf_en-es": chrf, "bleu_en-fr": 100, "chrf_en-fr": 100}
    )
    assert both.figures()["bleu"] == pytest.approx((bleu + 100) / 2)
    assert len(counted.translations["en", "es"]) == 2  # the parts stay as they were


PER_RANK = [
    {0: tally(("a b", "a x", "en"), loss=2.0), 1: tally(("y", "y", "it"))},
    {0: tally(("un", "deux", "fr"), ("c d", "c d", "en"), loss=3.0)},  # other languages, and no batch of set 1
]


PER_RANK[0][1].count_translation("una casa azul", "una casa roja", ("en", "es"))
PER_RANK[1][0].count_translation("eine Katze", "eine Katze", ("en", "de"))


def _rank(rank: int, folder: Path, results) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=len(PER_RANK)
    )
    results.put(
        {
            index: counted.figures() | counted.language_figures()
            for index, counted in _sum_over_ranks(PER_RANK[rank]).items()
        }
    )
    torch.distributed.destroy_process_group()


def test_every_rank_gets_the_figures_of_all(tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    ranks = [context.Process(target=_rank, args=(rank, tmp_path, results)) for rank in range(len(PER_RANK))]
    for process in ranks:
        process.start()
    figures = [results.get(timeout=60) for _ in ranks]
    for process in ranks:
        process.join()
    whole = PER_RANK[0][0] + PER_RANK[1][0]
    expected = {0: whole.figures() | whole.language_figures(), 1: PER_RANK[0][1].figures()}
    assert figures == [expected, expected]
    assert expected[0]["wer"] == pytest.approx(2 / 5) and expected[0]["loss"] == pytest.approx(5 / 3)


def test_one_process_sums_nothing():
    assert _sum_over_ranks({0: PER_RANK[0][0]})[0].figures() == PER_RANK[0][0].figures()

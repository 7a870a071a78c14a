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

"""Keyword figures against hand-computed cases and NeMo's own."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nemo.collections.asr.parts.context_biasing.context_biasing_utils import compute_fscore

from nemo_speechllm.files import as_object
from nemo_speechllm.metrics.keywords import KeywordCounts, KeywordReport, count_keywords, keyword_report

NAMES = ["ada", "boston", "new york", "king's cross station"]


@pytest.mark.parametrize(
    ("hypothesis", "reference", "expected"),
    [
        ("call ada now", "call ada now", (1, 0, 0, 0)),
        ("call ida now", "call ada now", (0, 1, 0, 0)),
        ("call ada now", "call her now", (0, 0, 1, 1)),
        ("ada ada", "ada", (1, 0, 1, 0)),  # said again, but not unsaid
        ("ada", "ada ada", (1, 1, 0, 0)),
        ("to new york city", "to new york", (1, 0, 0, 0)),
        ("to new yolk", "to new york", (0, 1, 0, 0)),
        ("to new big york", "to new york", (0, 1, 0, 0)),
        ("boston", "ada", (0, 1, 1, 1)),  # one keyword for another
        ("at king's cross station", "at king's cross station", (1, 0, 0, 0)),
        ("at kings station", "at king's cross station", (0, 1, 0, 0)),
        ("", "ada", (0, 1, 0, 0)),
        ("ada", "", (0, 0, 1, 1)),
        ("nothing", "of it", (0, 0, 0, 0)),
    ],
)
def test_counts(hypothesis, reference, expected):
    assert count_keywords(hypothesis, reference, NAMES, "none") == KeywordCounts(*expected)


def test_keywords_alike_once_normalised_count_once():
    assert count_keywords("Ada", "ada", ["ADA", "ada", "Ada!", "?"], "basic") == KeywordCounts(hits=1)
    assert count_keywords("Ada", "ada", [], "basic") == KeywordCounts()


@pytest.mark.parametrize(
    ("hypothesis", "reference", "keyword", "expected"),
    [
        ("मैं दिल्ला गया", "मैं दिल्ली गया", "दिल्ली", KeywordCounts(misses=1)),
        ("um elf", "elf", "um", KeywordCounts(false_alarms=1, leaked=1)),
        ("我在上海。", "我在上海", "上海", KeywordCounts(hits=1)),
        ("我在北京。", "我在上海", "上海", KeywordCounts(misses=1)),
    ],
)
def test_keywords_of_other_languages_are_words_of_theirs(hypothesis, reference, keyword, expected):
    assert count_keywords(hypothesis, reference, [keyword], "basic") == expected


def nemo_figures(folder, pairs, keywords) -> tuple[float, float, float]:
    manifest = folder / "predictions.jsonl"
    manifest.write_text("".join(json.dumps({"pred_text": h, "text": r}) + "\n" for h, r in pairs))
    return compute_fscore(str(manifest), keywords)


def assert_same(found: tuple, report: KeywordReport) -> None:
    for theirs, name in zip(found, ("precision", "recall", "f"), strict=True):
        assert (report.shares[name][0] or 0.0) == pytest.approx(theirs, abs=1e-6), name


words = st.lists(st.sampled_from(["ada", "b", "c", "d"]), min_size=1, max_size=7).map(" ".join)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(words, words), min_size=1, max_size=4))
def test_a_word_is_counted_as_nemo_counts_it(tmp_path_factory, pairs):
    counts = [count_keywords(hypothesis, reference, ["ada"], "none") for hypothesis, reference in pairs]
    if any(c.hits + c.misses + c.false_alarms for c in counts):  # of none NeMo has no figures
        assert_same(nemo_figures(tmp_path_factory.mktemp("nemo"), pairs, ["ada"]), keyword_report(counts))


def test_phrases_and_several_keywords_are_counted_as_nemo_counts_them(tmp_path):
    pairs = [
        ("call ada in new york", "call ada in new york"),
        ("call her in new york", "call ada in newark today"),
        ("from boston to york", "from austin to new york"),
        ("ada said ada", "ada said it"),
    ]
    keywords = ["ada", "boston", "new york"]
    counts = [count_keywords(hypothesis, reference, keywords, "none") for hypothesis, reference in pairs]
    report = keyword_report(counts)
    assert (report.hits, report.misses, report.false_alarms, report.leaked) == (3, 2, 3, 2)
    assert_same(nemo_figures(tmp_path, pairs, keywords), report)


def test_report():
    counts = [KeywordCounts(hits=3, misses=1), KeywordCounts(hits=1, false_alarms=2, leaked=1)] * 10
    report = keyword_report(counts)
    assert (report.precision, report.recall, report.leakage) == pytest.approx((4 / 6, 4 / 5, 1 / 2))
    assert report.f == pytest.approx(2 * (4 / 6) * (4 / 5) / (4 / 6 + 4 / 5))
    for share, (low, high) in report.shares.values():
        assert low < share < high
    assert json.dumps(as_object(keyword_report([]))) and keyword_report([KeywordCounts()]).f is None

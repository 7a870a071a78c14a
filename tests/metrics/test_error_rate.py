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

"""Error rates: jiwer's figures, empty references, named normalisers."""

import math

import jiwer
import pytest

from nemo_speechllm.metrics.error_rate import ErrorCounts, count_errors, error_rate, normalizer, word_differences

REFERENCES = ["please hold the line", "press one", "thank you very much"]
HYPOTHESES = ["please hold line", "press won now", "thank you very much"]


def test_rates_are_jiwer_s():
    assert error_rate(HYPOTHESES, REFERENCES, normalize="none") == jiwer.wer(REFERENCES, HYPOTHESES) == 3 / 10
    assert error_rate(HYPOTHESES, REFERENCES, "char", "none") == jiwer.cer(REFERENCES, HYPOTHESES)


def test_counts_of_a_case_counted_by_hand():
    assert count_errors(HYPOTHESES, REFERENCES, normalize="none") == ErrorCounts(1, 1, 1, 10)
    assert count_errors(["abd"], ["abc"], "char", "none") == ErrorCounts(1, 0, 0, 3)


def test_counts_of_batches_add_up_to_those_of_all():
    parts = [count_errors([h], [r]) for h, r in zip(HYPOTHESES, REFERENCES)]
    assert sum(parts, ErrorCounts()) == count_errors(HYPOTHESES, REFERENCES)


@pytest.mark.parametrize("unit, insertions", [("word", 2), ("char", 11)])
def test_empty_reference_counts_insertions(unit, insertions):
    counts = count_errors(["hello world"], [""], unit)
    assert counts == ErrorCounts(insertions=insertions) and math.isinf(counts.rate)
    assert count_errors(["hello world", "a b"], ["", "a b"]).rate == 1.0


def test_nothing_against_nothing_is_no_error():
    assert error_rate([""], [""]) == 0.0 and error_rate([], []) == 0.0


def test_empty_hypothesis_is_all_deletions():
    assert count_errors([""], ["a b c"]) == ErrorCounts(deletions=3, reference=3)


def test_the_normaliser_decides_what_is_an_error():
    assert error_rate(["I'm twenty-one"], ["i am 21"], normalize="english") == 0.0
    assert error_rate(["Hold, please!"], ["hold please"], normalize="basic") == 0.0
    assert error_rate(["Hold, please!"], ["hold please"], normalize="none") == 1.0


def test_english_unifies_numbers_and_contractions_and_basic_only_case_and_punctuation():
    assert normalizer("english")("I'm, Twenty-One!").strip() == "i am 21"
    assert normalizer("basic")("Grüß Gott, Welt!").strip() == "grüß gott welt"
    assert normalizer("none")(" As it Is. ") == "As it Is."


def test_a_reference_that_normalises_to_nothing_is_empty():
    assert count_errors(["yes"], ["..."], normalize="basic") == ErrorCounts(insertions=1)


def test_unknown_normaliser_names_the_known_ones():
    with pytest.raises(ValueError, match=r"'german'; known are \['basic', 'english', 'none'\]"):
        error_rate(["a"], ["a"], normalize="german")


def test_unequal_numbers_of_texts_are_an_error():
    with pytest.raises(ValueError, match="zip"):
        error_rate(["a", "b"], ["a"])


def test_differences_are_those_that_are_counted():
    reference, hypothesis = "Please hold the line, now!", "please fold line now and then"
    differences = word_differences(hypothesis, reference, "basic")
    assert differences == [
        ("equal", "please", "please"),
        ("substitute", "hold", "fold"),
        ("delete", "the", ""),
        ("equal", "line now", "line now"),
        ("insert", "", "and then"),
    ]
    counted = count_errors([hypothesis], [reference], normalize="basic")
    assert counted == ErrorCounts(substitutions=1, deletions=1, insertions=2, reference=5)
    assert word_differences("Yes", "…", "basic") == [("insert", "", "yes")] and word_differences("", "") == []
    assert word_differences("", "a b") == [("delete", "a b", "")]

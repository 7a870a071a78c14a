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

"""Which keywords of a long list are left for what CTC hears."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nemo_speechllm.decoding.keyword_filter import LETTERS, Evidence, KeywordFilter, best_path_ratios

LIST = ["Kubernetes", "Größe", "New York", "Lovelace", "Ada", "zebra", "Bratislava", "Ottawa"]


def letters(texts: list[str]) -> list[list[int]]:
    """A CTC of characters."""
    return [[ord(letter) for letter in text.strip()] for text in texts]


def heard(text: str, log_ratio: float = -2.0) -> Evidence:
    """A hypothesis, and CTC's scores which tell nothing apart."""
    return Evidence(text, lambda tokens: torch.full((40, 1 + len(tokens)), log_ratio))


def spells(text: str, of: str, doubt: float = -10.0) -> Evidence:
    """A hypothesis, and CTC's scores of frames that are the letters of another text."""

    def log_ratios(tokens: torch.Tensor) -> torch.Tensor:
        classes = [0, *tokens.tolist()]
        return torch.tensor([[0.0 if token == ord(letter) else doubt for token in classes] for letter in of])

    return Evidence(text, log_ratios)


@pytest.mark.parametrize(
    ("hypothesis", "expected"),
    [
        ("we deploy on cooper netis today", "Kubernetes"),  # in pieces
        ("die grosse bitte", "Größe"),
        ("from newyork to paris", "New York"),  # in one
        ("miss love lace said", "Lovelace"),
        ("BRATISLAWA!", "Bratislava"),
    ],
)
def test_a_misheard_keyword_is_among_the_first_to_stay(hypothesis, expected):
    assert expected in KeywordFilter(LIST, letters).select(heard(hypothesis), 2)


@pytest.mark.parametrize("spelling", ["ottawa", "Ottawa", "OTTAWA"])
def test_what_ctc_nearly_chose_is_found_whatever_it_chose(spelling):
    keywords = ["Lovelace", spelling, "zebra"]
    assert KeywordFilter(keywords, letters).select(spells("a zebra", "in ottawa"), 1) == [spelling]


def test_the_order_is_that_of_the_list_and_the_limit_holds():
    keyword_filter, evidence = KeywordFilter(LIST, letters), heard("ada lovelace in ottawa saw a zebra")
    assert keyword_filter.select(evidence, 4) == ["Lovelace", "Ada", "zebra", "Ottawa"]
    assert keyword_filter.select(evidence, 2) == ["Lovelace", "Ottawa"]


def test_nothing_heard_leaves_nothing():
    assert KeywordFilter(LIST, letters).select(heard(""), 8) == []
    assert KeywordFilter(LIST, letters).select(heard("?!"), 8) == []
    assert KeywordFilter([], letters).select(heard("ada"), 8) == []
    assert KeywordFilter(["?!", "ada"], letters).select(heard("ada"), 8) == ["ada"]


def test_vowel_signs_are_letters():
    heard_right = KeywordFilter(["दिल्ली", "दौलत"], letters).scores(heard("मैं दिल्ली गया"))
    assert heard_right[0] > heard_right[1] + LETTERS / 4
    same_consonants = KeywordFilter(["मीरा", "मारी"], letters).scores(heard("मीरा आई"))
    assert same_consonants[0] > same_consonants[1]


def test_a_keyword_that_ctc_has_no_tokens_for_is_left_out():
    assert KeywordFilter(["ada", "Größe"], lambda texts: [[1] if "ada" in t else [] for t in texts]).select(
        heard("ada grosse"), 8
    ) == ["ada"]


@given(st.lists(st.sampled_from(LIST), min_size=1, max_size=4, unique=True), st.integers(1, 8))
def test_what_was_heard_right_is_never_cut_before_what_was_not(said, limit):
    keyword_filter, evidence = KeywordFilter(LIST, letters), heard(" ".join(said))
    selected, scores = (
        keyword_filter.select(evidence, limit),
        dict(zip(LIST, keyword_filter.scores(evidence), strict=True)),
    )
    assert all(scores[word] == pytest.approx(LETTERS - 2) for word in said)
    assert len(selected) <= limit and len(set(selected) & set(said)) >= min(limit, len(said)) - sum(
        np.isclose(scores[word], LETTERS - 2) for word in set(LIST) - set(said)
    )


@given(st.permutations(LIST), st.integers(1, len(LIST)))
def test_a_score_does_not_depend_on_the_rest_of_the_list(keywords, size):
    evidence = spells("ada in new york", "ottawa new york")
    whole = dict(zip(LIST, KeywordFilter(LIST, letters).scores(evidence), strict=True))
    part = KeywordFilter(keywords[:size], letters).scores(evidence)
    assert part == pytest.approx([whole[keyword] for keyword in keywords[:size]])


def by_all_paths(log_ratios: np.ndarray, sequence: list[int]) -> float:
    """The best of every path of every stretch of frames, one after the other."""
    best = -np.inf
    for start, end in product(range(len(log_ratios)), repeat=2):
        for steps in product((0, 1), repeat=max(0, end - start)):
            if sum(steps) == len(sequence) - 1 and start <= end:
                place, total = 0, log_ratios[start, sequence[0]]
                for frame, step in zip(log_ratios[start + 1 : end + 1], steps, strict=True):
                    place += step
                    total += frame[sequence[place]] if step else max(frame[sequence[place]], frame[0])
                best = max(best, total)
    return best / len(sequence)


@given(st.integers(0, 1000), st.integers(1, 6))
def test_best_path_is_that_of_all_paths(seed, frames):
    random = np.random.default_rng(seed)
    log_ratios = random.normal(size=(frames, 5))
    sequences = [random.integers(1, 5, size).tolist() for size in (1, 2, 3, 3)]
    padded = torch.zeros(len(sequences), 3, dtype=torch.long)
    for row, sequence in zip(padded, sequences, strict=True):
        row[: len(sequence)] = torch.tensor(sequence)
    found = best_path_ratios(torch.from_numpy(log_ratios).float(), padded, torch.tensor(list(map(len, sequences))))
    assert found.tolist() == pytest.approx(
        [by_all_paths(log_ratios, sequence) for sequence in sequences], rel=1e-5, abs=1e-5
    )

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

"""Which keywords of a long list are left for a hypothesis."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_speechllm.decoding.keyword_filter import KeywordFilter

LIST = ["Kubernetes", "Größe", "New York", "Lovelace", "Ada", "zebra", "Bratislava", "Ottawa"]


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
def test_a_misheard_keyword_is_the_first_to_stay(hypothesis, expected):
    assert expected in KeywordFilter(LIST).select(hypothesis, 2)


def test_the_order_is_that_of_the_list_and_the_limit_holds():
    selected = KeywordFilter(LIST).select("ada lovelace in ottawa saw a zebra", 4)
    assert selected == ["Lovelace", "Ada", "zebra", "Ottawa"]
    assert KeywordFilter(LIST).select("ada lovelace in ottawa saw a zebra", 2) == ["Lovelace", "Ottawa"]


def test_nothing_heard_leaves_nothing():
    assert KeywordFilter(LIST).select("", 8) == [] and KeywordFilter(LIST).select("?!", 8) == []
    assert KeywordFilter([]).select("ada", 8) == [] and KeywordFilter(["?!", "ada"]).select("ada", 8) == ["ada"]


@given(st.lists(st.sampled_from(LIST), min_size=1, max_size=4, unique=True), st.integers(1, 8))
def test_what_was_heard_right_is_never_cut_before_what_was_not(said, limit):
    keyword_filter = KeywordFilter(LIST)
    hypothesis = " ".join(said)
    selected = keyword_filter.select(hypothesis, limit)
    scores = dict(zip(LIST, keyword_filter.scores(hypothesis)))
    assert all(scores[word] == pytest.approx(100) for word in said)
    assert len(selected) <= limit and len(set(selected) & set(said)) >= min(limit, len(said)) - sum(
        np.isclose(scores[word], 100) for word in set(LIST) - set(said)
    )

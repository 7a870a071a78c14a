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

"""A keyword list is got ready once, for as long as it stays the same."""

from nemo_speechllm.decoding.keyword_memo import KeywordMemo


def test_what_was_made_of_the_last_list_is_kept():
    memo: KeywordMemo[list[str]] = KeywordMemo()
    first = memo.get(["a", "b"], list)
    assert memo.get(["a", "b"], list) is first
    assert memo.get(["b", "a"], list) == ["b", "a"], "their order is part of a list"
    assert memo.get(["a", "b"], list) is not first, "only the last one is kept"


def test_nothing_is_kept_too():
    made: list[list[str]] = []
    memo: KeywordMemo[None] = KeywordMemo()
    for _ in range(2):
        assert memo.get([], made.append) is None
    assert made == [[]]


def test_a_list_that_its_owner_changes_is_another():
    memo: KeywordMemo[int] = KeywordMemo()
    keywords = ["a"]
    assert memo.get(keywords, len) == 1
    keywords.append("b")
    assert memo.get(keywords, len) == 2

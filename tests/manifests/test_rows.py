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

"""A manifest's line by itself: what is no row, and what is wrong with one."""

import pytest

from nemo_speechllm.manifests.rows import RowError, given, is_address, is_number, parse_row, row_defects
from nemo_speechllm.prompts.chat_prompt import ANSWER_MARK, AUDIO_MARK, END_MARK, TEXT_MARK


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b" \n", "blank line"),
        (b'{"text": "a", "text": "b"}', "duplicate key"),
        (b"[1]", None),
        (b'{"text": "\xff"}', None),
        (b'{"text": ', None),
    ],
)
def test_what_is_no_row_is_named(line, kind):
    with pytest.raises(RowError) as caught:
        parse_row(line)
    assert caught.value.defect.remedy and (kind is None or caught.value.defect.kind == kind)


def test_keys_that_are_not_given_are_not_there():
    assert parse_row(b'{"text": "a", "lang": null, "snr": NaN}') == {"text": "a"}
    assert given({"a": None, "b": 0, "c": float("nan")}) == {"b": 0}


def test_defects_of_a_row_name_key_and_remedy():
    row = {"audio_filepath": "a.wav", "duration": 1.0, "text": "Hello."}
    assert list(row_defects(row)) == []
    assert {defect.key for defect in row_defects({"text": "Hello."})} == {"audio_filepath", "duration"}
    assert all(defect.remedy for defect in row_defects(row | {"duration": -1.0, "text": " "}))
    assert list(row_defects(row | {"text": " "})) and not list(row_defects(row | {"text": ""}))


def test_a_list_of_lists_of_keywords_says_where_each_audio_has_its_own():
    for lists in ([["latte"], ["Kyiv"]], [(), ("Kyiv",)]):
        (defect,) = row_defects({"keywords": lists}, (), answered=False)
        assert "`keywords` of its manifest line" in defect.remedy
    (defect,) = row_defects({"keywords": [1]}, (), answered=False)
    assert "manifest line" not in defect.remedy


def test_the_characters_that_prompts_keep_for_themselves_are_defects():
    row = {"audio_filepath": "a.wav", "duration": 1.0}
    for mark in (AUDIO_MARK, ANSWER_MARK, END_MARK, TEXT_MARK):
        (defect,) = row_defects(row | {"text": f"a{mark}b"})
        assert defect.key == "text" and f"U+{ord(mark):04X}" in defect.problem and defect.remedy == "remove it"


def test_numbers_and_addresses():
    assert [is_number(value) for value in (1, 0.5, True, "1", float("inf"), 2**63)] == [True, True, *[False] * 4]
    assert is_address("pipe:cat a.wav") and is_address("https://host/a.wav") and not is_address("/data/a:b.wav")


@pytest.mark.parametrize(
    ("changes", "key", "problem"),
    [
        ({"context": "Spell it.", "question": "Say it twice."}, "question", "context and question both say what is"),
        ({"channel_selector": 1}, "channel_selector", "no line chooses its channel"),
        ({"keywords": ["Ada", "a" * 101]}, "keywords", "has 101 characters, more than 100"),
        ({"keywords": f"Ada, {'a' * 101}"}, "keywords", "has 101 characters, more than 100"),
        ({"lang": "allemand"}, "lang", "'allemand' is no language's name here"),
    ],
)
def test_what_would_be_left_unread_or_never_ends_is_a_defect(changes, key, problem):
    (defect,) = row_defects({"audio_filepath": "a.wav", "duration": 1.0, "text": "one"} | changes)
    assert defect.key == key and problem in defect.problem

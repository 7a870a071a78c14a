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

"""Keyword lists and the words of a corpus."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_speechllm.data.keywords import Vocabulary, keyword_list, read_keywords, words_of
from nemo_speechllm.errors import InputError


@pytest.mark.parametrize(
    ("keywords", "expected"),
    [
        ("Rhino, New York", ["Rhino", "New York"]),
        (["a", " b "], ["a", "b"]),
        ([], []),
        (None, []),
        (" , ", []),
        (["b", "A", "B"], ["b", "A"]),
    ],
)
def test_keywords_of_a_manifest(keywords, expected):
    assert keyword_list(keywords) == expected


def test_numbers_are_no_keywords():
    with pytest.raises(ValueError, match=r"keywords: expected strings, got \[1\]"):
        keyword_list(["a", 1])


@pytest.mark.parametrize("keywords", ["a" * 12_000, ["Ada", "a" * 101], f"Ada, {'a' * 101}, Boston"])
def test_a_text_is_no_keyword(keywords):
    with pytest.raises(
        InputError, match="^keywords: the keyword 'aaaa.*' has 1.* characters, more than 100; give words"
    ):
        keyword_list(keywords)
    assert keyword_list([" " * 90 + "a" * 100 + " "]) == ["a" * 100]


def test_a_keyword_file_has_one_a_line(tmp_path):
    path = tmp_path / "names.txt"
    with pytest.raises(FileNotFoundError, match="no keywords file .*names.txt; the path counts from"):
        read_keywords(path)
    path.write_bytes("\ufeffAda Lovelace\r\n\r\n  Größe \n".encode())
    assert read_keywords(path) == ["Ada Lovelace", "Größe"]
    path.write_text("\n \n")
    with pytest.raises(ValueError, match="names.txt holds no keyword; write one"):
        read_keywords(path)
    path.write_text(f"Ada\n{'a' * 101}\n")
    with pytest.raises(
        ValueError, match="names.txt:2: the keyword 'aa.*' has 101 characters, more than 100; write one"
    ):
        read_keywords(path)
    path.write_bytes(b"\xff\xfea")
    with pytest.raises(ValueError, match="names.txt: not UTF-8"):
        read_keywords(path)


def test_words_have_no_punctuation_around_them():
    assert words_of("«Нажмите 1!» Don't re-dial, l’été...") == ["Нажмите", "1", "Don't", "re-dial", "l’été"]


def test_a_vocabulary_counts_texts_and_knows_the_usual_spelling():
    vocabulary = Vocabulary.of_texts(["Press one.", "Please press one, one", "Call Ada", "press two"])
    assert (vocabulary.counts["press"], vocabulary.counts["one"], vocabulary.counts["ADA"]) == (3, 2, 0)
    assert [vocabulary.spelling(word) for word in ("PRESS", "ada", "Zoe")] == ["press", "Ada", "Zoe"]
    assert [w for w in ("press", "One", "ada", "zoe") if vocabulary.is_rare(w, 1)] == ["ada", "zoe"]
    assert vocabulary.is_rare("press", None)


@given(st.lists(st.text("aB .", max_size=6), max_size=6), st.randoms())
def test_the_order_of_the_texts_changes_nothing(texts, random):
    shuffled = random.sample(texts, len(texts))
    one, other = Vocabulary.of_texts(texts), Vocabulary.of_texts(shuffled)
    assert list(one.counts.items()) == list(other.counts.items()) and one.spellings == other.spellings


def test_marks_belong_to_their_words():
    assert words_of("मेरा नाम हिन्दी, தமிழ்!") == ["मेरा", "नाम", "हिन्दी", "தமிழ்"]
    assert words_of(unicodedata.normalize("NFD", "Málaga")) == ["Málaga"]

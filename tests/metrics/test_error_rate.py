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
import unicodedata

import jiwer
import pytest

from nemo_speechllm.metrics.error_rate import (
    ErrorCounts,
    count_errors,
    count_errors_each,
    error_rate,
    normalizer,
    normalizer_for,
    word_differences,
    words_of,
)

REFERENCES = ["please hold the line", "press one", "thank you very much"]
HYPOTHESES = ["please hold line", "press won now", "thank you very much"]


def test_rates_are_jiwer_s():
    assert error_rate(HYPOTHESES, REFERENCES, normalize="none") == jiwer.wer(REFERENCES, HYPOTHESES) == 3 / 10
    assert error_rate(HYPOTHESES, REFERENCES, "char", "none") == jiwer.cer(REFERENCES, HYPOTHESES)


@pytest.mark.parametrize("lang", ["tr", "tr-TR", "tur", "Turkish", "az", "aze"])
def test_the_two_letters_i_of_turkish_are_told_apart(lang):
    pairs = [("IŞIK İZMİR", "ışık izmir"), ("I\u0307zmir", "İzmir"), ("kırık", "KIRIK")]
    for hypothesis, reference in pairs:
        assert error_rate([hypothesis], [reference], normalize=normalizer_for(lang, reference)) == 0
    assert error_rate(["kirik"], ["KIRIK"], normalize=normalizer_for(lang, "KIRIK")) == 1
    assert error_rate(["kirik"], ["KIRIK"], normalize=normalizer_for("de", "KIRIK")) == 0


def test_counts_of_a_case_counted_by_hand():
    assert count_errors(HYPOTHESES, REFERENCES, normalize="none") == ErrorCounts(1, 1, 1, 10)
    assert count_errors(["abd"], ["abc"], "char", "none") == ErrorCounts(1, 0, 0, 3)


def test_counts_of_batches_add_up_to_those_of_all():
    parts = [count_errors([h], [r]) for h, r in zip(HYPOTHESES, REFERENCES, strict=True)]
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
    with pytest.raises(ValueError, match=r"'german'; known are \['auto', 'basic', 'english', 'none', 'turkic'\]"):
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


@pytest.mark.parametrize(
    ("language", "reference", "name"),
    [
        ("en", "x", "english"),
        ("en-US", "x", "english"),
        ("ENG", "x", "english"),
        ("English", "x", "english"),
        ("de", "x", "basic"),
        ("deu", "x", "basic"),
        ("pt_BR", "x", "basic"),
        ("und", "x", "basic"),
        (None, "Café, 5 $!", "english"),
        ("", "x", "english"),
        (None, "मेरा नाम", "basic"),
        (None, "Привет", "basic"),
        (None, "か", "basic"),
    ],
)
def test_the_language_chooses_the_normaliser_and_a_name_overrides_it(language, reference, name):
    assert normalizer_for(language, reference) == name
    assert normalizer_for(language, reference, "none") == "none"


def test_german_is_not_counted_as_english():
    references, hypotheses = (
        ["Wir treffen uns um acht Uhr.", "Das ist schön gut."],
        ["Wir treffen uns acht Uhr.", "Das ist schon gut."],
    )
    counted = count_errors(hypotheses, references, normalize=normalizer_for("de", references[0]))
    assert counted == ErrorCounts(substitutions=1, deletions=1, reference=10)


MARKED = {
    "hi": ("मेरा नाम राम है", "मरा नाम राम हे", 4, 2),
    "ta": ("என் பெயர் கண்ணன்", "என பெயர் கணணன", 3, 2),
    "bn": ("আমার নাম রবি", "আমর নাম রব", 3, 2),
    "ar": ("كَتَبَ الوَلَدُ", "كُتِبَ الوَلَدُ", 2, 1),
    "he": ("שָׁלוֹם עוֹלָם", "שָׁלוֹם עוֹלֶם", 2, 1),
    "vi": ("tiếng Việt", "tiêng Việt", 2, 1),
}


@pytest.mark.parametrize("language", MARKED)
def test_combining_marks_are_letters(language):
    reference, hypothesis, words, errors = MARKED[language]
    for form in ("NFC", "NFD"):
        counted = count_errors([unicodedata.normalize(form, hypothesis)], [reference], normalize="basic")
        assert (counted.reference, counted.errors) == (words, errors)
        assert error_rate([unicodedata.normalize(form, reference)], [reference], "char", "basic") == 0


@pytest.mark.parametrize("name", ["english", "basic", "none"])
def test_the_encoding_of_accents_is_no_error(name):
    assert error_rate([unicodedata.normalize("NFD", "été à Málaga")], ["été à Málaga"], normalize=name) == 0


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("yes 👍️ ❤️ 👩‍👩‍👧 no", "yes no"),  # marks and joiners on symbols
        ("\ufeffcol\u00adour \u200fno", "colour no"),
        ("İZMİR", "izmir"),
        ("a\u200bb", "a b"),
    ],
)
def test_basic_leaves_no_words_that_cannot_be_seen(text, same):
    assert words_of(text) == same.split()


UNSPACED = {
    "zh": ("你好，世界。", "你好世间", 4, 1),
    "ja": ("コーヒーをください。", "コーヒーお下さい", 9, 3),
    "th": ("สวัสดี ครับ", "สวัสดีครบ", 7, 1),
    "my": ("မင်္ဂလာပါ", "မင်္ဂလာ", 5, 1),
    "km": ("សួស្តី", "សួស្តា", 3, 1),
    "lo": ("ສະບາຍດີ", "ສະບາຍ", 6, 1),
}


@pytest.mark.parametrize("language", UNSPACED)
@pytest.mark.parametrize("name", ["basic", "auto"])
def test_where_no_spaces_are_written_characters_are_words(language, name):
    reference, hypothesis, words, errors = UNSPACED[language]
    counted = count_errors([hypothesis], [reference], normalize=normalizer_for(language, reference, name))
    assert (counted.reference, counted.errors) == (words, errors)
    assert error_rate([hypothesis], [reference], "char", "basic") < 0.5


def test_words_of_other_scripts_stay_whole_beside_such_characters():
    assert words_of("我有iPhone 15。") == ["我", "有", "iphone", "15"]
    assert words_of("안녕하세요 여러분") == ["안녕하세요", "여러분"]
    assert error_rate(["我 有 iPhone15"], ["我有iPhone15"], "char", "basic") == 0


def test_each_pair_may_have_a_normaliser_of_its_own():
    english, german = count_errors_each(["uh yes", "ja"], ["yes", "um ja"], normalize=["english", "basic"])
    assert (english.errors, german.errors) == (0, 1)

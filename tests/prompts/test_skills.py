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

"""Each skill does what its name says to any text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nemo_speechllm.prompts.skills import (
    RULES,
    apply_rule,
    argument_lists,
    core_of,
    draw_arguments,
    fill,
    number_of,
    same_word,
    slots_of,
    words_of,
)

TEXTS = st.text() | st.lists(
    st.sampled_from(["one", "two,", "Don't", "“¿qué?”", "é", "—", "ein", "três…", "٣", "{k}"])
).map(" ".join)
WORDS = st.sampled_from(["one", "TWO", "don't", "Qué", "e\u0301", "absent", "—", ""])
ARGUMENTS = {"word": "two", "replacement": "{word}", "k": "three", "refusal": "No."}


@pytest.mark.parametrize(
    "skill, arguments, target",
    [
        ("transcribe", {}, "One, two — three two."),
        ("ignore", {}, ""),
        ("ignore", {"refusal": "No."}, "No."),
        ("replace", {"word": "TWO", "replacement": "red"}, "One, red — three red."),
        ("replace", {"word": "four", "replacement": "red"}, "One, two — three two."),
        ("replace", {"word": "two", "replacement": "{k} {word}"}, "One, {k} {word} — three {k} {word}."),
        ("first_half", {}, "One, two —"),
        ("last_half", {}, "three two."),
        ("first_k", {"k": "1"}, "One,"),
        ("first_k", {"k": "nine"}, "One, two — three two."),
        ("last_k", {"k": "Two"}, "three two."),
        ("last_k", {"k": "0"}, ""),
        ("delete_word", {"word": "one"}, "two — three two."),
        ("repeat_word", {"word": "two"}, "One, two two — three two two."),
        ("repeat_sentence", {}, "One, two — three two. One, two — three two."),
        ("reverse", {}, "two. three two — One,"),
        ("upper_case", {}, "ONE, TWO — THREE TWO."),
        ("spell_word", {"word": "two"}, "One, t-w-o — three t-w-o."),
        ("stop_after", {"word": "two"}, "One, two —"),
        ("stop_after", {"word": "four"}, "One, two — three two."),
    ],
)
def test_targets(skill, arguments, target):
    assert apply_rule(skill, " One,  two — three\ttwo. ", arguments) == target


def test_a_word_has_a_letter_or_digit_of_any_script():
    assert words_of("- ¿Qué? … 3 – हिन्दी") == ["- ¿Qué? …", "3 –", "हिन्दी"]
    assert [core_of(word) for word in words_of("“Don't,” (he) said…")] == ["Don't", "he", "said"]
    assert core_of("कि।") == "कि", "a mark belongs to its letter"


def test_words_are_found_whatever_the_case_and_the_encoding_of_accents():
    assert same_word("CAFÉ!", "cafe\u0301") and same_word("Straße", "STRASSE")
    assert not same_word("cafe", "café") and not same_word("—", "…")
    assert apply_rule("spell_word", "un cafe\u0301.", {"word": "Café"}) == "un c-a-f-é."
    assert apply_rule("spell_word", "Don't", {"word": "don't"}) == "D-o-n-t"


@given(TEXTS, WORDS)
def test_any_text_is_fit_for_any_skill(text, word):
    for skill in RULES:
        assert isinstance(apply_rule(skill, text, ARGUMENTS | {"word": word}), str)


@given(st.text(alphabet=" \n\t—…!?"))
def test_without_a_word_there_is_nothing_to_say(text):
    for skill in set(RULES) - {"ignore"}:
        assert apply_rule(skill, text, ARGUMENTS) == ""


@given(TEXTS, st.integers(0, 12))
def test_numbers_of_words(text, k):
    words = words_of(text)
    count = {skill: len(words_of(apply_rule(skill, text, {"k": str(k)}))) for skill in RULES if skill[-2:] == "_k"}
    assert count == {"first_k": min(k, len(words)), "last_k": min(k, len(words))}
    halves = [apply_rule(skill, text, {}) for skill in ("first_half", "last_half")]
    assert 0 <= len(words_of(halves[0])) - len(words_of(halves[1])) <= 1
    assert " ".join(filter(None, halves)) == " ".join(words)
    assert len(words_of(apply_rule("repeat_sentence", text, {}))) == 2 * len(words)
    assert apply_rule("reverse", text, {}).count(" ") == " ".join(words).count(" ")


@given(TEXTS, WORDS)
def test_skills_that_change_nothing_when_done_again(text, word):
    for skill in ("transcribe", "upper_case", "delete_word", "stop_after", "first_k", "last_k", "ignore"):
        once = apply_rule(skill, text, ARGUMENTS | {"word": word})
        assert words_of(apply_rule(skill, once, ARGUMENTS | {"word": word})) == words_of(once), skill


@given(st.lists(st.sampled_from(["one", "two,", "¿Qué?", "três…"])).map(" ".join))
def test_reversing_twice_gives_the_words_back(text):
    assert apply_rule("reverse", apply_rule("reverse", text, {}), {}) == text


@given(TEXTS)
def test_an_absent_word_leaves_the_transcript_as_it_is(text):
    word = "antidisestablishmentarianism"
    for skill in ("replace", "delete_word", "repeat_word", "spell_word", "stop_after"):
        assert apply_rule(skill, text, {"word": word, "replacement": "x"}) == apply_rule("transcribe", text, {})


@given(TEXTS, WORDS)
def test_edits_touch_only_the_word(text, word):
    arguments = {"word": word, "replacement": "x"}
    others = [said for said in words_of(text) if not same_word(said, word)]
    found = len(words_of(text)) - len(others)
    assert words_of(apply_rule("delete_word", text, arguments)) == words_of(" ".join(others))
    assert len(words_of(apply_rule("replace", text, arguments))) == len(words_of(text))
    assert len(words_of(apply_rule("repeat_word", text, arguments))) == len(words_of(text)) + found


@given(TEXTS, st.integers(0, 2**32))
def test_arguments_fill_every_slot_and_are_the_same_for_the_same_seed(text, seed):
    arguments = draw_arguments(text, np.random.default_rng(seed))
    assert arguments == draw_arguments(text, np.random.default_rng(seed))
    assert set(arguments) == {"word", "replacement", "k", "refusal"}
    assert all(isinstance(value, str) and value for value in arguments.values())
    assert 2 <= number_of(arguments["k"]) <= 10
    assert not same_word(arguments["word"], arguments["replacement"])


def test_most_words_that_are_asked_for_were_said():
    draws = [draw_arguments("three seven one", np.random.default_rng(seed))["word"] for seed in range(1000)]
    said = sum(word in ("three", "seven", "one") for word in draws)
    assert 850 < said < 950 and {"three", "seven", "one"} < set(draws)


def test_slots_are_filled_in_one_pass():
    template = "{word} by {replacement}, {other} {k}"
    assert slots_of(template) == {"word", "replacement", "k"}
    assert (
        fill(template, {"word": "{replacement}", "replacement": "{word}", "k": "2"})
        == "{replacement} by {word}, {other} 2"
    )


def test_argument_lists_are_text():
    assert all(
        isinstance(text, str) for texts in argument_lists().values() for text in texts
    )  # YAML reads `no` as false


def test_errors_name_what_is_there():
    with pytest.raises(ValueError, match="skill is 'summarise'; known are .*'transcribe'"):
        apply_rule("summarise", "one", {})
    with pytest.raises(ValueError, match="k is 'some'; give digits or one of zero, one"):
        apply_rule("first_k", "one", {"k": "some"})

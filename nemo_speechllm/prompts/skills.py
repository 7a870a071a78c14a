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

"""What a model can be told to do with what it hears: its skills (2309.09843).

A skill is a function from transcript and arguments to target.

A *word* is a piece of the transcript between white space that holds a letter or a digit of any script. Its *core* is
what is left of it without the punctuation on either side (``"don't,"`` → ``don't``); a word is found by its core,
whatever the case and however its accents are encoded. Punctuation that stands alone belongs to the word before it.
Where an argument names a word that was not said, the transcript stays as it is. An empty transcript gives an empty
target, but for a refusal.

Arguments are text, as it stands in the instruction: ``{"k": "three"}`` and ``{"k": "3"}`` are the same.
"""

import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from inspect import signature
from pathlib import Path

import numpy as np
import yaml

from nemo_speechllm.registry import Registry

INSTRUCTIONS = Path(__file__).with_name("instructions")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
ABSENT_SHARE = 0.1  # of the words that instructions name: not in the transcript

_SLOT = re.compile(r"\{(word|replacement|k|refusal)\}")


# by skill: from a transcript and the arguments it takes to a target
RULES: Registry[Callable[..., str]] = Registry("skill")


def words_of(transcript: str) -> list[str]:
    """Return the words of a transcript, each with the punctuation that belongs to it."""
    words: list[str] = []
    leading = ""
    for piece in unicodedata.normalize("NFC", transcript).split():
        if any(character.isalnum() for character in piece):
            words.append(leading + piece)
            leading = ""
        elif words:
            words[-1] += f" {piece}"
        else:
            leading += f"{piece} "
    return words


def core_of(word: str) -> str:
    """Return a word without the punctuation on either side; empty where there is no letter and no digit."""
    start, end = _core_span(word)
    return word[start:end]


def _core_span(word: str) -> tuple[int, int]:
    inside = [i for i, character in enumerate(word) if character.isalnum()]
    if not inside:
        return 0, 0
    end = inside[-1] + 1
    while end < len(word) and unicodedata.category(word[end]).startswith("M"):  # a mark belongs to its letter
        end += 1
    return inside[0], end


def same_word(first: str, second: str) -> bool:
    """Whether two words are the same: by their cores, whatever the case."""
    return _key(first) == _key(second) != ""


@lru_cache(maxsize=4096)
def _key(word: str) -> str:
    return unicodedata.normalize("NFC", core_of(unicodedata.normalize("NFC", word)).casefold())


def _edit(transcript: str, word: str, change: Callable[[str], str]) -> str:
    """Return the transcript with the core of each occurrence of ``word`` changed; punctuation around it stays."""
    edited = []
    for token in words_of(transcript):
        start, end = _core_span(token)
        edited.append(token[:start] + change(token[start:end]) + token[end:] if same_word(token, word) else token)
    return " ".join(edited)


def number_of(k: str) -> int:
    """``"three"`` or ``"3"`` → 3.

    Raises:
        ValueError: neither digits nor an English number up to ten.
    """
    if k.lower() in NUMBERS:
        return NUMBERS.index(k.lower())
    if not k.isdecimal():
        raise ValueError(f"k is {k!r}; give digits or one of {', '.join(NUMBERS)}")
    return int(k)


@RULES.register("transcribe")
def transcribe(transcript: str) -> str:
    """Return what was said, with single spaces."""
    return " ".join(words_of(transcript))


@RULES.register("ignore")
def ignore(transcript: str, refusal: str = "") -> str:
    """Nothing, or the fixed text that the instruction asks for."""
    return refusal


@RULES.register("replace")
def replace(transcript: str, word: str, replacement: str) -> str:
    """Each occurrence of ``word`` becomes ``replacement``, as it is written there."""
    return _edit(transcript, word, lambda core: replacement)


@RULES.register("first_half")
def first_half(transcript: str) -> str:
    """Return the first half of the words; of an odd number the middle one is in it."""
    words = words_of(transcript)
    return " ".join(words[: math.ceil(len(words) / 2)])


@RULES.register("last_half")
def last_half(transcript: str) -> str:
    """Return what `first_half` leaves out."""
    words = words_of(transcript)
    return " ".join(words[math.ceil(len(words) / 2) :])


@RULES.register("first_k")
def first_k(transcript: str, k: str) -> str:
    """Return the first ``k`` words, or all if there are fewer."""
    return " ".join(words_of(transcript)[: number_of(k)])


@RULES.register("last_k")
def last_k(transcript: str, k: str) -> str:
    """Return the last ``k`` words, or all if there are fewer."""
    words = words_of(transcript)
    return " ".join(words[max(0, len(words) - number_of(k)) :])


@RULES.register("delete_word")
def delete_word(transcript: str, word: str) -> str:
    """Without any occurrence of ``word``, nor the punctuation attached to it."""
    return " ".join(token for token in words_of(transcript) if not same_word(token, word))


@RULES.register("repeat_word")
def repeat_word(transcript: str, word: str) -> str:
    """Each occurrence of ``word`` twice."""
    return _edit(transcript, word, lambda core: f"{core} {core}")


@RULES.register("repeat_sentence")
def repeat_sentence(transcript: str) -> str:
    """Everything twice."""
    return " ".join(words_of(transcript) * 2)


@RULES.register("reverse")
def reverse(transcript: str) -> str:
    """Return the words in reverse order; each stays as it is."""
    return " ".join(reversed(words_of(transcript)))


@RULES.register("upper_case")
def upper_case(transcript: str) -> str:
    """In capital letters."""
    return transcribe(transcript).upper()


@RULES.register("spell_word")
def spell_word(transcript: str, word: str) -> str:
    """Each occurrence of ``word`` letter by letter: ``seven`` → ``s-e-v-e-n``."""
    return _edit(transcript, word, lambda core: "-".join(_letters(core)))


def _letters(core: str) -> list[str]:
    """Letters and digits, each with the marks on it."""
    letters: list[str] = []
    for character in core:
        if character.isalnum():
            letters.append(character)
        elif letters and unicodedata.category(character).startswith("M"):
            letters[-1] += character
    return letters


@RULES.register("stop_after")
def stop_after(transcript: str, word: str) -> str:
    """Up to the first occurrence of ``word``, which is included."""
    words = words_of(transcript)
    end = next((i for i, token in enumerate(words) if same_word(token, word)), len(words))
    return " ".join(words[: end + 1])


WRITTEN = ("summarise", "keywords")  # by a language model; see `llm_targets`
SKILLS = (*RULES, *WRITTEN)  # those of this package


def apply_rule(skill: str, transcript: str, arguments: dict[str, str]) -> str:
    """Return the target of a skill that a rule computes; arguments it does not take are left unread.

    Raises:
        ValueError: no rule has this name.
    """
    rule = RULES[skill]
    taken = list(signature(rule).parameters)[1:]
    return rule(transcript, **{name: arguments[name] for name in taken if name in arguments})


@cache
def argument_lists() -> dict[str, list[str]]:
    """``instructions/arguments.yaml``: ``words``, ``replacements``, ``refusals`` and ``function_words``."""
    return yaml.safe_load((INSTRUCTIONS / "arguments.yaml").read_text(encoding="utf-8"))


def draw_arguments(transcript: str, random: np.random.Generator) -> dict[str, str]:
    """Draw a value for every slot: one draw fits whatever template is filled with it.

    Returns:
        ``word`` (mostly one that was said), ``replacement`` (another one), ``k`` (mostly fewer than were said; in
        digits or as a word) and ``refusal``.
    """
    lists = argument_lists()
    cores = [core_of(token) for token in words_of(transcript)]
    named = cores
    if random.random() < ABSENT_SHARE or not cores:
        present = {_key(core) for core in cores}
        named = [word for word in lists["words"] if _key(word) not in present]
    word = pick(named, random)
    replacement = pick([text for text in lists["replacements"] if _key(text) != _key(word)], random)
    k = int(random.integers(2, min(len(NUMBERS) - 1, max(2, len(cores) - 1)) + 1))
    return {
        "word": word,
        "replacement": replacement,
        "k": pick([str(k), NUMBERS[k]], random),
        "refusal": pick(lists["refusals"], random),
    }


def pick(items: Sequence[str], random: np.random.Generator) -> str:
    """One of some texts; NumPy's own ``choice`` would make an array of them first."""
    return items[int(random.integers(len(items)))]


def slots_of(template: str) -> set[str]:
    """Names of a template's slots."""
    return set(_SLOT.findall(template))


def fill(template: str, arguments: dict[str, str]) -> str:
    """Fill the slots of a template, all at once: a value may hold braces."""
    return _SLOT.sub(lambda match: arguments[match[1]], template)

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

"""Word and character error rates by jiwer, with a normaliser for each language.

A *word* stands between white space. Chinese characters, Kana, Thai, Lao, Khmer, Burmese and Tibetan letters are
written without spaces between words; there each letter with its marks counts as a word, whatever stands beside it
("mixed error rate"), and a space is no character.
"""

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import jiwer
import regex
from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

from nemo_speechllm.languages import DOTLESS, base_language, lower_case

AUTO = "auto"  # english for English, turkic for Turkish, basic for most others, see normalizer_for

_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]"
_NOT_LATIN = regex.compile(r"[\p{L}--[\p{Latin}\p{Common}]]", regex.V1)
_WORD = regex.compile(rf"{_UNSPACED}\p{{M}}*|(?:(?!{_UNSPACED})\S)+")
_SPACE_BESIDE_UNSPACED = regex.compile(rf"(?<={_UNSPACED}\p{{M}}*)\s+|\s+(?={_UNSPACED})")
# what is not seen: bidirectional marks, soft hyphens, a letter's variants; joiners are, between letters
_INVISIBLE = regex.compile(r"[[\p{Cf}\p{Variation_Selector}\p{Me}]--[\u200b-\u200d\ufeff]]", regex.V1)
_LONE_MARKS = regex.compile(r"(?<!\S)[\p{M}\u200c\u200d]+|\u200b|\ufeff")


def basic_normalizer(text: str) -> str:
    """Return a text without case, punctuation and what stands in brackets.

    This is Whisper's basic normaliser, for which marks are letters. Whisper itself puts spaces in the place of
    combining marks, and so takes Indic words apart and leaves out their vowels.
    """
    text = _INVISIBLE.sub("", text.replace("İ", "i").replace("I\u0307", "i"))
    return " ".join(_LONE_MARKS.sub(" ", _KEEPS_MARKS(text)).split())


def turkic_normalizer(text: str) -> str:
    """Return what `basic_normalizer` does of a Turkish or Azerbaijani text, whose I and İ are two letters."""
    return basic_normalizer(lower_case(text, "tr"))


_KEEPS_MARKS = BasicTextNormalizer(preserve_marks=True)


def _as_it_is(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


@cache
def normalizer(name: str) -> Callable[[str], str]:
    """Return a text normaliser.

    Args:
        name: ``english`` (Whisper's: numbers, spellings and contractions unified, fillers removed), ``basic``
            (`basic_normalizer`), ``turkic`` (the same, where the lower case of I is ı) or ``none`` (the text as it is,
            however its accents are encoded).

    Raises:
        ValueError: unknown name.
    """
    known = {
        "english": EnglishTextNormalizer,
        "basic": lambda: basic_normalizer,
        "turkic": lambda: turkic_normalizer,
        "none": lambda: _as_it_is,
    }
    if name not in known:
        raise ValueError(f"unknown text normalizer {name!r}; known are {sorted([*known, AUTO])}")
    return known[name]()


def normalizer_for(language: str | None, reference: str, name: str = AUTO) -> str:
    """Return the name of the `normalizer` for a reference in a language: ``name`` itself, unless that is ``auto``.

    A reference of unknown language is taken for English, unless it has letters that are not Latin ones.
    """
    if name != AUTO:
        return name
    if base_language(language) is None:
        return "basic" if _NOT_LATIN.search(reference) else "english"
    if base_language(language) in DOTLESS:
        return "turkic"
    return "english" if base_language(language) == "en" else "basic"


def is_unspaced(text: str) -> bool:
    """Tell whether a text has letters that are written without spaces between words."""
    return regex.search(_UNSPACED, text) is not None


def words_of(text: str, normalize: str = "basic") -> list[str]:
    """Return the words that are counted, of the text normalised."""
    return _WORD.findall(normalizer(normalize)(text))


def _characters_of(text: str, normalize: str) -> str:
    return _SPACE_BESIDE_UNSPACED.sub("", normalizer(normalize)(text).strip())


@dataclass(frozen=True, slots=True)
class ErrorCounts:
    """Edit operations of hypotheses against references, in words or characters; counts of batches add up."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    reference: int = 0

    def __add__(self, other: "ErrorCounts") -> "ErrorCounts":
        return ErrorCounts(*(a + b for a, b in zip(self.counts, other.counts, strict=True)))

    @property
    def counts(self) -> tuple[int, int, int, int]:
        """Substitutions, deletions, insertions, reference length."""
        return self.substitutions, self.deletions, self.insertions, self.reference

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions together."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors per reference unit; 0 for no reference and no error, infinite for insertions into nothing."""
        return self.errors / self.reference if self.reference else (float("inf") if self.errors else 0.0)


def count_errors_each(
    hypotheses: list[str], references: list[str], unit: str = "word", normalize: str | Sequence[str] = "english"
) -> list[ErrorCounts]:
    """Return the errors of each pair.

    Args:
        hypotheses, references: texts, pair by pair.
        unit: ``word`` or ``char``.
        normalize: name of the `normalizer` applied to both sides, or one for each pair.

    A reference that normalises to nothing counts its hypothesis as insertions.
    """
    names = [normalize] * len(references) if isinstance(normalize, str) else normalize
    return [_count_pair(*pair, unit) for pair in zip(hypotheses, references, names, strict=True)]


def _count_pair(hypothesis: str, reference: str, normalize: str, unit: str) -> ErrorCounts:
    units: dict[str, Callable[[str, str], str | list[str]]] = {"word": words_of, "char": _characters_of}
    hypothesis_units, reference_units = (units[unit](text, normalize) for text in (hypothesis, reference))
    if not reference_units:
        return ErrorCounts(insertions=len(hypothesis_units))
    edits = (
        jiwer.process_words(" ".join(reference_units), " ".join(hypothesis_units))
        if unit == "word"
        else jiwer.process_characters(reference_units, hypothesis_units)
    )
    length = edits.hits + edits.substitutions + edits.deletions
    return ErrorCounts(edits.substitutions, edits.deletions, edits.insertions, length)


def word_differences(hypothesis: str, reference: str, normalize: str = "english") -> list[tuple[str, str, str]]:
    """Return where the words of a pair differ, in order.

    Returns:
        Runs of words as (kind, reference, hypothesis); the kind is jiwer's ``equal``, ``substitute``, ``delete`` or
        ``insert``. They are the normalised words that `count_errors` counts.
    """
    reference_words, hypothesis_words = words_of(reference, normalize), words_of(hypothesis, normalize)
    if not reference_words:
        return [("insert", "", " ".join(hypothesis_words))] if hypothesis_words else []
    (chunks,) = jiwer.process_words(" ".join(reference_words), " ".join(hypothesis_words)).alignments
    return [
        (
            chunk.type,
            " ".join(reference_words[chunk.ref_start_idx : chunk.ref_end_idx]),
            " ".join(hypothesis_words[chunk.hyp_start_idx : chunk.hyp_end_idx]),
        )
        for chunk in chunks
    ]


def count_errors(
    hypotheses: list[str], references: list[str], unit: str = "word", normalize: str | Sequence[str] = "english"
) -> ErrorCounts:
    """Return the errors of all pairs together; arguments as of `count_errors_each`."""
    return sum(count_errors_each(hypotheses, references, unit, normalize), ErrorCounts())


def macro_rate(counts: Iterable[ErrorCounts]) -> float | None:
    """Return the mean of error rates that each weigh alike (of languages, say).

    Those without a reference have none and are left out.

    Returns:
        None where not one has a reference.
    """
    rates = [count.rate for count in counts if count.reference]
    return sum(rates) / len(rates) if rates else None


def error_rate(hypotheses: list[str], references: list[str], unit: str = "word", normalize: str = "english") -> float:
    """Return the error rate over all pairs together, as a fraction."""
    return count_errors(hypotheses, references, unit, normalize).rate

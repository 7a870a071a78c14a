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

"""Word and character error rates by jiwer, with named normalisers."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

import jiwer


@cache
def normalizer(name: str) -> Callable[[str], str]:
    """A text normaliser by name.

    ``english`` and ``basic`` are Whisper's (numbers and contractions unified; case and punctuation removed), ``none`` leaves
    the text as it is.

    Raises:
        ValueError: unknown name.
    """
    from whisper_normalizer.basic import BasicTextNormalizer
    from whisper_normalizer.english import EnglishTextNormalizer

    known = {"english": EnglishTextNormalizer, "basic": BasicTextNormalizer, "none": lambda: str.strip}
    if name not in known:
        raise ValueError(f"unknown text normalizer {name!r}; known are {sorted(known)}")
    return known[name]()


@dataclass
class ErrorCounts:
    """Edit operations of hypotheses against references, in words or characters; counts of batches add up."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    reference: int = 0

    def __add__(self, other: "ErrorCounts") -> "ErrorCounts":
        return ErrorCounts(*(a + b for a, b in zip(self.counts, other.counts)))

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
    hypotheses: list[str], references: list[str], unit: str = "word", normalize: str = "english"
) -> list[ErrorCounts]:
    """The errors of each pair.

    Args:
        hypotheses, references: texts, pair by pair.
        unit: ``word`` or ``char``.
        normalize: name of the `normalizer` applied to both sides.

    A reference that normalises to nothing counts its hypothesis as insertions.
    """
    clean = normalizer(normalize)
    compute = {"word": jiwer.process_words, "char": jiwer.process_characters}[unit]
    counts = []
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        hypothesis, reference = clean(hypothesis).strip(), clean(reference).strip()
        if not reference:
            counts.append(ErrorCounts(insertions=len(hypothesis.split() if unit == "word" else hypothesis)))
            continue
        found = compute(reference, hypothesis)
        length = found.hits + found.substitutions + found.deletions
        counts.append(ErrorCounts(found.substitutions, found.deletions, found.insertions, length))
    return counts


def word_differences(hypothesis: str, reference: str, normalize: str = "english") -> list[tuple[str, str, str]]:
    """Where the words of a pair differ, in order.

    Returns:
        Runs of words as (kind, reference, hypothesis); the kind is jiwer's ``equal``, ``substitute``, ``delete`` or ``insert``.
        They are the normalised words that `count_errors` counts.
    """
    clean = normalizer(normalize)
    said, heard = clean(reference).split(), clean(hypothesis).split()
    if not said:
        return [("insert", "", " ".join(heard))] if heard else []
    (chunks,) = jiwer.process_words(" ".join(said), " ".join(heard)).alignments
    return [
        (
            chunk.type,
            " ".join(said[chunk.ref_start_idx : chunk.ref_end_idx]),
            " ".join(heard[chunk.hyp_start_idx : chunk.hyp_end_idx]),
        )
        for chunk in chunks
    ]


def count_errors(
    hypotheses: list[str], references: list[str], unit: str = "word", normalize: str = "english"
) -> ErrorCounts:
    """The errors of all pairs together; arguments as of `count_errors_each`."""
    return sum(count_errors_each(hypotheses, references, unit, normalize), ErrorCounts())


def macro_rate(counts: Iterable[ErrorCounts]) -> float | None:
    """Mean of error rates that each weigh alike (of languages, say); those without a reference have none and are left out.

    Returns:
        None where not one has a reference.
    """
    rates = [count.rate for count in counts if count.reference]
    return sum(rates) / len(rates) if rates else None


def error_rate(hypotheses: list[str], references: list[str], unit: str = "word", normalize: str = "english") -> float:
    """Error rate over all pairs together, as a fraction."""
    return count_errors(hypotheses, references, unit, normalize).rate

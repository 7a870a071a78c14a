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

"""How well keywords are recognised: precision, recall and F of their occurrences, and how many leak in unsaid."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from kaldialign import align

from nemo_speechllm.metrics.error_rate import words_of
from nemo_speechllm.metrics.significance import percentile_interval, resampled_rates

_GAP = "<eps>"  # in an alignment, where one side has no word; no normaliser leaves such a word
Occurrence = tuple[str, tuple[int, ...]]  # a keyword and the places of its words in the alignment


@dataclass
class KeywordCounts:
    """Occurrences of keywords in hypotheses and references; counts of utterances add up.

    Attributes:
        hits: said, and recognised in the same place.
        misses: said, and not recognised there.
        false_alarms: recognised where it was not said.
        leaked: different keywords recognised in an utterance that does not say them at all.
    """

    hits: int = 0
    misses: int = 0
    false_alarms: int = 0
    leaked: int = 0

    def __add__(self, other: "KeywordCounts") -> "KeywordCounts":
        return KeywordCounts(
            self.hits + other.hits,
            self.misses + other.misses,
            self.false_alarms + other.false_alarms,
            self.leaked + other.leaked,
        )


def count_keywords(
    hypothesis: str, reference: str, keywords: Sequence[str], normalize: str = "english"
) -> KeywordCounts:
    """Count the keywords of one utterance, in word-aligned texts.

    An occurrence is a keyword's words one after the other; it is a hit where hypothesis and reference have it in the
    same place of their alignment. NeMo's ``compute_fscore`` counts the same, but for three things: it has no false
    alarm where one keyword of a single word stands for another, it takes a phrase with words inserted into it for a
    hit, and it passes over phrases of three words and more.

    Args:
        keywords: words and phrases; those that are alike once normalised count once.
        normalize: name of the `normalizer` applied to both texts and to the keywords, that of their language.
    """
    phrases = {_phrase(keyword, normalize) for keyword in keywords} - {""}
    pairs = align(words_of(reference, normalize), words_of(hypothesis, normalize), _GAP)
    said, heard = (set(_occurrences([pair[side] for pair in pairs], phrases)) for side in (0, 1))
    leaked = {phrase for phrase, _ in heard} - {phrase for phrase, _ in said}
    return KeywordCounts(len(said & heard), len(said - heard), len(heard - said), len(leaked))


@lru_cache(1 << 17)  # thousands of words are given with every utterance, the same ones again and again
def _phrase(keyword: str, normalize: str) -> str:
    return " ".join(words_of(keyword, normalize))


def _occurrences(words: list[str], phrases: set[str]) -> Iterator[Occurrence]:
    """Return where the phrases occur in one side of an alignment."""
    places = [place for place, word in enumerate(words) if word != _GAP]
    for length in {len(phrase.split()) for phrase in phrases}:
        for start in range(len(places) - length + 1):
            span = tuple(places[start : start + length])
            phrase = " ".join(words[place] for place in span)
            if phrase in phrases:
                yield phrase, span


def keyword_report(counts: Sequence[KeywordCounts]) -> dict[str, Any]:
    """Return the figures of utterances that had keywords.

    Returns:
        ``utterances``, the sums ``hits``, ``misses``, ``false_alarms`` and ``leaked``, and ``precision``, ``recall``,
        ``f`` (their harmonic mean) and ``leakage`` (share of utterances with a leaked keyword) with 95 % bootstrap
        intervals over utterances ``<name>_ci``; None where there is nothing to take a share of.
    """
    total = sum(counts, KeywordCounts())
    shares: dict[str, list[tuple[int, int]]] = {
        "precision": [(c.hits, c.hits + c.false_alarms) for c in counts],
        "recall": [(c.hits, c.hits + c.misses) for c in counts],
        "f": [(2 * c.hits, 2 * c.hits + c.false_alarms + c.misses) for c in counts],
        "leakage": [(c.leaked > 0, 1) for c in counts],
    }
    report = {"utterances": len(counts), **vars(total)}
    for name, pairs in shares.items():
        parts, wholes = [part for part, _ in pairs], [whole for _, whole in pairs]
        report[name] = sum(parts) / sum(wholes) if sum(wholes) else None
        report[f"{name}_ci"] = percentile_interval(resampled_rates(parts, wholes)) if sum(wholes) else None
    return report

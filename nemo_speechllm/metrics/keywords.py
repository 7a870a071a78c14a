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
from dataclasses import asdict, astuple, dataclass
from functools import lru_cache

from kaldialign import align

from nemo_speechllm.metrics.error_rate import words_of
from nemo_speechllm.metrics.significance import percentile_interval, resampled_rates

_GAP = "<eps>"  # in an alignment, where one side has no word; no normaliser leaves such a word
Occurrence = tuple[str, tuple[int, ...]]  # a keyword and the places of its words in the alignment
Share = tuple[float | None, list[float] | None]  # with its interval


@dataclass(frozen=True, slots=True)
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
        return KeywordCounts(*map(sum, zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeywordReport:
    """Figures of utterances that had keywords.

    Attributes:
        utterances: how many.
        hits, misses, false_alarms, leaked: see `KeywordCounts`, summed.
        precision, recall: of the occurrences; None where there is nothing to take a share of, as all shares.
        f: their harmonic mean.
        leakage: share of utterances with a leaked keyword.
        precision_ci, recall_ci, f_ci, leakage_ci: 95 % bootstrap intervals over utterances, [low, high].
    """

    utterances: int
    hits: int
    misses: int
    false_alarms: int
    leaked: int
    precision: float | None
    precision_ci: list[float] | None
    recall: float | None
    recall_ci: list[float] | None
    f: float | None
    f_ci: list[float] | None
    leakage: float | None
    leakage_ci: list[float] | None

    @property
    def shares(self) -> dict[str, Share]:
        """The four shares by name, each with its interval."""
        return {
            "precision": (self.precision, self.precision_ci),
            "recall": (self.recall, self.recall_ci),
            "f": (self.f, self.f_ci),
            "leakage": (self.leakage, self.leakage_ci),
        }


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
    in_reference, in_hypothesis = (set(_occurrences([pair[side] for pair in pairs], phrases)) for side in (0, 1))
    hits, leaked = in_reference & in_hypothesis, {p for p, _ in in_hypothesis} - {p for p, _ in in_reference}
    return KeywordCounts(len(hits), len(in_reference - hits), len(in_hypothesis - hits), len(leaked))


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


def keyword_report(counts: Sequence[KeywordCounts]) -> KeywordReport:
    """Return the figures of utterances that had keywords."""
    precision, precision_ci = _share([(c.hits, c.hits + c.false_alarms) for c in counts])
    recall, recall_ci = _share([(c.hits, c.hits + c.misses) for c in counts])
    f, f_ci = _share([(2 * c.hits, 2 * c.hits + c.false_alarms + c.misses) for c in counts])
    leakage, leakage_ci = _share([(c.leaked > 0, 1) for c in counts])
    return KeywordReport(
        utterances=len(counts),
        **asdict(sum(counts, KeywordCounts())),
        precision=precision,
        precision_ci=precision_ci,
        recall=recall,
        recall_ci=recall_ci,
        f=f,
        f_ci=f_ci,
        leakage=leakage,
        leakage_ci=leakage_ci,
    )


def _share(pairs: list[tuple[int, int]]) -> Share:
    """Return the sum of the parts over that of the wholes."""
    parts, wholes = [part for part, _ in pairs], [whole for _, whole in pairs]
    if not sum(wholes):
        return None, None
    return sum(parts) / sum(wholes), percentile_interval(resampled_rates(parts, wholes))

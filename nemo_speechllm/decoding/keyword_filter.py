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

"""Long keyword lists: only those that the encoder's own hypothesis may hold go into the prompt."""

import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from rapidfuzz import fuzz, process

MIN_SCORE = 50.0  # of 100; what is less alike is left out even where there is room


class KeywordFilter:
    """Ranks keywords by how well their letters match some part of a hypothesis.

    The hypothesis is wrong just where keywords are rare, so the match is partial and of letters, not of words: accents,
    case and all but letters and digits are left out, and a keyword counts as it fits best anywhere, within words or across
    them. Time grows linearly with the number of keywords.

    Args:
        keywords: words and phrases.
    """

    def __init__(self, keywords: Sequence[str]):
        self.keywords = list(keywords)
        self._folded = [f" {_fold(keyword)} " for keyword in self.keywords]
        self._lengths = np.array([len(folded) for folded in self._folded])

    def scores(self, hypothesis: str) -> np.ndarray:
        """How alike each keyword and its best match are, (N,), from 0 to 100; what has no letter is like nothing."""
        heard = _fold(hypothesis)
        if not heard or not self.keywords:
            return np.zeros(len(self.keywords), dtype=np.float32)
        scores = process.cdist([f" {heard} "], self._folded, scorer=fuzz.partial_ratio, dtype=np.float32)[0]
        # rapidfuzz looks for the shorter in the longer: a phrase that merely holds what was heard was not heard
        held = np.minimum(1, (len(heard) + 2) / self._lengths)
        return np.where(self._lengths > 2, scores * held, 0)

    def select(self, hypothesis: str, limit: int) -> list[str]:
        """At most ``limit`` keywords that the hypothesis may hold, in the order of the list."""
        scores = self.scores(hypothesis)
        best = np.lexsort((-self._lengths, -scores))[:limit]  # of two that match alike the longer one is no chance
        return [self.keywords[place] for place in sorted(best) if scores[place] >= MIN_SCORE]


@lru_cache(maxsize=4)
def keyword_filter(keywords: tuple[str, ...]) -> KeywordFilter:
    """The filter of a list, which is made ready once for all the utterances it is given with."""
    return KeywordFilter(keywords)


def _fold(text: str) -> str:
    """Lower-case letters and digits without accents; anything else is a space."""
    letters = unicodedata.normalize("NFKD", text.casefold())
    return " ".join("".join(c if c.isalnum() else " " for c in letters if not unicodedata.combining(c)).split())

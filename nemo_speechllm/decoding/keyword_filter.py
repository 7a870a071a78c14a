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

"""Long keyword lists: only those that CTC may have heard go into the prompt."""

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import regex
import torch
from rapidfuzz import fuzz, process
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

# nats per token that letters which all match are worth; of 4, 5, 6 and 8 no other kept more (docs/results/salm.md)
LETTERS = 6.0
_ACCENTS = regex.compile(r"[\p{M}&&\p{Script=Inherited}]", regex.V1)
_NO_LETTER = regex.compile(r"[^\p{L}\p{M}\p{N}]")
MIN_SCORE = 1.0  # what is less likely is left out even where there is room


@dataclass
class Evidence:
    """What CTC makes of a conversation's audio.

    Attributes:
        text: its hypothesis.
        log_ratios: tokens (N,) → (T, 1 + N): in each frame the log-probability of blank and tokens over that of the
            likeliest.
    """

    text: str
    log_ratios: Callable[[Tensor], Tensor]


class KeywordFilter:
    """Ranks keywords by how likely CTC finds them, and by how well their letters match some part of its hypothesis.

    The hypothesis is wrong just where keywords are rare, yet CTC's scores of what it did not choose still tell. A
    keyword's score is the log-probability per token of its best path through any stretch of frames, over that of the
    likeliest path there (0 where CTC reads the keyword), and `LETTERS` times the share of its letters in the part of
    the hypothesis that fits best, without accents and case, within words or across them. It counts as it is written
    and in lower case. Time grows linearly with the number of keywords.

    Args:
        keywords: words and phrases.
        ctc_ids: texts as CTC's tokens.
    """

    def __init__(self, keywords: Sequence[str], ctc_ids: Callable[[list[str]], list[list[int]]]):
        self.keywords = list(keywords)
        self._folded = [f" {_fold(keyword)} " for keyword in self.keywords]
        self._lengths = np.array([len(folded) for folded in self._folded])
        spellings = [(i, s) for i, k in enumerate(self.keywords) for s in {f" {k}", k, f" {k.lower()}"}]
        sequences = [torch.tensor(ids, dtype=torch.long) for ids in ctc_ids([spelling for _, spelling in spellings])]
        known = [place for place, ids in enumerate(sequences) if len(ids)]
        self._owners = torch.tensor([spellings[place][0] for place in known], dtype=torch.long)
        self._counts = torch.tensor([len(sequences[place]) for place in known], dtype=torch.long)
        padded = pad_sequence([sequences[place] for place in known], batch_first=True) if known else torch.zeros(0, 0)
        self._tokens, classes = padded.long().unique(return_inverse=True)
        self._classes = classes + 1  # 0 is the blank

    def scores(self, evidence: Evidence) -> np.ndarray:
        """Return how likely each keyword was said, (N,); -inf where it or the hypothesis has no letter."""
        hypothesis = _fold(evidence.text)
        if not hypothesis or not self.keywords:
            return np.full(len(self.keywords), -np.inf, dtype=np.float32)
        alike = process.cdist([f" {hypothesis} "], self._folded, scorer=fuzz.partial_ratio, dtype=np.float32)[0] / 100
        # rapidfuzz looks for the shorter in the longer: a phrase that merely holds what was heard was not heard
        alike *= np.minimum(1, (len(hypothesis) + 2) / self._lengths)
        spelled = best_path_ratios(evidence.log_ratios(self._tokens).float().cpu(), self._classes, self._counts)
        likely = torch.full((len(self.keywords),), -torch.inf).scatter_reduce(0, self._owners, spelled, "amax").numpy()
        return np.where(self._lengths > 2, likely + LETTERS * alike, -np.inf)

    def select(self, evidence: Evidence, limit: int) -> list[str]:
        """Return at most ``limit`` keywords that may have been said, in the order of the list."""
        scores = self.scores(evidence)
        best = np.lexsort((-self._lengths, -scores))[:limit]  # of two that are as likely the longer one is no chance
        return [self.keywords[place] for place in sorted(best) if scores[place] >= MIN_SCORE]


def best_path_ratios(log_ratios: Tensor, classes: Tensor, counts: Tensor) -> Tensor:
    """Return the log-ratio per token of each token sequence's best CTC path through any stretch of frames, (S,).

    A token may be followed by the same one without a blank between: a sequence is looked for, not written.

    Args:
        log_ratios: (T, C), blank first.
        classes: of the tokens, (S, L), padded; counts (S,), at least 1.
    """
    last = (counts - 1)[:, None]
    reached = torch.full(classes.shape, -torch.inf)  # best path that ends at a frame in a sequence's i-th token
    best = torch.full(counts.shape, -torch.inf)
    for frame in log_ratios:
        here = frame[classes]
        entered = nn.functional.pad(reached[:, :-1], (1, 0)) + here  # the first token may begin anywhere
        reached = torch.maximum(entered, reached + here.clamp(min=frame[0]))
        best = torch.maximum(best, reached.gather(1, last)[:, 0])
    return best / counts


def _fold(text: str) -> str:
    """Return lower-case letters and digits without accents; anything else is a space.

    A script's own marks, such as Indic vowels, stay.
    """
    letters = _ACCENTS.sub("", unicodedata.normalize("NFKD", text.casefold()))
    return " ".join(_NO_LETTER.sub(" ", letters).split())

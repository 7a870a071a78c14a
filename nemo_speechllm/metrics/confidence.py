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

"""Whether words are as often right as their confidence says, and whether wrong ones have less of it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein
from torchmetrics.functional.classification import binary_auroc, binary_calibration_error

from nemo_speechllm.metrics.significance import RESAMPLES, percentile_interval

BINS = 10


@dataclass(frozen=True)
class ConfidenceFigures:
    """How good the confidence of words is.

    Attributes:
        words, wrong: how many there are, and how many of them are wrong.
        auc: the probability that a wrong word has less confidence than a right one; None without both.
        ece: expected calibration error, the mean distance of confidence and share of right words in tenths of the
            scale, weighted by their words (Guo et al., 1706.04599, section 2).
        nats: mean cross-entropy of being right or wrong, the lower the better.
    """

    words: int
    wrong: int
    auc: float | None
    ece: float
    nats: float


@dataclass(frozen=True)
class ReliabilityBin:
    """Words of about the same confidence: how many, their mean confidence, and the share of them that is right."""

    words: int
    confidence: float
    right: float


def right_words(hypothesis: str, reference: str) -> list[bool]:
    """Return of each word of a hypothesis whether it is where the reference has it; case and punctuation aside.

    The alignment is one of fewest errors.
    """
    words, said = bare_words(hypothesis), bare_words(reference)
    right = [False] * len(words)
    for block in Levenshtein.opcodes(said, words):
        if block.tag == "equal":
            right[block.dest_start : block.dest_end] = [True] * (block.dest_end - block.dest_start)
    return right


def bare_words(text: str) -> list[str]:
    """Return words without case and punctuation, one for each that stands between white space."""
    return [re.sub(r"[^\w']", "", word.casefold()) for word in text.split()]


def confidence_figures(confidence: Sequence[float], right: Sequence[bool]) -> ConfidenceFigures:
    """Return how good the confidence of words is, of which is known whether they are right.

    Raises:
        ValueError: there are none.
    """
    if not len(right):
        raise ValueError("there is no word whose confidence could be judged")
    given, is_right = torch.tensor(confidence, dtype=torch.float64), torch.tensor(right)
    of_truth = torch.where(is_right, given, 1 - given).clamp(min=1e-12)
    both = len(set(right)) == 2
    return ConfidenceFigures(
        words=len(right),
        wrong=len(right) - sum(right),
        auc=float(binary_auroc(given, is_right.long())) if both else None,
        ece=float(binary_calibration_error(given, is_right.long(), n_bins=BINS, norm="l1")),
        nats=float(-of_truth.log().mean()),
    )


def auc_gain(
    confidence: Sequence[float], baseline: Sequence[float], right: Sequence[bool], recordings: Sequence[int]
) -> tuple[float, list[float]] | None:
    """Return by how much one confidence of words has a higher AUC than another, and its 95 % interval.

    The interval is a paired bootstrap over recordings, whose words are not independent.

    Args:
        confidence, baseline: of each word, by the two.
        right: of each word.
        recordings: of each word, the number of its recording.

    Returns:
        None where all words are right, or none.
    """
    if len(set(right)) < 2:
        return None
    numbers, of_word = np.unique(recordings, return_inverse=True)
    random = np.random.default_rng(0)
    draws = random.multinomial(len(numbers), np.full(len(numbers), 1 / len(numbers)), size=RESAMPLES)
    weights = np.vstack([np.ones_like(draws[:1]), draws])[:, of_word]  # the first is what was observed
    gains = _weighted_aucs(confidence, right, weights) - _weighted_aucs(baseline, right, weights)
    interval = percentile_interval(gains[1:])
    assert interval is not None  # thousands of draws do not all miss the wrong words
    return float(gains[0]), interval


def _weighted_aucs(confidence: Sequence[float], right: Sequence[bool], weights: np.ndarray) -> np.ndarray:
    """Return the AUC (R,) of words that count as often as R rows of weights (R, W) say."""
    _, value = np.unique(confidence, return_inverse=True)
    order = np.argsort(value, kind="stable")
    starts = np.flatnonzero(np.diff(value[order], prepend=-1))
    is_right = np.asarray(right, dtype=bool)[order]
    rights, wrongs = (
        np.add.reduceat(weights[:, order] * of_kind, starts, axis=1) for of_kind in (is_right, ~is_right)
    )
    below = wrongs.cumsum(1) - wrongs / 2  # of words with the same confidence half are taken to have less
    pairs = rights.sum(1) * wrongs.sum(1)
    return np.divide((rights * below).sum(1), pairs, out=np.full(len(weights), np.nan), where=pairs > 0)


def reliability(confidence: Sequence[float], right: Sequence[bool]) -> list[ReliabilityBin]:
    """Return the tenths of the scale in which there are words, from the least confidence to the most."""
    given, is_right = np.asarray(confidence, dtype=float), np.asarray(right, dtype=bool)
    places = np.minimum((given * BINS).astype(int), BINS - 1)
    return [
        ReliabilityBin(int(within.sum()), float(given[within].mean()), float(is_right[within].mean()))
        for within in (places == place for place in range(BINS))
        if within.any()
    ]

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

"""How far a figure may be trusted: bootstrap over utterances (Bisani & Ney, ICASSP 2004)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95


def resampled_rates(
    numerators: Sequence[Sequence[float]] | Sequence[float],
    denominators: Sequence[float] | np.ndarray,
    seed: int | Sequence[int] = 0,
    resamples: int = RESAMPLES,
) -> np.ndarray:
    """Return rates (a sum over a sum) of sets of utterances that are drawn with replacement from the given ones.

    Args:
        numerators: per utterance, e.g. its word errors, (N,); or of K systems on the same utterances, (K, N).
        denominators: per utterance, e.g. its reference words, (N,); ones give the mean of the numerators.
        seed: of the draws.
        resamples: how many sets are drawn, R.

    Returns:
        (R,) or (K, R); NaN where a set's denominators are all 0.
    """
    stacked = np.vstack([np.atleast_2d(numerators), denominators]).astype(float)
    random, size = np.random.default_rng(seed), stacked.shape[1]
    sums = np.stack([stacked[:, random.integers(size, size=size)].sum(1) for _ in range(resamples)], axis=1)
    rates = np.divide(sums[:-1], sums[-1], out=np.full_like(sums[:-1], np.nan), where=sums[-1] > 0)
    return rates if np.ndim(numerators) == 2 else rates[0]


def percentile_interval(samples: np.ndarray, level: float = LEVEL) -> list[float] | None:
    """Return the middle ``level`` of resampled figures as [low, high]; None where there is not one."""
    samples = samples[np.isfinite(samples)]
    if not len(samples):
        return None
    tail = 50 * (1 - level)
    return np.percentile(samples, [tail, 100 - tail]).tolist()


def mean_interval(values: Sequence[float], seed: int | Sequence[int] = 0) -> list[float] | None:
    """Return the 95 % bootstrap interval [low, high] of a mean; None of no values."""
    return percentile_interval(resampled_rates(values, np.ones(len(values)), seed)) if len(values) else None


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Error rates of two systems on the same utterances.

    Attributes:
        rates: of system a and of system b.
        difference: b − a; negative where b is better.
        interval: 95 % bootstrap interval of the difference.
        p: two-sided: twice the share of resampled sets in which the difference has the other sign or is zero.
    """

    rates: tuple[float, float]
    difference: float
    interval: list[float]
    p: float


def compare_paired(
    errors_a: Sequence[float], errors_b: Sequence[float], words: Sequence[int], seed: int = 0
) -> PairedDifference:
    """Compare two error rates by a paired bootstrap of their difference.

    Args:
        errors_a, errors_b: errors of both systems, utterance by utterance, (N,).
        words: reference words per utterance, (N,); ones for what is counted by utterance.
        seed: of the draws.

    Raises:
        ValueError: there is no reference word.
    """
    total = sum(words)
    if not total:
        raise ValueError("there is no reference word to compare error rates on")
    rates = sum(errors_a) / total, sum(errors_b) / total
    resampled = resampled_rates([errors_a, errors_b], words, seed)
    differences = resampled[1] - resampled[0]
    differences = differences[np.isfinite(differences)]
    crossing = min((differences <= 0).sum(), (differences >= 0).sum())
    # the set that was observed counts as one of the resampled: no finite number of draws proves p = 0
    p = min(1.0, 2 * (crossing + 1) / (len(differences) + 1))
    interval = percentile_interval(differences)
    assert interval is not None  # thousands of sets do not all miss the words that there are
    return PairedDifference(rates, rates[1] - rates[0], interval, float(p))

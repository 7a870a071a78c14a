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

"""Bootstrap intervals against scipy's and against what is known of them."""

import numpy as np
import pytest
import scipy.stats

from nemo_speechllm.metrics.significance import compare_paired, percentile_interval, resampled_rates


def test_interval_of_a_rate_agrees_with_scipy():
    random = np.random.default_rng(1)
    words = random.integers(1, 20, 200)
    errors = random.binomial(words, 0.2)
    expected = scipy.stats.bootstrap(
        (errors, words), lambda e, w, axis=-1: e.sum(axis) / w.sum(axis), paired=True, method="percentile", rng=2
    ).confidence_interval
    assert percentile_interval(resampled_rates(errors, words)) == pytest.approx(list(expected), abs=0.004)


def test_ones_as_denominators_give_the_mean():
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    low, high = percentile_interval(resampled_rates(values, np.ones(400), resamples=4000))
    standard_error = values.std() / 20
    assert (low, high) == pytest.approx(
        (values.mean() - 1.96 * standard_error, values.mean() + 1.96 * standard_error), abs=0.02
    )


def test_the_same_seed_gives_the_same_draws_for_every_system():
    both = resampled_rates([[1, 0, 2], [2, 0, 4]], [3, 4, 5], seed=7)
    assert both.shape[0] == 2 and np.allclose(both[1], 2 * both[0])
    assert np.array_equal(both[0], resampled_rates([1, 0, 2], [3, 4, 5], seed=7))


def test_sets_without_a_word_have_no_rate():
    rates = resampled_rates([0, 1], [0, 4])
    assert np.isnan(rates).any() and percentile_interval(rates) == [0.25, 0.25]
    assert percentile_interval(resampled_rates([1], [0])) is None


def test_a_clear_difference_is_found_and_an_absent_one_is_not():
    random = np.random.default_rng(3)
    words = np.full(150, 10)
    a, b = random.binomial(10, 0.3, 150), random.binomial(10, 0.15, 150)
    clear = compare_paired(a, b, words)
    assert clear.difference == pytest.approx(b.sum() / 1500 - a.sum() / 1500)
    assert clear.interval[1] < 0 and clear.p < 0.01
    same = compare_paired(a, a, words)
    assert (same.difference, same.interval, same.p) == (0, [0, 0], 1.0)
    with pytest.raises(ValueError, match="no reference word"):
        compare_paired([0], [1], [0])


def test_pairing_makes_the_interval_narrower_than_that_of_independent_sets():
    random = np.random.default_rng(4)
    difficulty = random.uniform(0, 0.8, 200)
    a = random.binomial(10, difficulty)
    b = np.maximum(a - (random.random(200) < 0.1), 0)
    words = np.full(200, 10)
    low, high = compare_paired(a, b, words).interval
    independent = resampled_rates(b, words, seed=1) - resampled_rates(a, words, seed=2)
    assert high - low < 0.5 * np.subtract(*percentile_interval(independent)[::-1])

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

"""Alignment scores on maps whose scores are known, and against an exhaustive search."""

import itertools

import numpy as np
import pytest

from nemo_speechllm.metrics.alignment import alignment_score, best_path, cosine_map, monotonicity


def diagonal(tokens: int, frames: int) -> np.ndarray:
    cosines = np.zeros((tokens, frames))
    cosines[np.arange(tokens), np.linspace(0, frames - 1, tokens).round().astype(int)] = 1.0
    return cosines


def test_cosine_map_is_that_of_the_definition():
    random = np.random.default_rng(0)
    text, audio = random.normal(size=(3, 5)), random.normal(size=(4, 5))
    cosines = cosine_map(text, audio)
    for n, t in itertools.product(range(3), range(4)):
        expected = text[n] @ audio[t] / np.sqrt(text[n] @ text[n] * (audio[t] @ audio[t]))
        assert cosines[n, t] == pytest.approx(expected)
    assert not cosine_map(np.zeros((1, 5)), audio).any()


def test_monotonicity_of_best_frames():
    assert monotonicity(diagonal(5, 12)) == pytest.approx(1)
    assert monotonicity(diagonal(5, 12)[::-1]) == pytest.approx(-1)
    assert monotonicity(np.ones((5, 12))) == 0
    one_swap = diagonal(4, 4)[[0, 2, 1, 3]]
    assert monotonicity(one_swap) == pytest.approx((5 - 1) / 6)  # five pairs in order, one not


@pytest.mark.parametrize("seed", range(5))
def test_best_path_is_the_best_of_all_monotonic_ones(seed):
    cosines = np.random.default_rng(seed).normal(size=(4, 5))
    path, score = best_path(cosines)
    every = [p for p in itertools.product(range(5), repeat=4) if list(p) == sorted(p)]
    means = [cosines[np.arange(4), p].mean() for p in every]
    assert score == pytest.approx(max(means)) and tuple(path) == every[int(np.argmax(means))]


def test_a_diagonal_gains_from_its_order_and_noise_does_not():
    noise = np.random.default_rng(0).normal(size=(40, 12, 30)) * 0.1
    found = [alignment_score(cosines + diagonal(12, 30), seed) for seed, cosines in enumerate(noise)]
    assert all(score.path_gain > 0.3 and score.path_p == pytest.approx(1 / 201) for score in found)
    by_chance = [alignment_score(cosines, seed) for seed, cosines in enumerate(noise)]
    assert abs(np.mean([score.path_gain for score in by_chance])) < 0.01
    assert abs(np.mean([score.monotonicity for score in by_chance])) < 0.1
    assert 0.3 < np.mean([score.path_p for score in by_chance]) < 0.7


def test_a_frame_that_is_like_every_token_gains_nothing():
    hub = np.zeros((8, 20))
    hub[:, 7] = 1.0
    score = alignment_score(hub)
    assert (score.monotonicity, score.path_cosine, score.path_p) == (0, 1, 1)
    assert score.path_gain == pytest.approx(0)


def test_the_seed_alone_decides_and_too_little_is_refused():
    cosines = np.random.default_rng(0).normal(size=(6, 9))
    assert alignment_score(cosines, 1) == alignment_score(cosines, 1) != alignment_score(cosines, 2)
    with pytest.raises(ValueError, match="1 tokens and 9 frames"):
        alignment_score(cosines[:1])

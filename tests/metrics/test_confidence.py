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

"""Whether confidence says how often words are right."""

import numpy as np
import pytest

from nemo_speechllm.metrics.confidence import auc_gain, bare_words, confidence_figures, reliability, right_words


@pytest.mark.parametrize(
    ("hypothesis", "reference", "right"),
    [
        ("Press one, now.", "press one now", [True, True, True]),
        ("press won now please", "press one now", [True, False, True, False]),
        ("one now", "press one now", [True, True]),
        ("...", "press", [False]),
        ("", "press", []),
        ("нажмите Один", "Нажмите один!", [True, True]),
    ],
)
def test_a_word_is_right_where_the_reference_has_it(hypothesis, reference, right):
    assert right_words(hypothesis, reference) == right


def test_there_is_a_bare_word_for_each_word():
    assert bare_words("well - it's  A-1, no?") == ["well", "", "it's", "a1", "no"]


def test_figures_of_perfect_confidence():
    figures = confidence_figures([1.0, 0.0, 1.0], [True, False, True])
    assert (figures.words, figures.wrong, figures.auc, figures.ece) == (3, 1, 1.0, 0.0)
    assert figures.nats == pytest.approx(0.0, abs=1e-6)


def test_calibration_error_is_the_mean_distance_of_confidence_and_truth():
    confidence, right = [0.95] * 10 + [0.25] * 4, [True] * 8 + [False] * 2 + [True] + [False] * 3
    figures = confidence_figures(confidence, right)
    assert figures.ece == pytest.approx((10 * abs(0.95 - 0.8) + 4 * 0.0) / 14)
    assert [(part.words, round(part.right, 2)) for part in reliability(confidence, right)] == [(4, 0.25), (10, 0.8)]


def test_auc_is_how_often_a_wrong_word_has_less_confidence():
    assert confidence_figures([0.9, 0.6, 0.7, 0.2], [True, False, True, False]).auc == 1.0
    assert confidence_figures([0.9, 0.6, 0.7, 0.8], [True, False, True, False]).auc == 0.75
    assert confidence_figures([0.9, 0.6], [True, True]).auc is None


def test_no_words_are_refused():
    with pytest.raises(ValueError, match="no word"):
        confidence_figures([], [])


def test_a_gain_in_auc_is_the_difference_of_both_and_its_interval_counts_recordings():
    rng = np.random.default_rng(0)
    right = (rng.uniform(size=400) < 0.7).tolist()
    noise = rng.uniform(-0.5, 0.5, (2, 400))
    better, worse = (
        np.round(np.asarray(right) * scale + of_one, 1) for scale, of_one in zip((1.0, 0.2), noise, strict=True)
    )
    gain, (low, high) = auc_gain(better, worse, right, range(400))
    expected = confidence_figures(better, right).auc - confidence_figures(worse, right).auc
    assert gain == pytest.approx(expected, abs=1e-6) and 0 < low < gain < high
    _, (fewer_low, fewer_high) = auc_gain(better, worse, right, [number // 20 for number in range(400)])
    assert fewer_low != low and fewer_low < gain < fewer_high
    assert auc_gain(better, better, right, range(400)) == (0.0, [0.0, 0.0])
    assert auc_gain(better, worse, [True] * 400, range(400)) is None

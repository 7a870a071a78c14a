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

"""Running sums of the listening diagnostic."""

import math
from itertools import permutations

import pytest

from nemo_speechllm.metrics.listening import ListeningTally


def tally(*answers: tuple[float, float, int]) -> ListeningTally:
    counted = ListeningTally()
    for answer in answers:
        counted.count_answer(*answer)
    return counted


def test_tokens_weigh_alike_in_whatever_order_answers_come():
    answers = (0.1, 0.7, 1), (0.3, 0.2, 2), (1e9, 1.1, 3)
    figures = [sum(map(tally, order), ListeningTally()).figures() for order in permutations(answers)]
    assert all(found == figures[0] for found in figures)
    assert tally(*answers[:2]).figures() == pytest.approx(
        {"loss_right_audio": 0.4 / 3, "loss_other_audio": 0.9 / 3, "listening": 0.5 / 3}
    )


def test_what_is_not_finite_is_left_out_and_counted():
    counted = tally((1.0, 2.0, 4), (math.nan, 1.0, 1), (1.0, math.inf, 1))
    counted.count_alignment(-6.0, 3)
    counted.count_alignment(-math.inf, 9)
    assert (counted.answers, counted.left_out) == (1, 2)
    assert counted.figures() == {
        **{"loss_right_audio": 0.25, "loss_other_audio": 0.5, "listening": 0.25},
        **{"alignment": -2.0},
    }


@pytest.mark.parametrize(
    ("right", "other", "is_deaf"),
    [(2.0, 2.1, True), (2.0, 1.9, True), (2.0, 3.0, False), (7.0, 7.1, False), (0.0, 0.0, False)],
    ids=["hardly listens", "listens wrongly", "listens", "cannot write yet", "knows all"],
)
def test_deaf_is_what_writes_fluently_and_would_write_the_same_for_another_audio(right, other, is_deaf):
    assert tally((right, other, 1)).is_deaf == is_deaf


def test_nothing_counted_is_nothing_said():
    assert ListeningTally().figures() == {} and not ListeningTally().is_deaf

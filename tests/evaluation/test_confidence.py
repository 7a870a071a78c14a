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

"""A calibration that is fitted on words says how often such words are right."""

import math
from dataclasses import asdict

import numpy as np
import pytest

from nemo_speechllm.decoding.word_confidence import Calibration, WordEvidence
from nemo_speechllm.evaluation.confidence import figures_table, fit_calibration, judged_words, of_decoder_alone
from nemo_speechllm.metrics.confidence import confidence_figures


def drawn(calibration: Calibration, count: int) -> tuple[list[WordEvidence], list[bool]]:
    """Words that are right as often as a calibration says."""
    rng = np.random.default_rng(0)
    evidence = [
        WordEvidence(*rng.uniform(-2, 0, 2), rng.uniform(), rng.uniform(0, 2), rng.uniform(-3, 3))
        for _ in range(count)
    ]
    return evidence, [bool(rng.uniform() < calibration(of_word)) for of_word in evidence]


def test_the_calibration_that_made_the_words_is_found():
    made = Calibration(bias=0.5, decoder=1.5, ctc=2.0, hypotheses=1.0, letters=0.5, recogniser=0.4)
    found = fit_calibration(*drawn(made, 20000))
    assert list(asdict(found).values()) == pytest.approx(list(asdict(made).values()), abs=0.2)
    evidence, right = drawn(made, 4000)
    assert confidence_figures([*map(found, evidence)], right).ece < 0.02


def test_words_that_are_all_right_calibrate_nothing():
    with pytest.raises(ValueError, match="2 words 2 are right"):
        fit_calibration([WordEvidence(0, 0, 1, 1)] * 2, [True, True])


def test_words_are_judged_by_their_references():
    of_word = asdict(WordEvidence(-0.1, -0.2, 0.9, 1.0))
    rows = [{"text": "press one", "pred_text": "press won", "evidence": [of_word] * 2}]
    rows += [{"text": "hello", "pred_text": "", "evidence": []}]
    assert judged_words(rows) == ([WordEvidence(-0.1, -0.2, 0.9, 1.0)] * 2, [True, False])


def test_the_decoder_alone_gives_the_probability_of_its_tokens():
    evidence = [WordEvidence(-math.log1p(-log_prob), 0, 0, 0) for log_prob in (0.0, math.log(0.25))]
    assert of_decoder_alone(evidence) == pytest.approx([1.0, 0.25])


def test_the_table_has_a_row_a_confidence():
    table = figures_table({"one": confidence_figures([0.5], [True])}, {})
    assert "| one | 1 | 0 |  |  | 0.500 | 0.693 |" in table
    table = figures_table({"one": confidence_figures([0.5, 0.2], [True, False])}, {"one": (0.02, [-0.01, 0.05])})
    assert "| one | 2 | 1 | 1.000 | +0.020 (-0.010 to +0.050) |" in table

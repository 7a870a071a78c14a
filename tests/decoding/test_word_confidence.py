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

"""What speaks for each word, and what that is worth."""

import math

import pytest
import torch

from nemo_speechllm.decoding.word_confidence import (
    SUREST,
    UNHEARD,
    Calibration,
    WordEvidence,
    sums_by_word,
    word_evidence,
)
from nemo_speechllm.decoding.word_times import Alignment
from nemo_speechllm.modules.ctc import EmbeddingCTC

TOKENS = (3, 5, 9)


@pytest.fixture
def ctc() -> EmbeddingCTC:
    """Blank and the tokens 3, 5, 9; a text's words are its tokens."""
    encode = lambda texts: [list(map(int, text.split())) for text in texts]  # noqa: E731
    ctc = EmbeddingCTC(lambda: torch.eye(12), encode, lambda ids: " ".join(map(str, ids)))
    ctc.seen[list(TOKENS)] = True
    return ctc


def heard(*frames: dict[int, float]) -> torch.Tensor:
    """Log-probabilities of frames, each given by its tokens'; what is left is the blank's."""
    rows = torch.zeros(len(frames), 1 + len(TOKENS))
    for row, of_frame in zip(rows, frames, strict=True):
        for token, probability in of_frame.items():
            row[1 + TOKENS.index(token)] = probability
        row[0] = 1 - sum(of_frame.values())
    return rows.clamp(min=1e-6).log()


def test_ctc_speaks_for_what_it_hears_and_against_what_it_does_not(ctc):
    log_probs = heard({3: 0.9}, {}, {5: 0.6, 9: 0.3}, {}, {9: 0.95})
    clear, doubtful, last = word_evidence(Alignment(ctc, log_probs, "3 5 9"), [-0.1, -0.1, -0.1])
    assert clear.ctc == pytest.approx(-math.log1p(-math.log(0.9)), abs=1e-5)
    assert doubtful.ctc == pytest.approx(-math.log1p(-math.log(0.6)), abs=1e-5)
    assert doubtful.ctc < clear.ctc < last.ctc
    assert doubtful.hypotheses < min(clear.hypotheses, last.hypotheses) <= 1 + 1e-6
    (instead,) = word_evidence(Alignment(ctc, log_probs, "3 9 9"), [-0.1, -0.1, -0.1])[1:2]
    assert instead.ctc < doubtful.ctc and instead.hypotheses < doubtful.hypotheses


def test_the_text_decoder_speaks_for_likely_words(ctc):
    likely, unlikely = word_evidence(Alignment(ctc, heard({3: 0.9}, {}, {3: 0.9}), "3 3"), [-0.01, -4.0])
    assert likely.decoder == pytest.approx(-math.log1p(0.01)) and unlikely.decoder == pytest.approx(-math.log1p(4.0))


@pytest.mark.parametrize(("text", "frames"), [("7", [{3: 0.9}, {}]), ("3 5 9", [{3: 0.9}])])
def test_what_ctc_never_met_or_has_no_frames_for_is_unheard(ctc, text, frames):
    evidence = word_evidence(Alignment(ctc, heard(*frames), text), [-0.1] * len(text.split()))
    assert {of_word.ctc for of_word in evidence} == {-math.log1p(-UNHEARD)}


def test_no_words_need_no_evidence(ctc):
    assert word_evidence(Alignment(ctc, heard({}), " "), []) == []


def test_tokens_count_for_the_word_that_the_text_has_reached():
    pieces = {1: "hel", 2: "lo", 3: " wor", 4: "ld", 5: " ", 6: "again"}
    decode = lambda ids: "".join(pieces[token] for token in ids)  # noqa: E731
    sums = sums_by_word([1, 2, 3, 4, 5, 6], [-1.0, -2.0, -3.0, -4.0, -0.5, -6.0, -100.0], "hello world again", decode)
    assert sums == [-3.0, -7.5, -6.0]


def test_a_calibration_is_logistic_and_each_weight_is_its_own_evidence_s():
    values = WordEvidence(decoder=-0.5, ctc=-0.25, hypotheses=0.5, letters=1.0, recogniser=-3.0)
    assert Calibration(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)(values) == 0.5
    for name, value in vars(values).items():
        weights = dict.fromkeys(("bias", *vars(values)), 0.0) | {name: 2.0}
        assert Calibration(**weights)(values) == pytest.approx(1 / (1 + math.exp(-2.0 * value)))
    assert Calibration(-800.0, 0.0, 0.0, 0.0, 0.0, 0.0)(values) == pytest.approx(0.0)


def test_another_recogniser_speaks_for_what_it_heard_and_says_nothing_where_it_is_not(ctc):
    alignment = Alignment(ctc, heard({}), "1 2 1")
    told = word_evidence(alignment, [-1.0] * 3, [0.0, math.log(0.25), -800.0])
    assert [of_word.recogniser for of_word in told] == pytest.approx([SUREST, -math.log(3), -SUREST])
    assert [of_word.recogniser for of_word in word_evidence(alignment, [-1.0] * 3)] == [0.0] * 3

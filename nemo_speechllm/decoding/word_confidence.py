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

"""How sure one may be of each word of a transcript: what its decoder, CTC and CTC's other hypotheses say of it.

A text decoder is sure of fluent words that nobody said; CTC of sounds that make no word. Together they tell a wrong
word better than either, and a logistic model of both, fitted on transcripts whose references are known, turns what
they say into the probability that the word is right.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein
from scipy.special import expit, logit

from nemo_speechllm.decoding.rescoring import N_HYPOTHESES, ctc_hypotheses
from nemo_speechllm.decoding.word_times import Alignment, UnalignableError
from nemo_speechllm.metrics.confidence import bare_words

SUREST = 7.0  # the logit that a recogniser's probability of a word is taken for at most
UNHEARD = math.log(1e-4)  # what CTC is taken to say of a token that it never met, or has no frame for


@dataclass(frozen=True)
class WordEvidence:
    """What speaks for a word; each is larger the more does.

    Attributes:
        decoder: how unlikely the text decoder finds it after the words before it, -log(1 - log p) of its tokens.
        ctc: the same of the least likely of its tokens by CTC, in the frame that reads it best.
        hypotheses: how probable CTC's hypotheses with this word in this place are together, 0 to 1.
        letters: how many it has, as a logarithm; long words are rarely made up.
        recogniser: the logit of its probability by a recogniser beside CTC and the text decoder, after the words
            before it; 0 where there is none.
    """

    decoder: float
    ctc: float
    hypotheses: float
    letters: float
    recogniser: float = 0.0


@dataclass(frozen=True)
class Calibration:
    """A logistic model of `WordEvidence`: what each is worth.

    Attributes:
        bias: the logit where nothing speaks for a word.
        decoder, ctc, hypotheses, letters, recogniser: by how much the logit grows with each.
    """

    bias: float
    decoder: float
    ctc: float
    hypotheses: float
    letters: float
    recogniser: float = 0.0

    def __call__(self, evidence: WordEvidence) -> float:
        """Return the probability that a word is right."""
        bias, *weights = astuple(self)
        logit = bias + sum(weight * value for weight, value in zip(weights, astuple(evidence), strict=True))
        return float(expit(logit))


def word_evidence(
    alignment: Alignment, decoder: list[float], recogniser: Sequence[float] | None = None
) -> list[WordEvidence]:
    """Return what speaks for each word of a transcript of one audio.

    Args:
        alignment: of the transcript, whatever gave it.
        decoder: the text decoder's log-probability of each of its words.
        recogniser: another recogniser's of the same audio, if there is one.
    """
    words = alignment.text.split()
    if not words:
        return []
    heard, shares = _ctc_log_probs(alignment), _shares(alignment)
    logits = [0.0] * len(words) if recogniser is None else [_logit(log_prob) for log_prob in recogniser]
    return [
        WordEvidence(-math.log1p(-of_decoder), -math.log1p(-of_ctc), share, math.log(len(word)), of_other)
        for word, of_decoder, of_ctc, share, of_other in zip(words, decoder, heard, shares, logits, strict=True)
    ]


def _logit(log_prob: float) -> float:
    """Return the logit of a probability, of no more than `SUREST` either way."""
    return float(np.clip(logit(math.exp(log_prob)), -SUREST, SUREST))


def sums_by_word(ids: list[int], log_probs: list[float], text: str, decode: Callable[[list[int]], str]) -> list[float]:
    """Return the log-probability of each word of a text whose tokens' are known.

    A token is of the word that the text has reached with it.

    Args:
        ids, log_probs: of the text's tokens; what comes after them (an end token's) is not read.
        decode: ids to text.
    """
    sums = [0.0] * len(text.split())
    for place, log_prob in zip(range(1, len(ids) + 1), log_probs, strict=False):
        reached = len(decode(ids[:place]).split())
        if 0 < reached <= len(sums):
            sums[reached - 1] += log_prob
    return sums


def _ctc_log_probs(alignment: Alignment) -> list[float]:
    """Return the log-probability of the least likely token of each word."""
    try:
        runs = alignment.runs
    except UnalignableError:
        return [UNHEARD] * len(alignment.text.split())
    log_probs = alignment.log_probs
    best = [[float(log_probs[run.begin : run.end, run.label].max()) for run in of_word] for of_word in runs]
    return [min(of_word, default=UNHEARD) for of_word in best]


def _shares(alignment: Alignment) -> list[float]:
    """Return how probable those of CTC's hypotheses are together that have each word of a text where it stands."""
    words = bare_words(alignment.text)
    hypotheses = ctc_hypotheses(alignment.ctc, alignment.log_probs, N_HYPOTHESES, alignment.text)
    weights = torch.tensor([hypothesis.log_prob for hypothesis in hypotheses]).softmax(0).tolist()
    shares = [0.0] * len(words)
    for hypothesis, weight in zip(hypotheses, weights, strict=True):
        for block in Levenshtein.opcodes(words, bare_words(hypothesis.text)):
            if block.tag == "equal":
                for place in range(block.src_start, block.src_end):
                    shares[place] += weight
    return shares

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

"""Joint decoding of an LLM and CTC: the LLM proposes, CTC says how well the audio holds it (1609.06773, section 3.2).

Alone, a small LLM paraphrases, repeats and skips; a hypothesis that does so has no CTC path.
"""

from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor

LEAST = -1e4  # of a log-probability: sums stay numbers, and such a path is none


@dataclass
class Prefix:
    """Log-probabilities of all CTC paths that read as a prefix, after 0…T frames (T + 1,).

    Attributes:
        token, blank: those paths that end in the prefix's last token, and in a blank.
        score: the log-probability that the audio's text begins with the prefix.
    """

    token: np.ndarray
    blank: np.ndarray
    score: float

    @property
    def whole(self) -> float:
        """The log-probability that the prefix is the whole text."""
        return float(np.logaddexp(self.token[-1], self.blank[-1]))


class CTCPrefixScores:
    """CTC's distribution of the next token after any prefix, for one audio.

    Args:
        log_probs: CTC's log-probabilities (T, 1 + N), blank first.
    """

    def __init__(self, log_probs: np.ndarray):
        self.log_probs = log_probs.astype(np.float64).clip(min=LEAST)
        self._probs = np.exp(self.log_probs[:, 1:])
        never = np.full(len(log_probs) + 1, -np.inf)
        blank = np.concatenate([[0.0], self.log_probs[:, 0].cumsum()])
        self._prefixes: dict[tuple[int, ...], Prefix] = {(): Prefix(never, blank, 0.0)}

    def next(self, prefix: tuple[int, ...]) -> tuple[np.ndarray, float]:
        """Return log-probabilities of each class 0…N−1 as the next after a prefix, (N,), and of the text's end."""
        reached = self._prefix(prefix)
        scores = self._extended(np.logaddexp(reached.token, reached.blank))
        if prefix:  # the same token again needs a blank between
            scores[prefix[-1]] = self._extended(reached.blank, prefix[-1])
        if reached.score == -np.inf:  # what has no path at all has no continuation
            return np.full_like(scores, -np.inf), -np.inf
        return scores - reached.score, reached.whole - reached.score

    def _extended(self, before: np.ndarray, token: int | slice = slice(None)) -> np.ndarray:
        """Return log Σ_t exp(before[t]) · p(token at frame t + 1), for one class or for all."""
        largest = before[:-1].max(initial=-np.inf)
        if largest == -np.inf:
            return np.full(self._probs[:1, token].shape[1:], -np.inf)
        with np.errstate(divide="ignore"):
            return largest + np.log(np.exp(before[:-1] - largest) @ self._probs[:, token])

    def _prefix(self, prefix: tuple[int, ...]) -> Prefix:
        if prefix not in self._prefixes:
            self._prefixes[prefix] = self._extend(self._prefix(prefix[:-1]), prefix)
        return self._prefixes[prefix]

    def _extend(self, shorter: Prefix, prefix: tuple[int, ...]) -> Prefix:
        label = prefix[-1]
        repeats = len(prefix) > 1 and prefix[-2] == label
        before = shorter.blank if repeats else np.logaddexp(shorter.token, shorter.blank)
        token = _prolonged(before, self.log_probs[:, 1 + label])
        return Prefix(token, _prolonged(token, self.log_probs[:, 0]), float(self._extended(before, label)))


def _prolonged(entered: np.ndarray, stays: np.ndarray) -> np.ndarray:
    """Return x of x[0] = -inf, x[t + 1] = log(exp(x[t]) + exp(entered[t])) + stays[t], (T + 1,).

    Less the sum of what it has stayed for, it is a sum of what entered.
    """
    stayed = np.concatenate([[0.0], stays.cumsum()])
    return np.concatenate([[-np.inf], np.logaddexp.accumulate(entered[:-1] - stayed[:-1]) + stayed[1:]])


class JointCTCScores(LogitsProcessor):
    """(1 − weight) · log p_LLM + weight · log p_CTC of each next token, for Hugging Face's ``generate``.

    A token that CTC does not know has no path: it cannot be chosen for an audio that CTC scores.

    Args:
        audios: CTC's log-probabilities (T, 1 + N) of each item of the batch, blank first; None: the LLM decides alone.
        tokens: the LLM's ids of the N classes, ascending.
        end_token_id: of the LLM.
        weight: of CTC, 0 to 1.
        beam_size: hypotheses an item.
    """

    def __init__(
        self, audios: list[Tensor | None], tokens: Tensor, end_token_id: int, weight: float, beam_size: int = 1
    ):
        self.scorers = [None if a is None else CTCPrefixScores(a.float().cpu().numpy()) for a in audios]
        self.tokens = tokens
        self.end_token_id = end_token_id
        self.weight = weight
        self.beam_size = beam_size
        self._class_of = {token: index for index, token in enumerate(tokens.tolist())}

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return joint scores of generated ids (B · beam_size, L) and scores (B · beam_size, V)."""
        return torch.stack([self.of_row(*row) for row in zip(count(), input_ids.tolist(), scores)])

    def of_row(self, row: int, ids: list[int], scores: Tensor) -> Tensor:
        """Return joint scores of one of the rows, (V,)."""
        scores, scorer = scores.log_softmax(-1), self.scorers[row // self.beam_size]
        return scores if scorer is None or self.end_token_id in ids else self._joint(scorer, ids, scores)

    def _joint(self, scorer: CTCPrefixScores, ids: list[int], llm: Tensor) -> Tensor:
        scores, end = scorer.next(tuple(self._class_of[token] for token in ids))
        ctc = torch.full_like(llm, -torch.inf)
        ctc[self.tokens] = torch.from_numpy(scores).to(llm)
        ctc[self.end_token_id] = end
        return (1 - self.weight) * llm + self.weight * ctc

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

"""Does a model listen? What its answers cost it with the audio they are about, and with another."""

import math
from dataclasses import dataclass, fields
from fractions import Fraction

FLUENT = 5.0  # nats per token: a fresh adapter is at 6, a language model that hears nothing learns to 4
HEARD_SHARE = 0.2  # of what answers cost with another audio; a model that listens saves more


@dataclass
class ListeningTally:
    """Running sums of a validation, exact in whatever order they were counted; those of batches, or of ranks, add up.

    Attributes:
        right, other: cross-entropy in nats of the answers compared, with the right audio and with another.
        tokens: of these answers, their ends among them.
        answers: how many these are.
        left_out: how many could not be compared.
        aligned: log-probability in nats, under CTC, of the texts that it is taught to read.
        aligned_tokens: of these texts.
    """

    right: Fraction = Fraction(0)
    other: Fraction = Fraction(0)
    tokens: int = 0
    answers: int = 0
    left_out: int = 0
    aligned: Fraction = Fraction(0)
    aligned_tokens: int = 0

    def count_answer(self, right: float, other: float, tokens: int) -> None:
        """Add an answer of so many tokens, with its cross-entropy in nats; what is not finite is left out."""
        if not (math.isfinite(right) and math.isfinite(other)):
            self.left_out += 1
            return
        self.right += Fraction(right)
        self.other += Fraction(other)
        self.tokens += tokens
        self.answers += 1

    def count_alignment(self, log_probability: float, tokens: int) -> None:
        """Add a text of so many tokens with its log-probability under CTC in nats, if that is finite."""
        if math.isfinite(log_probability):
            self.aligned += Fraction(log_probability)
            self.aligned_tokens += tokens

    def __add__(self, summand: "ListeningTally") -> "ListeningTally":
        names = [field.name for field in fields(self)]
        return ListeningTally(**{name: getattr(self, name) + getattr(summand, name) for name in names})

    @property
    def is_deaf(self) -> bool:
        """Whether answers are written fluently, and the right audio saves but a small share of what they cost."""
        return (
            self.tokens > 0
            and self.right < FLUENT * self.tokens
            and self.other - self.right < HEARD_SHARE * self.other
        )

    def figures(self) -> dict[str, float]:
        """Return what was counted, in nats per token.

        Returns:
            ``loss_right_audio``, ``loss_other_audio`` and what the right audio saves, their difference ``listening``;
            and ``alignment``, the log-probability of texts under CTC.
        """
        figures = {}
        if self.tokens:
            figures["loss_right_audio"] = float(self.right / self.tokens)
            figures["loss_other_audio"] = float(self.other / self.tokens)
            figures["listening"] = float((self.other - self.right) / self.tokens)
        if self.aligned_tokens:
            figures["alignment"] = float(self.aligned / self.aligned_tokens)
        return figures

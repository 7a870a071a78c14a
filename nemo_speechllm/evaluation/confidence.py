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

"""What a model's word confidence is worth, fitted on answers whose references are known, and drawn."""

import math
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

from sklearn.linear_model import LogisticRegression

from nemo_speechllm.decoding.word_confidence import Calibration, WordEvidence
from nemo_speechllm.evaluation.tables import decimal, markdown_table
from nemo_speechllm.metrics.confidence import ConfidenceFigures, right_words


def judged_words(predictions: Sequence[dict[str, Any]]) -> tuple[list[WordEvidence], list[bool]]:
    """Return the evidence for all words that were answered, and whether they are right.

    Args:
        predictions: each with ``text``, ``pred_text`` and the ``evidence`` of its words.
    """
    evidence = [WordEvidence(**of_word) for row in predictions for of_word in row["evidence"]]
    return evidence, [right for row in predictions for right in right_words(row["pred_text"], row["text"])]


def fit_calibration(evidence: Sequence[WordEvidence], right: Sequence[bool]) -> Calibration:
    """Return the logistic model that says best which words are right, with a little ridge.

    Raises:
        ValueError: all words are right, or none.
    """
    if len(set(right)) < 2:
        raise ValueError(
            f"of {len(right)} words {sum(right)} are right: a calibration needs right and wrong ones; give a manifest "
            "with more and harder recordings"
        )
    fitted = LogisticRegression(C=10.0, max_iter=1000).fit([astuple(of_word) for of_word in evidence], right)
    return Calibration(float(fitted.intercept_[0]), *map(float, fitted.coef_[0]))


def of_decoder_alone(evidence: Sequence[WordEvidence]) -> list[float]:
    """Return the probability that the text decoder itself gives each word."""
    return [math.exp(1 - math.exp(-of_word.decoder)) for of_word in evidence]


def recordings_of_words(predictions: Sequence[dict[str, Any]]) -> list[int]:
    """Return of each word that was answered the number of its recording."""
    return [number for number, row in enumerate(predictions) for _ in row["evidence"]]


def figures_table(rows: dict[str, ConfidenceFigures], gains: dict[str, tuple[float, list[float]]]) -> str:
    """Return figures of several confidences of the same words as a Markdown table.

    Args:
        rows: by the confidence's name.
        gains: in AUC over the first, and their intervals, of those that have one.
    """
    return markdown_table(
        ["confidence", "words", "wrong", "AUC", "gain (95 %)", "ECE", "nats a word"],
        [
            [
                name,
                str(row.words),
                str(row.wrong),
                "" if row.auc is None else decimal(row.auc, 3),
                _gain(*gains[name]) if name in gains else "",
                decimal(row.ece, 3),
                decimal(row.nats, 3),
            ]
            for name, row in rows.items()
        ],
    )


def _gain(gain: float, interval: list[float]) -> str:
    low, high = interval
    return f"{gain:+.3f} ({low:+.3f} to {high:+.3f})"

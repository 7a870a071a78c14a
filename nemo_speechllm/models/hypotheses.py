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

"""Answers in the form of NeMo's ASR models."""

from typing import Any

import torch
from nemo.collections.asr.parts.utils.rnnt_utils import Hypothesis
from nemo.collections.asr.parts.utils.timestamp_utils import get_segment_offsets

from nemo_speechllm.models.answers import Answer

SEGMENT_SEPARATORS = (".", "!", "?")  # the defaults of NeMo's CTC decoding


def hypothesis_of(answer: Answer, timestamps: bool = False) -> Hypothesis:
    """Return an answer as NeMo's ``Hypothesis``, with ``interventions`` beside what NeMo's have.

    Args:
        answer: the answer.
        timestamps: give it ``timestamp``, a dict of lists: ``word`` and ``segment``, which ends with a full stop, a
            question or an exclamation mark. Each entry has its text under the list's name, ``start`` and ``end`` in
            seconds, and ``start_offset`` and ``end_offset`` in CTC's frames. They are empty where the answer's words
            have no times. Where the words' confidence was asked for it is in ``word_confidence``, and under
            ``confidence`` in the entries of ``word``.
    """
    hypothesis = Hypothesis(score=0.0, y_sequence=torch.tensor(answer.ids), text=answer.text)
    hypothesis.interventions = answer.interventions
    if answer.word_confidence is not None:
        hypothesis.word_confidence = list(answer.word_confidence)
    if timestamps:
        words = _word_offsets(answer)
        hypothesis.timestamp = {"word": words, "segment": get_segment_offsets(words, list(SEGMENT_SEPARATORS))}
    return hypothesis


def _word_offsets(answer: Answer) -> list[dict[str, Any]]:
    if not answer.words or answer.frame_shift is None:
        return []
    confidence = [{"confidence": value} for value in answer.word_confidence or ()] or [{}] * len(answer.words)
    return [
        {
            "word": word.text,
            "start_offset": round(word.start / answer.frame_shift),
            "end_offset": round(word.end / answer.frame_shift),
            "start": word.start,
            "end": word.end,
            **of_word,
        }
        for word, of_word in zip(answer.words, confidence, strict=True)
    ]

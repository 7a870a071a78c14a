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

"""What a model can do whose encoder has a CTC head."""

from collections.abc import Callable

import torch
from torch import Tensor

from nemo_speechllm.data.dataset import ConversationBatch
from nemo_speechllm.decoding.keyword_filter import Evidence
from nemo_speechllm.models.answers import Answer, gather_evidence
from nemo_speechllm.modules.ctc_head import CTCHead
from nemo_speechllm.modules.losses import Mean, no_loss
from nemo_speechllm.modules.perception import Perception


class EncoderCTCMixin:
    """The CTC loss of the encoder's states (``loss.encoder_ctc_weight``) and the answers of ``decoder=ctc``.

    Beside `SpeechLM`; ``ctc_head`` is made in `build_modules`, and may be None.
    """

    perception: Perception
    ctc_head: CTCHead | None
    _transcripts: Callable[[ConversationBatch], dict[int, str]]

    @property
    def has_ctc(self) -> bool:
        """Whether the model was trained with CTC."""
        return self.ctc_head is not None

    def ctc_ids(self, texts: list[str]) -> list[list[int]]:
        """Return texts as pieces of the head's tokenizer."""
        assert self.ctc_head is not None
        return [self.ctc_head.tokenizer.text_to_ids(text) for text in texts]

    def _ctc_frames(self, batch: ConversationBatch) -> tuple[Tensor, Tensor]:
        """Return what the head reads of N audios, (N, T, d), lengths (N,): the encoder's states."""
        return self.perception.encode(batch.audio, batch.audio_lengths)

    def _encoder_ctc_loss(self, batch: ConversationBatch, states: Tensor, lengths: Tensor) -> Mean:
        """Return CTC of those audios whose transcript is known; of none: 0."""
        assert self.ctc_head is not None
        transcripts = {place: text for place, text in self._transcripts(batch).items() if place not in batch.spoken}
        if not transcripts:
            return Mean(no_loss(self.ctc_head, states), 0)
        picked = list(transcripts)
        texts = list(transcripts.values())
        loss = self.ctc_head.loss(states[picked], lengths[picked], texts)
        return Mean(loss, sum(map(len, self.ctc_ids(texts))))

    @torch.inference_mode()
    def _ctc_answers(self, batch: ConversationBatch) -> list[Answer]:
        """Return greedy CTC of the encoder's states; a conversation's audios one after the other.

        Raises:
            ValueError: the model was trained without CTC.
        """
        if self.ctc_head is None:
            raise ValueError(
                f"this {type(self).__name__} was trained without CTC (model.loss.encoder_ctc_weight is 0), so it has "
                "no CTC decoder; use decoder=llm"
            )
        return self._ctc_answers_of(batch, *self._ctc_frames(batch))

    def _ctc_answers_of(self, batch: ConversationBatch, states: Tensor, lengths: Tensor) -> list[Answer]:
        assert self.ctc_head is not None
        transcripts = iter(self.ctc_head.greedy(states, lengths))
        answers = []
        for conversation in batch.conversations:
            read = [next(transcripts) for _ in conversation.audios]
            ids = [token for transcript in read for token in transcript.ids]
            answers.append(Answer(" ".join(item.text for item in read if item.text).strip(), ids, truncated=False))
        return answers

    @torch.inference_mode()
    def ctc_evidence(self, batch: ConversationBatch) -> list[Evidence]:
        """Return what the head makes of each conversation's audio, one audio after the other."""
        states, lengths = self.perception.encode(batch.audio, batch.audio_lengths)
        states, lengths = self._ctc_frames(batch)
        answers = self._ctc_answers_of(batch, states, lengths)
        assert self.ctc_head is not None
        return gather_evidence(batch, answers, (states, lengths), self.ctc_head.log_ratios)

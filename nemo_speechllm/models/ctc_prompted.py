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
"""Prompting Large Language Models with Speech Recognition Abilities (2307.11795)."""

from functools import cached_property
from typing import cast

import torch
from torch import Tensor, nn

from nemo_speechllm.data.conversation import Conversation
from nemo_speechllm.data.dataset import ConversationBatch
from nemo_speechllm.models.decoder_only import DecoderOnlySpeechLM
from nemo_speechllm.models.encoder_ctc import EncoderCTCMixin
from nemo_speechllm.modules.ctc_head import CTCHead, check_has_ctc_head
from nemo_speechllm.modules.encoders import load_asr_model
from nemo_speechllm.modules.segments import mask_text
from nemo_speechllm.segments import Segment

TOKENIZER_NAME = "ctc_tokenizer.model"
WORD_BOUNDARY = "▁"  # SentencePiece's mark of a space


class CTCPromptedLLM(EncoderCTCMixin, DecoderOnlySpeechLM):
    """Conformer trained with CTC → n frames stacked → linear → LLM (section 3).

    The LLM's prompt is the audio and nothing else. The CTC head that the encoder was trained with stays: it may go on
    training (``loss.encoder_ctc_weight``) and it answers where ``decoder`` is ``ctc``. The alignment loss
    (``loss.ctc_weight``) is CTC of the audio embeddings against the same pieces, each as the LLM's embedding of its
    text. In training the LLM may read a mask in place of some tokens of the answer (``text_mask``).

    Raises:
        ValueError: the encoder is not that of a CTC model with a SentencePiece tokenizer, or ``text_mask`` has no
            token to mask with; or ``generation.ctc_weight`` is given.
    """

    ctc_head: CTCHead

    def build_modules(self) -> None:
        """Build what every decoder-only model has, and the CTC head."""
        super().build_modules()
        mask = self.cfg.get("text_mask")
        self._mask_id = self._find_mask_token(mask.get("token")) if mask and mask.fraction > 0 else None

    def _build_ctc(self) -> None:
        """Build stage 1's head, and for the alignment loss what its pieces are in the LLM."""
        self.ctc_head = self._restored_head() if self.is_nemo_file_being_restored() else self._pretrained_head()
        if self.cfg.generation.get("ctc_weight", 0) > 0:
            raise ValueError(
                "model.generation.ctc_weight is for CTC over the LLM's tokens, and this model's CTC reads stage 1's "
                "pieces: set it to 0; decoder=ctc asks CTC alone"
            )
        super()._build_ctc()

    @cached_property
    def _piece_tokens(self) -> tuple[Tensor, Tensor]:
        """The LLM's ids of all pieces' texts, one after the other, and where each piece begins (V,)."""
        pieces = self.ctc_head.tokenizer.ids_to_tokens(range(self.ctc_head.blank))
        texts = [piece.replace(WORD_BOUNDARY, " ") for piece in pieces]
        rows = self.tokenizer(texts, add_special_tokens=False).input_ids
        starts = torch.tensor([0, *map(len, rows[:-1])]).cumsum(0)
        return torch.tensor([token for row in rows for token in row]), starts

    def _ctc_embeddings(self) -> Tensor:
        """Return stage 1's pieces in the LLM, (V, d_llm): the mean of the embeddings of the tokens that spell a piece.

        An LLM's own tokens are too many for CTC to learn from hours of speech: most are met a few times.
        """
        table = self._token_embeddings().detach()
        ids, starts = (part.to(table.device) for part in self._piece_tokens)
        return nn.functional.embedding_bag(ids, table, starts, mode="mean")

    def _pretrained_head(self) -> CTCHead:
        """Return the head of the ASR model whose encoder is taken; its tokenizer goes into every ``.nemo``."""
        reference = self.cfg.perception.encoder.pretrained
        asr_model = check_has_ctc_head(load_asr_model(reference), reference)
        head = self._head_with_tokenizer(asr_model.tokenizer.tokenizer.serialized_model_proto())
        head.decoder.load_state_dict(asr_model.decoder.state_dict())
        return head

    def _restored_head(self) -> CTCHead:
        return self._head_with_tokenizer(self.read_artifact(self.cfg.ctc_head.tokenizer))

    def _head_with_tokenizer(self, tokenizer: bytes) -> CTCHead:
        path = self.keep_file("ctc_head.tokenizer", TOKENIZER_NAME, tokenizer)
        return CTCHead(cast(int, self.perception.encoder.d_model), path)

    def _find_mask_token(self, token: str | None) -> int:
        """Return the token that is read in place of masked ones: the tokenizer's unknown token where none is named."""
        found = self.tokenizer.unk_token_id if token is None else self.tokenizer.get_vocab().get(token)
        if found in (None, self.prompt.end_token_id):
            raise ValueError(
                f"model.text_mask.token is {token}, and the tokenizer of {self.tokenizer.name_or_path} has no such "
                "token beside the one that ends an answer; name one of its special tokens "
                f"({', '.join(self.tokenizer.all_special_tokens)})"
            )
        return found

    def prompt_segments(self, conversation: Conversation) -> list[Segment]:
        """Return the chat template's segments, while training with some of the answer's tokens masked."""
        segments = super().prompt_segments(conversation)
        if self._mask_id is None or not self.training:
            return segments
        mask = self.cfg.text_mask
        name = (mask.get("seed", 0), self.current_epoch, conversation.id)
        return mask_text(segments, mask.fraction, self._mask_id, name)

    def loss(self, batch: ConversationBatch) -> dict[str, Tensor]:
        """Return the decoder-only losses + encoder_ctc_weight · CTC of the encoder's states."""
        if self.cfg.loss.get("encoder_ctc_weight", 0) == 0 or len(batch.audio) == 0:
            return super().loss(batch)
        states, lengths = self.perception.encode(batch.audio, batch.audio_lengths)
        losses = self._losses(batch, self._perceive(batch, (states, lengths)))
        losses["encoder_ctc_loss"] = self._encoder_ctc_loss(batch, states, lengths)
        return self._weighted_sum(losses)

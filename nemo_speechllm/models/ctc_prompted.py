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

from typing import ClassVar

from nemo_speechllm.data.conversation import Conversation
from nemo_speechllm.models.ctc_head_lm import CTCHeadSpeechLM
from nemo_speechllm.models.salm import SALM
from nemo_speechllm.modules.ctc import CTCHead, EmbeddingCTC, check_has_ctc_head
from nemo_speechllm.modules.encoders import load_asr_model
from nemo_speechllm.modules.segments import mask_text
from nemo_speechllm.prompts.segments import Segment
from nemo_speechllm.recipes.models import CTCPromptedRecipe


class CTCPromptedLLM(CTCHeadSpeechLM):
    """Conformer trained with CTC → n frames stacked → linear → LLM (section 3).

    The LLM's prompt is the audio and nothing else. The CTC head that the encoder was trained with stays: it may go on
    training (``loss.encoder_ctc_weight``) and it answers where ``decoder`` is ``ctc``. The alignment loss
    (``loss.ctc_weight``) is CTC of the audio embeddings against the same pieces, each as the LLM's embedding of its
    text. In training the LLM may read a mask in place of some tokens of the answer (``text_mask``).

    With an adapter the head is fresh, reads the adapter's frames and is trained here (``loss.lm_weight`` 0,
    ``encoder_ctc_weight`` 1).

    Raises:
        ValueError: the encoder is not that of a CTC model with a SentencePiece tokenizer, or ``text_mask`` has no
            token to mask with.
    """

    recipe: ClassVar[type] = CTCPromptedRecipe
    deaf_remedy: ClassVar[str] = (
        "align the encoder with the LLM by CTC first (conf/ctc_prompted_llm/stage2_alignment.yaml, "
        "model.loss.ctc_weight), let LoRA train only then, train stage 1 on more voices, or let the LLM read CTC's "
        "posteriors, which it learns from text alone (conf/ctc_prompted_llm/stage2_posterior.yaml)"
    )
    ctc_head: CTCHead

    def build_modules(self) -> None:
        """Build what every decoder-only model has, and the CTC head."""
        super().build_modules()
        mask = self.cfg.text_mask
        self._mask_id = self._find_mask_token(mask.token) if mask and mask.fraction > 0 else None

    def _new_alignment(self) -> EmbeddingCTC:
        """Return CTC of audio embeddings against stage 1's pieces as the LLM embeds their text.

        An LLM's own tokens are too many for CTC to learn from hours of speech: most are met a few times.
        """
        return EmbeddingCTC(self._piece_embeddings, self.ctc_head.ids, self.ctc_head.text)

    def _new_head(self) -> CTCHead:
        """Return stage 1's head; over an adapter a fresh one, of the pieces of ``ctc_head.tokenizer``."""
        return super()._new_head() if self.perception.adapter is not None else self._pretrained_head()

    def _pretrained_head(self) -> CTCHead:
        """Return the head of the ASR model whose encoder is taken; its tokenizer goes into every ``.nemo``."""
        reference = self.cfg.perception.encoder.pretrained
        asr_model = check_has_ctc_head(load_asr_model(reference), reference)
        head = self._head_with_tokenizer(asr_model.tokenizer.tokenizer.serialized_model_proto())
        head.decoder.load_state_dict(asr_model.decoder.state_dict())
        return head

    def check_start(self, start: CTCHeadSpeechLM, name: str) -> None:
        """Refuse a SALM: what its LLM has learned of instructions and keywords would be lost without a word.

        Raises:
            ValueError: it is one.
        """
        if isinstance(start, SALM):
            raise ValueError(
                f"init_from_nemo_model={name} is a SALM, and this recipe makes a {type(self).__name__}, whose prompt "
                "has no instructions and keywords; take a recipe of conf/salm: salm/adapt_to_text for lines of text, "
                "salm/whisper_smollm2_posterior_finetune for recordings"
            )

    def _find_mask_token(self, token: str | None) -> int:
        """Return the token that is read in place of masked ones: the tokenizer's unknown token where none is named."""
        mask_id = self.tokenizer.unk_token_id if token is None else self.tokenizer.get_vocab().get(token)
        if mask_id in (None, self.prompt.end_token_id):
            raise ValueError(
                f"model.text_mask.token is {token}, and the tokenizer of {self.tokenizer.name_or_path} has no such "
                "token beside the one that ends an answer; name one of its special tokens "
                f"({', '.join(self.tokenizer.all_special_tokens)})"
            )
        return mask_id

    def prompt_segments(self, conversation: Conversation) -> list[Segment]:
        """Return the chat template's segments, while training with some of the answer's tokens masked."""
        segments = super().prompt_segments(conversation)
        if self._mask_id is None or not self.training:
            return segments
        mask = self.cfg.text_mask
        name = (mask.seed, self.current_epoch, conversation.id)
        return mask_text(segments, mask.fraction, self._mask_id, name)

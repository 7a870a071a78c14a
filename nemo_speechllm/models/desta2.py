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

"""DeSTA2: a frozen Whisper and a frozen LLM, and a Q-Former between them (2409.20007)."""

from dataclasses import replace
from typing import ClassVar, cast

import torch
from jinja2 import TemplateError

from nemo_speechllm.data.conversation import Audio, Conversation, Turn
from nemo_speechllm.data.dataset import ConversationBatch
from nemo_speechllm.desta.seed import ATTRIBUTES, check_attributes, written_attributes
from nemo_speechllm.models.decoder_only import DecoderOnlySpeechLM
from nemo_speechllm.models.transcriber import AUDIO_ROLE, Transcriber, with_transcriptions
from nemo_speechllm.modules.ctc import frames_needed
from nemo_speechllm.modules.perception import PerceptionOutput
from nemo_speechllm.modules.qformer import QFormer
from nemo_speechllm.modules.segments import LLMInputs
from nemo_speechllm.recipes.models import DeSTA2Recipe


class DeSTA2(DecoderOnlySpeechLM):
    """Whisper's encoder, tapped at several layers → Q-Former → LLM (2409.20007, section 2.2).

    An audio is a message of its own, of the role ``audio``: its embeddings, then its transcription as text; the
    question follows as the user's. The transcription is the manifest's, or else what Whisper's decoder hears. Whisper
    and the LLM are frozen, so without audio the LLM answers as it did before.

    With ``loss.ctc_weight`` the queries also have to write, one token after another, those of ``ctc_attributes`` that
    the clip's seed transcript told: by CTC against the LLM's token embeddings, so it needs no pass through the LLM.
    The paper has no such loss. A frozen LLM tells the adapter little about a clip, and a prompt that is the same for
    all clips is learned first.

    Raises:
        ValueError: the LLM's chat template refuses the role ``audio``, an attribute of ``ctc_attributes`` has no
            wording, or ``generation.ctc_weight`` is to mix this CTC into transcripts.
    """

    recipe: ClassVar[type] = DeSTA2Recipe
    deaf_remedy: ClassVar[str] = (
        "teach the queries by CTC of attributes first (conf/desta2/whisper_base_qwen_warmup.yaml), keep "
        "model.loss.ctc_weight above 0, and train on answers that tell what the transcription in the prompt does not"
    )
    ctc_transcribes: ClassVar[bool] = False  # what it writes are attributes

    def build_modules(self) -> None:
        """Build what every decoder-only model has; Whisper's decoder is loaded when it is first needed."""
        super().build_modules()
        if self.alignment is not None:
            self._check_ctc()
        try:
            self.prompt.segments(
                Conversation("test", [Turn(AUDIO_ROLE, [Audio(torch.zeros(1))]), Turn("user", ["a"])])
            )
        except (TemplateError, ValueError) as error:
            raise ValueError(
                f"the chat template of {self.cfg.llm.pretrained} refuses a message of the role {AUDIO_ROLE!r} before "
                f"the user's ({error}); give one that takes it in model.prompt.chat_template"
            ) from error
        self.transcriber = Transcriber(self.cfg.perception.encoder, self.cfg.transcription.min_voice_seconds)

    def _check_ctc(self) -> None:
        check_attributes(self.cfg.ctc_attributes, "model.ctc_attributes")
        if self.cfg.generation.ctc_weight > 0:
            raise ValueError("model.generation.ctc_weight: DeSTA2's CTC hears attributes and no words; set it to 0")

    def ctc_texts(self, batch: ConversationBatch) -> dict[int, str]:
        """Return what the seed transcript told of single clips of one segment, as far as ``ctc_attributes`` names it.

        Raises:
            ValueError: a text has more tokens than the clip has queries; or nothing is known of a whole batch and
                there is no other loss. The clip is named.
        """
        texts = batch.texts_by_audio(self._attribute_text)
        if not texts and self.cfg.loss.lm_weight == 0:
            raise ValueError(
                f"{batch.conversations[0].id}: neither this line nor any other of its batch has `metadata` of one "
                f"segment with one of model.ctc_attributes={list(self.cfg.ctc_attributes)}, so there is nothing to "
                "learn; make the manifest with examples/data/build_desta.py, or set model.loss.lm_weight"
            )
        return texts

    def _attribute_text(self, conversation: Conversation) -> str | None:
        assert self.alignment is not None, "the loss has a weight"
        metadata = conversation.metadata
        segments = metadata.get("metadata")
        if not isinstance(segments, list) or len(segments) != 1:
            return None
        attributes = set(metadata.get("attributes", ATTRIBUTES)) & set(self.cfg.ctc_attributes)
        text = written_attributes(segments[0]["metadata"], attributes)
        (ids,) = self.alignment.ids([text])
        needed = frames_needed(ids)
        n_queries = cast(QFormer, self.perception.adapter).n_queries
        if needed > n_queries:
            raise ValueError(
                f"{conversation.id}: CTC needs {needed} queries for {text!r} and there are {n_queries}; raise "
                "model.perception.adapter.n_queries or shorten model.ctc_attributes"
            )
        return text or None

    def on_fit_start(self) -> None:
        """Open the cache of transcriptions as well; it serves training alone, too."""
        super().on_fit_start()
        self.transcriber.cache(self.cfg.transcription.cache)

    def on_fit_end(self) -> None:
        """Close the caches."""
        super().on_fit_end()
        self.transcriber.cache(None)

    def prepare_inputs(self, batch: ConversationBatch, perceived: PerceptionOutput) -> LLMInputs:
        """Return what the LLM reads of a batch, each audio with its transcription."""
        transcribed = [
            with_transcriptions(conversation, texts, self.prompt.keywords)
            for conversation, texts in zip(batch.conversations, self.transcriber(batch), strict=True)
        ]
        return super().prepare_inputs(replace(batch, conversations=transcribed), perceived)

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

"""Whisper with its own decoder, behind the same ``generate`` as the speech LMs: what they are compared with."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoTokenizer, WhisperFeatureExtractor, WhisperForConditionalGeneration

from nemo_speechllm import assets
from nemo_speechllm.data.conversation import SAMPLE_RATE, Conversation
from nemo_speechllm.data.conversation_check import check_conversations
from nemo_speechllm.data.dataset import in_batches
from nemo_speechllm.languages import base_language
from nemo_speechllm.models.answers import Answer
from nemo_speechllm.models.baseline import Baseline
from nemo_speechllm.modules.linear import pack_weights
from nemo_speechllm.recipes.generation import WINDOW_SECONDS
from nemo_speechllm.versions import named


class WhisperBaseline(Baseline):
    """Hugging Face's Whisper, greedy, on conversations of one audio each; the instruction is not read.

    Args:
        reference: asset name, folder or hub id of a Whisper model.

    Raises:
        nemo_speechllm.assets.AssetError: it cannot be found.
    """

    whisper: WhisperForConditionalGeneration

    def __init__(self, reference: str):
        folder = assets.resolve(reference)
        whisper = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        # the limit is given in new tokens; both together are a warning on every batch
        whisper.generation_config.max_length = None
        # OpenAI's own decoder stops at half the text context, too
        limit = whisper.config.max_target_positions // 2
        super().__init__(limit, {"asr": "Transcribe the speech."}, whisper=whisper)
        pack_weights(self)
        self.feature_extractor = WhisperFeatureExtractor.from_pretrained(folder)
        self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)

    @torch.inference_mode()
    def generate(
        self,
        conversations: list[Conversation],
        batch_size: int = 8,
        max_new_tokens: int | None = None,
        beam_size: int | None = None,
        decoder: str | None = None,
    ) -> list[Answer]:
        """Return transcripts in order. The language is the metadata's ``lang``; without one Whisper detects it.

        Audio beyond 30 s is decoded window by window with Whisper's timestamps; such an answer is never reported as
        cut.

        Args:
            conversations: of one audio each.
            batch_size: how many are decoded together, at most; those of different languages are not.
            max_new_tokens, beam_size: None takes Whisper's 224 and greedy search.
            decoder: None; Whisper has its own and no other.

        Raises:
            ValueError: a ``decoder`` was asked for, a conversation has no audio or several, a language is unknown to
                Whisper, or ``max_new_tokens`` or ``beam_size`` is less than 1.
        """
        conversations = check_conversations(conversations)
        limits = self.generation_limits(max_new_tokens, beam_size, decoder)
        options = {"max_new_tokens": limits["max_new_tokens"], "num_beams": limits["beam_size"]}
        answers: dict[int, Answer] = {}
        for (language, is_long), indices in self._groups(conversations).items():
            for batch in in_batches(indices, 1 if is_long else batch_size):
                audio = [conversations[index].audios[0].load().numpy() for index in batch]
                answers |= zip(batch, self._decode(audio, language, is_long, options), strict=True)
        return [answers[index] for index in range(len(conversations))]

    def _groups(self, conversations: list[Conversation]) -> dict[tuple[str | None, bool], list[int]]:
        """Return indices of what may be decoded together, by (language, longer than a window)."""
        groups: dict[tuple[str | None, bool], list[int]] = {}
        for index, conversation in enumerate(conversations):
            if len(conversation.audios) != 1:
                raise ValueError(
                    f"{conversation.id}: Whisper transcribes one audio at a time, this has {len(conversation.audios)}"
                )
            language = conversation.metadata.get("lang")
            key = (base_language(language), conversation.audios[0].duration > WINDOW_SECONDS)
            groups.setdefault(key, []).append(index)
        return groups

    def _decode(self, audio: list, language: str | None, is_long: bool, options: dict[str, Any]) -> list[Answer]:
        given = named(
            self.feature_extractor.__call__,
            sampling_rate=SAMPLE_RATE,
            truncation=not is_long,
            padding="longest" if is_long else "max_length",
            return_attention_mask=True,
            return_tensors="pt",
        )
        features = self.feature_extractor(audio, **given).to(self.whisper.device)
        return self.write(
            language,
            input_features=features.input_features,
            attention_mask=features.attention_mask,
            return_timestamps=is_long,
            **options,
        )

    def write(self, language: str | None, max_new_tokens: int, **options: Any) -> list[Answer]:
        """Return what Whisper's decoder writes, greedily unless told otherwise.

        Args:
            language: Whisper's code or token; None: it guesses.
            max_new_tokens: of an answer; audio beyond a window (``return_timestamps``) has them for each.
            options: of Hugging Face's ``generate``, ``input_features`` or ``encoder_outputs`` among them.
        """
        # English-only models refuse to be told
        if self.is_multilingual:
            options = options | {"language": language, "task": "transcribe"}
        with _without_warnings_of_limits():
            rows = self.whisper.generate(do_sample=False, max_new_tokens=max_new_tokens, **options).tolist()
        is_long = options.get("return_timestamps", False)
        written = [len(row) - row.count(self.tokenizer.eos_token_id) for row in rows]
        return [
            self._answer(row, truncated=not is_long and count >= max_new_tokens)
            for row, count in zip(rows, written, strict=True)
        ]

    def _answer(self, row: list[int], truncated: bool) -> Answer:
        ids = [token for token in row if token not in self.tokenizer.all_special_ids]
        return Answer(str(self.tokenizer.decode(ids)).strip(), ids, truncated)

    @property
    def is_multilingual(self) -> bool:
        """Whether the decoder is told the language."""
        return bool(self.whisper.generation_config.is_multilingual)  # type: ignore[attr-defined]  # Whisper's has it


@contextmanager
def _without_warnings_of_limits() -> Iterator[None]:
    """Keep Hugging Face from warning of two limits in every call, of which Whisper's ``generate`` gives one."""
    logger = logging.getLogger("transformers.generation.utils")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)

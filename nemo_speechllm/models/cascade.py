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

"""Whisper, then an LLM that reads its transcription: what a speech LM must beat to have heard more than words."""

import torch
from omegaconf import OmegaConf
from torch import nn
from transformers import AutoTokenizer

from nemo_speechllm import assets
from nemo_speechllm.data.conversation import Audio, Conversation, Turn
from nemo_speechllm.data.dataset import ConversationBuilder, ConversationDataset, in_batches
from nemo_speechllm.data.prompt import ChatPrompt
from nemo_speechllm.decoding.generate import generate_ids
from nemo_speechllm.models.answers import Answer, generation_options
from nemo_speechllm.models.transcriber import Transcriber, with_transcriptions
from nemo_speechllm.modules.llm import load_llm
from nemo_speechllm.modules.segments import join_segments


class Cascade(nn.Module):
    """DeSTA2's prompt without the audio's embeddings, to the same LLM, behind the same ``generate``.

    Args:
        whisper: asset name, folder or hub id of a Whisper model.
        llm: of an LLM with a chat template.

    Raises:
        nemo_speechllm.assets.AssetError: one of them cannot be found.
    """

    def __init__(self, whisper: str, llm: str):
        super().__init__()
        folder = assets.resolve(llm)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.prompt = ChatPrompt(self.tokenizer)
        self.llm = load_llm(folder).eval()
        self.transcriber = Transcriber(OmegaConf.create({"pretrained": whisper}))
        # NeMo restores its models onto the GPU where there is one
        self.to("cuda" if torch.cuda.is_available() else "cpu")
        self.cfg = OmegaConf.create(
            {
                "prompt": {"instructions": {"asr": "Transcribe the speech."}},
                "generation": {"max_new_tokens": 128, "beam_size": 1},
            }
        )
        self.builder = ConversationBuilder(self.cfg.prompt)

    @torch.inference_mode()
    def generate(
        self,
        conversations: list[Conversation],
        batch_size: int = 8,
        max_new_tokens: int | None = None,
        beam_size: int | None = None,
    ) -> list[Answer]:
        """Answers in order; arguments are those of `SpeechLM.generate`."""
        options = generation_options(self.cfg.generation, max_new_tokens, beam_size)
        answers = []
        for batch in in_batches(conversations, batch_size):
            answers += self._answer(batch, options)
        return answers

    def _answer(self, conversations: list[Conversation], options: dict) -> list[Answer]:
        batch = ConversationDataset(self.builder).collate(conversations)
        transcribed = map(with_transcriptions, conversations, self.transcriber(batch))
        prompts = [self.prompt.segments(_without_audio(conversation.without_answer())) for conversation in transcribed]
        inputs = join_segments(prompts, [[] for _ in prompts], self.llm.get_input_embeddings())
        limits = {name: options[name] for name in ("max_new_tokens", "beam_size")}
        ids, truncated = generate_ids(self.llm, inputs, self.prompt.end_token_id, **limits)
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [Answer(text.strip(), row, bool(cut)) for text, row, cut in zip(texts, ids, truncated)]


def _without_audio(conversation: Conversation) -> Conversation:
    turns = [
        Turn(turn.role, [part for part in turn.parts if not isinstance(part, Audio)]) for turn in conversation.turns
    ]
    return Conversation(conversation.id, turns, conversation.metadata)

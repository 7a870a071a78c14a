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

"""Speech recognition, then an LLM that reads the transcription.

A speech LM must beat it to have heard more than words.
"""

import torch
from transformers import AutoTokenizer, PreTrainedModel

from nemo_speechllm import assets
from nemo_speechllm.data.conversation import Audio, Conversation, Question, Turn
from nemo_speechllm.data.conversation_check import check_conversations
from nemo_speechllm.data.dataset import ConversationDataset, in_batches
from nemo_speechllm.decoding.generate import generate_ids
from nemo_speechllm.decoding.rescoring import AnswerScore, score_answers
from nemo_speechllm.models.answers import Answer
from nemo_speechllm.models.baseline import Baseline
from nemo_speechllm.models.speech_lm import SpeechLM
from nemo_speechllm.models.transcriber import Transcriber
from nemo_speechllm.modules.llm import load_llm
from nemo_speechllm.modules.segments import LLMInputs, join_segments
from nemo_speechllm.prompts.chat_prompt import ChatPrompt
from nemo_speechllm.recipes.sections import WhisperEncoder

MAX_NEW_TOKENS = 128
TRANSCRIPTION = 'Transcription of the audio: "{}"\n'
INSTRUCTIONS = {"asr": "Transcribe the speech.", "ast": "Translate the speech into {target_language}."}


class Cascade(Baseline):
    """An LLM that is asked what a speech LM is, with the transcription in the audio's place.

    It stands in the user's message, which any chat template takes.

    Args:
        recognizer: what transcribes.
        llm: asset name, folder or hub id of an LLM with a chat template.

    Raises:
        nemo_speechllm.assets.AssetError: the LLM cannot be found.
    """

    llm: PreTrainedModel

    def __init__(self, recognizer: SpeechLM | Baseline, llm: str):
        folder = assets.resolve(llm)
        super().__init__(MAX_NEW_TOKENS, INSTRUCTIONS, llm=load_llm(folder), recognizer=recognizer)
        self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        self.prompt = ChatPrompt(self.tokenizer)
        self.transcriber = Transcriber(WhisperEncoder("whisper"), recognizer=recognizer)

    @torch.inference_mode()
    def generate(
        self,
        conversations: list[Conversation],
        batch_size: int = 8,
        max_new_tokens: int | None = None,
        beam_size: int | None = None,
        decoder: str | None = None,
    ) -> list[Answer]:
        """Return answers in order; arguments are those of `SpeechLM.generate`.

        They are the LLM's: the recogniser keeps its own.

        Raises:
            ValueError: a ``decoder`` was asked for, or ``max_new_tokens`` or ``beam_size`` is less than 1.
        """
        conversations = check_conversations(conversations)
        limits = self.generation_limits(max_new_tokens, beam_size, decoder)
        answers: list[Answer] = []
        for batch in in_batches(conversations, batch_size):
            answers += self._answer(batch, limits)
        return answers

    @torch.inference_mode()
    def score_answers(self, conversations: list[Conversation], answers: list[list[str]]) -> list[list[AnswerScore]]:
        """Return how likely the LLM finds each answer; see `ScoresAnswers`. Each audio is transcribed once.

        Raises:
            TypeError, ValueError: they are no conversations that ask something; see `check_conversations`.
        """
        inputs = self._inputs(check_conversations(conversations))
        return score_answers(self.llm, inputs, [self.prompt.answer_ids(texts) for texts in answers])

    def _inputs(self, conversations: list[Conversation]) -> LLMInputs:
        """Return what the LLM reads of conversations, up to where it is to speak."""
        batch = ConversationDataset(self.builder).collate(conversations)
        transcribed = map(_in_text, conversations, self.transcriber(batch))
        prompts = [self.prompt.segments(conversation.without_answer()) for conversation in transcribed]
        return join_segments(prompts, [[] for _ in prompts], self.llm.get_input_embeddings())

    def _answer(self, conversations: list[Conversation], limits: dict[str, int]) -> list[Answer]:
        ids, truncated = generate_ids(
            self.llm,
            self._inputs(conversations),
            self.prompt.end_token_id,
            max_new_tokens=limits["max_new_tokens"],
            beam_size=limits["beam_size"],
        )
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [Answer(text.strip(), row, bool(cut)) for text, row, cut in zip(texts, ids, truncated, strict=True)]


def _in_text(conversation: Conversation, transcriptions: list[str]) -> Conversation:
    texts = iter(transcriptions)
    turns: list[Turn | Question] = [
        Turn(
            turn.role, [TRANSCRIPTION.format(next(texts)) if isinstance(part, Audio) else part for part in turn.parts]
        )
        for turn in conversation.rendered()
    ]
    return Conversation(conversation.id, turns, conversation.metadata)

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

"""Answering: long recordings in pieces, long keyword lists cut to the likely, generation, guards, times of words."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from threading import RLock
from typing import Protocol

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from nemo_speechllm.data.conversation import Conversation
from nemo_speechllm.data.conversation_check import check_conversations, check_ctc_can_answer
from nemo_speechllm.data.dataset import (
    ConversationBatch,
    ConversationBuilder,
    ConversationDataset,
    asks_for_translation,
    place_of,
)
from nemo_speechllm.decoding.guards import RETRY_BEAM_SIZE, chosen_guards, find_fault
from nemo_speechllm.decoding.keyword_filter import Evidence, KeywordFilter
from nemo_speechllm.decoding.keyword_memo import KeywordMemo
from nemo_speechllm.decoding.word_confidence import Calibration, word_evidence
from nemo_speechllm.decoding.word_times import Alignment, find_words
from nemo_speechllm.errors import InputError
from nemo_speechllm.models.answers import Answer, AnsweredPiece, joined_pieces
from nemo_speechllm.models.segmentation import Piece, batches_of, split_long_audio
from nemo_speechllm.modules.ctc import CTC
from nemo_speechllm.modules.memory import give_back_free_memory
from nemo_speechllm.modules.perception import Perception, PerceptionOutput, States


class AnsweringModel(Protocol):
    """What is asked of a model that answers; every `SpeechLM` is one."""

    cfg: DictConfig
    builder: ConversationBuilder
    perception: Perception

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""

    @property
    def ctc(self) -> CTC | None:
        """What reads text in audio beside the text decoder, where the model was trained with it."""

    @property
    def trained_decoder(self) -> str:
        """What the model was trained to answer with, ``llm`` or ``ctc``."""

    def perceive(self, batch: ConversationBatch) -> PerceptionOutput:
        """Encode a batch's audios."""

    def ctc_states(self, perceived: PerceptionOutput) -> States:
        """Return what `ctc` reads."""

    def ctc_log_probs(self, perceived: PerceptionOutput) -> Tensor:
        """Return what `ctc` makes of it."""

    def generate_answers(
        self, batch: ConversationBatch, perceived: PerceptionOutput, max_new_tokens: int, beam_size: int
    ) -> list[Answer]:
        """Return the text decoder's answers."""

    def word_log_probs(
        self, batch: ConversationBatch, perceived: PerceptionOutput, texts: list[str]
    ) -> list[list[float]]:
        """Return how likely the text decoder finds each word of an answer to each conversation, given those before."""


class Answering:
    """Answers conversations with a model, batch by batch and one thread at a time.

    Args:
        model: in evaluation mode whenever it is asked; it is left as it is.
    """

    def __init__(self, model: AnsweringModel):
        self.model = model
        self._lock = _Lock()
        self._keyword_filters: KeywordMemo[KeywordFilter] = KeywordMemo()

    def answer(
        self,
        conversations: Iterable[Conversation],
        batch_size: int,
        timestamps: bool = False,
        confidence: bool = False,
        **options,
    ) -> list[Answer]:
        """Return answers in order; see `answer_pieces`."""
        batches = self.answer_pieces(conversations, batch_size, None, timestamps, confidence, **options)
        return list(joined_pieces(chain.from_iterable(batches)))

    @torch.inference_mode()
    def answer_pieces(
        self,
        conversations: Iterable[Conversation],
        batch_size: int,
        batch_duration: float | None = None,
        timestamps: bool = False,
        confidence: bool = False,
        **options,
    ) -> Iterator[list[AnsweredPiece]]:
        """Yield answers in order, batch by batch, as they are found.

        A long recording is cut at pauses while it is read. A batch is of pieces, whosever they are, and no more is in
        memory: recordings are opened when their turn comes.

        Args:
            conversations: they are all checked before the first is answered.
            batch_size, batch_duration: see `batches_of`.
            timestamps, confidence: say when each word is said, and how probably it is right; see `require_transcript`.
            options: see `nemo_speechllm.models.answers.generation_options`.

        Raises:
            TypeError, ValueError: they are no conversations that ask something; see `check_conversations`.
            ValueError: the model is in training mode, or lacks the CTC that an option, guard or keyword list needs.
        """
        conversations = check_conversations(conversations)
        for purpose in [name for name, asked in (("timestamps", timestamps), ("confidence", confidence)) if asked]:
            require_transcript(self.model, conversations, purpose)
        collate = ConversationDataset(self.model.builder).collate
        for pieces in batches_of(self._pieces(conversations), batch_size, batch_duration):
            if not all(piece.is_last for piece in pieces):
                give_back_free_memory()
            batch = collate([piece.conversation for piece in pieces]).to(self.model.device)
            with self._lock:
                answers = self.answer_batch(batch, timestamps, confidence, **options)
            yield [
                AnsweredPiece(answer, piece.start, piece.start + piece.seconds, piece.is_last)
                for piece, answer in zip(pieces, answers, strict=True)
            ]

    def answer_batch(
        self, batch: ConversationBatch, timestamps: bool = False, confidence: bool = False, **options
    ) -> list[Answer]:
        """Return answers to the conversations of a batch: encode its audio, choose keywords, generate, guard, time."""
        require_evaluation_mode(self.model)
        perceived = self.model.perceive(batch)
        batch = self._with_likely_keywords(batch, perceived)
        answers = self._guarded(batch, perceived, self.generate(batch, perceived, **options), **options)
        alignments = self._alignments(batch, perceived, answers) if timestamps or confidence else []
        answers = self._timed(batch, perceived, answers, alignments) if timestamps else answers
        return self._with_confidence(batch, perceived, answers, alignments) if confidence else answers

    def generate(
        self,
        batch: ConversationBatch,
        perceived: PerceptionOutput,
        max_new_tokens: int,
        beam_size: int,
        decoder: str | None = None,
    ) -> list[Answer]:
        """Return answers as they are generated; the conversations' own answers, if any, are not read.

        Args:
            batch: the conversations.
            perceived: what perception made of their audios.
            max_new_tokens, beam_size: of the text decoder.
            decoder: ``llm``, the text decoder, or ``ctc``; None: what the model was trained for.

        Raises:
            ValueError: ``decoder`` is ``ctc``, and the model has none or a conversation no audio.
        """
        if (decoder or self.model.trained_decoder) == "llm":
            return self.model.generate_answers(batch, perceived, max_new_tokens, beam_size)
        check_ctc_can_answer(batch.conversations)
        return self.ctc_answers(batch, perceived)

    def ctc_answers(self, batch: ConversationBatch, perceived: PerceptionOutput) -> list[Answer]:
        """Return CTC's best path in each conversation, one audio after the other; nothing where there is no audio.

        Raises:
            ValueError: the model was trained without CTC.
        """
        ctc = self.model.ctc
        if ctc is None:
            raise InputError(
                f"this {type(self.model).__name__} was trained without CTC (model.loss.ctc_weight or, of a CTC head, "
                "encoder_ctc_weight is 0), so it has no CTC decoder; use decoder=llm"
            )
        _, lengths = self.model.ctc_states(perceived)
        transcripts = iter(ctc.greedy(self.model.ctc_log_probs(perceived), lengths))
        answers = []
        for conversation in batch.conversations:
            read = [next(transcripts) for _ in conversation.audios]
            text = " ".join(stripped for item in read if (stripped := item.text.strip()))
            answers.append(Answer(text, [token for item in read for token in item.ids], truncated=False))
        return answers

    def evidence(self, batch: ConversationBatch, perceived: PerceptionOutput) -> list[Evidence]:
        """Return CTC's text of each conversation with its scores of any token, one audio after the other."""
        ctc = require_transcripts(self.model, "evidence")
        states, lengths = self.model.ctc_states(perceived)
        silence = states.new_zeros(0, states.shape[-1])
        return [
            Evidence(answer.text, partial(ctc.log_ratios, torch.cat([silence, *audios])))
            for answer, audios in zip(
                self.ctc_answers(batch, perceived), batch.by_conversation(states, lengths), strict=True
            )
        ]

    def _pieces(self, conversations: Iterable[Conversation]) -> Iterator[Piece]:
        """Yield the pieces of all conversations, in order."""
        for conversation in conversations:
            yield from split_long_audio(conversation, self.model.cfg.generation.max_audio_seconds)

    def _with_likely_keywords(self, batch: ConversationBatch, perceived: PerceptionOutput) -> ConversationBatch:
        """Return the batch with at most ``generation.max_keywords`` in a prompt: those that CTC may have heard."""
        limit = self.model.cfg.generation.max_keywords
        lists = [item.question.keywords if item.question else [] for item in batch.conversations]
        longest = max(map(len, lists), default=0)
        if limit is None or longest <= limit:
            return batch
        for item, keywords in zip(batch.conversations, lists, strict=True):
            if len(keywords) > limit and asks_for_translation(item):
                raise InputError(
                    f"{item.id}: {len(keywords)} keywords of a translation, more than "
                    f"generation.max_keywords={limit}: CTC hears the language that is spoken and cannot choose among "
                    "them; give fewer, or set model.generation.max_keywords=null"
                )
        ctc = require_transcripts(self.model, f"{longest} keywords, more than generation.max_keywords={limit}")
        new_filter = partial(KeywordFilter, ctc_ids=ctc.ids)
        conversations = [
            item.with_question(prompted=self._keyword_filters.get(keywords, new_filter).select(evidence, limit))
            if len(keywords) > limit
            else item
            for item, keywords, evidence in zip(
                batch.conversations, lists, self.evidence(batch, perceived), strict=True
            )
        ]
        return replace(batch, conversations=conversations)

    def _guarded(
        self, batch: ConversationBatch, perceived: PerceptionOutput, answers: list[Answer], **options
    ) -> list[Answer]:
        """Return answers with transcripts that show a fault of ``generation.guards`` replaced."""
        guards = chosen_guards(self.model.cfg.generation.guards)
        heard: list[list[str]] = [[] for _ in answers]
        if "disagreement" in guards:
            require_transcripts(self.model, "guards: disagreement")
            if len(batch.audio):  # there is something to hear
                of_ctc = self.ctc_answers(batch, perceived)
                heard = [[ctc.text, *answer.also_heard] for ctc, answer in zip(of_ctc, answers, strict=True)]
        guarded, start = list(answers), 0
        for index, item in enumerate(batch.split() if guards else []):
            rows = slice(start, start := start + len(item.audio))
            if item.conversations[0].task != "asr" or len(item.audio) != 1:
                continue
            answer = answers[index]
            fault = find_fault(list(guards), answer.text, item.audio[0], heard[index], answer.truncated)
            if fault is not None:
                answer = self._answer_instead(guards[fault], item, perceived.select(rows), **options)
                guarded[index] = replace(answer, interventions=(f"{fault}: {guards[fault]}",))
        return guarded

    def _answer_instead(self, action: str, item: ConversationBatch, perceived: PerceptionOutput, **options) -> Answer:
        """Return what a guard gives in the place of an answer."""
        if action == "empty":
            return Answer("", [], truncated=False)
        if action == "ctc":
            require_transcripts(self.model, "guards: ctc")
            return self.ctc_answers(item, perceived)[0]
        beam_size = max(RETRY_BEAM_SIZE, options["beam_size"])
        return self.generate(item, perceived, **options | {"beam_size": beam_size})[0]

    def _alignments(
        self, batch: ConversationBatch, perceived: PerceptionOutput, answers: list[Answer]
    ) -> list[Alignment]:
        """Return how CTC reads answers to conversations of one audio each."""
        assert self.model.ctc is not None, "`require_transcript` has seen to it"
        log_probs = batch.by_conversation(self.model.ctc_log_probs(perceived), self.model.ctc_states(perceived)[1])
        return [
            Alignment(self.model.ctc, of_ctc, answer.text)
            for answer, (of_ctc,) in zip(answers, log_probs, strict=True)
        ]

    def _timed(
        self,
        batch: ConversationBatch,
        perceived: PerceptionOutput,
        answers: list[Answer],
        alignments: list[Alignment],
    ) -> list[Answer]:
        """Return answers to conversations of one audio each with the times of their words."""
        shift = self.model.perception.shift_of(perceived, self.model.ctc_states(perceived))
        samples = batch.by_conversation(batch.audio, batch.audio_lengths)
        return [
            replace(answer, words=find_words(place_of(item), alignment, shift, *audio), frame_shift=shift)
            for item, answer, alignment, audio in zip(batch.conversations, answers, alignments, samples, strict=True)
        ]

    def _with_confidence(
        self,
        batch: ConversationBatch,
        perceived: PerceptionOutput,
        answers: list[Answer],
        alignments: list[Alignment],
    ) -> list[Answer]:
        """Return answers to conversations of one audio each with how probably each word is right."""
        calibration = Calibration(**self.model.cfg.generation.confidence)
        of_decoder = self.model.word_log_probs(batch, perceived, [answer.text for answer in answers])
        confident = []
        for answer, alignment, of_words in zip(answers, alignments, of_decoder, strict=True):
            evidence = tuple(word_evidence(alignment, of_words, answer.heard_log_probs))
            confidence = tuple(map(calibration, evidence))
            confident.append(replace(answer, word_evidence=evidence, word_confidence=confidence))
        return confident


class _Lock:
    """A lock for one answering thread at a time; a copy of the model, also in another process, has its own."""

    def __init__(self) -> None:
        self._lock = RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple:
        return _Lock, ()


def require_evaluation_mode(model: AnsweringModel) -> None:
    """Refuse a model in training mode, whose dropout and masks would change what it answers.

    Raises:
        ValueError: it is.
    """
    if isinstance(model, nn.Module) and any(module.training for module in model.modules()):
        raise ValueError(
            f"this {type(model).__name__} is in training mode, whose dropout and masks change answers; call "
            "model.eval() first, and model.train() to go on training"
        )


def require_transcripts(model: AnsweringModel, purpose: str) -> CTC:
    """Return the model's CTC, where it reads what is said.

    Raises:
        ValueError: there is none; the message begins with the purpose.
    """
    if model.ctc is None or not model.ctc.transcribes:
        raise InputError(
            f"{purpose}: this needs CTC's hypothesis, and this {type(model).__name__} has none that hears words; "
            "give fewer keywords and other guards, or set model.generation.max_keywords=null, "
            "model.generation.guards=null and model.generation.draft=null"
        )
    return model.ctc


def require_transcript(model: AnsweringModel, conversations: Sequence[Conversation], purpose: str) -> None:
    """Refuse to tell of the words of answers that are no transcripts, or that CTC does not hear.

    Args:
        purpose: what is to be told, ``timestamps`` or ``confidence``.

    Raises:
        ValueError: the model has no CTC that hears words, or a conversation asks for something else than the
            transcript of one audio; it is named.
    """
    if model.ctc is None or not model.ctc.transcribes:
        raise InputError(
            f"{purpose}: of words it is CTC's, and this {type(model).__name__} has none that hears words; "
            f"leave {purpose} unset, or ask a model that was trained with model.loss.ctc_weight or "
            "encoder_ctc_weight above 0"
        )
    for conversation in conversations:
        if conversation.task != "asr" or len(conversation.audios) != 1:
            raise InputError(
                f"{place_of(conversation)}: only the transcript of one audio has {purpose}, and this asks for "
                f"{conversation.task or 'something of its own'} of {len(conversation.audios)}; leave {purpose} "
                "unset, or leave the instruction to the recipe (where yours does ask for a transcript, add "
                "task: asr to the line or the prompt)"
            )

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
"""Decoder-only models with a CTC head of small vocabulary, whose LLM may read what the head hears."""

import tempfile
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar, cast

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from nemo_speechllm.checkpointing.archive import unpack
from nemo_speechllm.data.conversation import Conversation
from nemo_speechllm.data.dataset import ConversationBatch, place_of
from nemo_speechllm.decoding.joint import JointCTCScores
from nemo_speechllm.decoding.keyword_memo import KeywordMemo
from nemo_speechllm.decoding.keyword_preference import KeywordPreference
from nemo_speechllm.decoding.rescoring import (
    N_HYPOTHESES,
    Hypothesis,
    answer_log_probs,
    ctc_hypotheses,
)
from nemo_speechllm.errors import InputError
from nemo_speechllm.models.answers import Answer
from nemo_speechllm.models.decoder_only import DecoderOnlySpeechLM
from nemo_speechllm.models.shipped import shipped_models
from nemo_speechllm.models.whisper_reader import WhisperReader, WhisperReading
from nemo_speechllm.modules.ctc import CTC, CTCHead
from nemo_speechllm.modules.ctc_posterior import (
    PosteriorBank,
    PosteriorEmbedding,
    PosteriorSimulator,
    pad_posteriors,
    piece_posteriors,
)
from nemo_speechllm.modules.losses import Mean
from nemo_speechllm.modules.perception import PerceptionOutput, States
from nemo_speechllm.prompts.segments import AudioSegment, Segment, TextSegment
from nemo_speechllm.randomness import named_random
from nemo_speechllm.recipes.models import CTCHeadRecipe

TOKENIZER_KEY, TOKENIZER_NAME = "ctc_head.tokenizer", "ctc_tokenizer.model"
BANK_KEY, BANK_NAME = "ctc_posterior.bank", "posteriors.npz"
WORD_BOUNDARY = "▁"  # SentencePiece's mark of a space


class CTCHeadSpeechLM(DecoderOnlySpeechLM):
    """perception → LLM, and beside it perception → CTC over the pieces of a tokenizer (``ctc_head``).

    The head reads the adapter's frames, or without one the encoder's states; it is trained by
    ``loss.encoder_ctc_weight`` and answers where ``decoder`` is ``ctc``. With ``ctc_posterior`` the LLM reads what the
    head hears in place of projected frames (see `PosteriorEmbedding`), and may learn to from lines of text
    (``input_cfg`` of type ``txt`` or ``txt_jsonl``), of which a `PosteriorSimulator` makes up what would be heard.

    Raises:
        ValueError: ``ctc_posterior`` or ``loss.encoder_ctc_weight`` without a head, or ``generation.ctc_weight`` and
            no CTC at all.
    """

    recipe: ClassVar[type] = CTCHeadRecipe
    ctc_head: CTCHead | None

    def _build_ctc(self) -> None:
        """Build the head, what the LLM reads of it, and CTC of the audio embeddings, each where the recipe has it."""
        self.ctc_head = self._build_head() if self.cfg.ctc_head is not None else None
        posterior = self.cfg.ctc_posterior
        if self.ctc_head is None and (posterior or self.cfg.loss.encoder_ctc_weight > 0):
            raise ValueError(
                "model.ctc_posterior and model.loss.encoder_ctc_weight need a CTC head: name its SentencePiece model "
                "in model.ctc_head.tokenizer"
            )
        super()._build_ctc()
        self._preferences: KeywordMemo[KeywordPreference] = KeywordMemo()
        self.posterior = PosteriorEmbedding(self._piece_embeddings()) if posterior else None
        self._simulator = self._build_simulator(posterior) if posterior and posterior.bank else None
        self.whisper_reader = WhisperReader(self.cfg.perception.encoder)
        if self.cfg.generation.whisper_weight > 0:
            self.whisper_reader.require()

    def _build_head(self) -> CTCHead:
        saved = self.kept_files.saved(TOKENIZER_KEY)
        return self._new_head() if saved is None else self._head_with_tokenizer(saved)

    def _new_head(self) -> CTCHead:
        """Return a fresh head of the pieces of ``ctc_head.tokenizer``."""
        key, made_by = "model.ctc_head.tokenizer", "examples/data/train_tokenizer.py makes a SentencePiece model"
        return self._head_with_tokenizer(read_part(self.cfg.ctc_head.tokenizer, TOKENIZER_NAME, key, made_by))

    def _head_with_tokenizer(self, tokenizer: bytes) -> CTCHead:
        path = self.kept_files.keep(TOKENIZER_KEY, TOKENIZER_NAME, tokenizer)
        width = self.perception.d_adapted if self.perception.adapter else self.perception.encoder.d_model
        return CTCHead(cast(int, width), path)

    def _build_simulator(self, cfg: DictConfig) -> PosteriorSimulator | None:
        """Return what makes up posteriors of text; it serves training alone, so a restored model has none.

        The bank of which they are made goes into every checkpoint, for who adapts it to texts of his own.
        """
        saved = self.kept_files.saved(BANK_KEY)
        if saved is not None:
            self.kept_files.keep(BANK_KEY, BANK_NAME, saved)
            return None
        made_by = "examples/data/measure_posteriors.py makes one"
        bank = read_part(cfg.bank, BANK_NAME, "model.ctc_posterior.bank", made_by)
        path = self.kept_files.keep(BANK_KEY, BANK_NAME, bank)
        return PosteriorSimulator(PosteriorBank.load(path), self._head.blank)

    def maybe_init_from_pretrained_checkpoint(self, cfg: DictConfig, map_location: str = "cpu") -> None:
        """Take weights from where ``init_from_…`` says; a ``.nemo`` may be that of another model with such a head.

        It may be named as one of those that come with the package.

        Raises:
            ValueError: this model cannot go on from that one; see `check_start`.
        """
        path = cfg.get("init_from_nemo_model")
        if not isinstance(path, str):
            return super().maybe_init_from_pretrained_checkpoint(cfg, map_location)
        name, path = path, shipped_models().get(path, path)
        start = CTCHeadSpeechLM.restore_from(path, map_location=torch.device(map_location))
        self.check_start(start, name)
        self.load_state_dict(start.state_dict(), strict=False)

    def check_start(self, start: "CTCHeadSpeechLM", name: str) -> None:
        """Refuse a model, the checkpoint ``name``, from which this one cannot go on; any will do here."""

    @property
    def ctc(self) -> CTC | None:
        """The head; without one CTC of the audio embeddings."""
        return self.ctc_head if self.ctc_head is not None else self.alignment

    @property
    def _head(self) -> CTCHead:
        assert self.ctc_head is not None, "`_build_ctc` has seen to it"
        return self.ctc_head

    def ctc_states(self, perceived: PerceptionOutput) -> States:
        """Return what the head reads, the adapter's frames or without one the encoder's states; see `ctc`."""
        if self.ctc_head is None:
            return super().ctc_states(perceived)
        return perceived.encoded if self.perception.adapter is None else perceived.adapted

    @cached_property
    def _piece_tokens(self) -> tuple[Tensor, Tensor]:
        """The LLM's ids of all pieces' texts, one after the other, and where each piece begins (V,)."""
        pieces = self._head.tokenizer.ids_to_tokens(range(self._head.blank))
        texts = [piece.replace(WORD_BOUNDARY, " ") for piece in pieces]
        rows = self.tokenizer(texts, add_special_tokens=False).input_ids
        starts = torch.tensor([0, *map(len, rows[:-1])]).cumsum(0)
        return torch.tensor([token for row in rows for token in row]), starts

    def _piece_embeddings(self) -> Tensor:
        """Return stage 1's pieces in the LLM, (V, d_llm): the mean of the tokens that spell a piece."""
        table = self._token_embeddings().detach()
        ids, starts = (part.to(table.device) for part in self._piece_tokens)
        return nn.functional.embedding_bag(ids, table, starts, mode="mean")

    def prompt_segments(self, conversation: Conversation) -> list[Segment]:
        """Return what the LLM reads of a conversation.

        Raises:
            ValueError: it reads posteriors, and nothing stands between them and the answer.
        """
        segments = super().prompt_segments(conversation)
        if self.posterior is not None and _is_answered_at_once(segments):
            raise InputError(
                f"conversation {conversation.id}: with model.ctc_posterior audio looks like text to the LLM, which "
                "cannot tell where it ends and the answer begins: leave model.prompt.chat_template to the tokenizer "
                "(null), or write something after the content"
            )
        return segments

    @torch.inference_mode()
    def generate_answers(
        self, batch: ConversationBatch, perceived: PerceptionOutput, max_new_tokens: int, beam_size: int
    ) -> list[Answer]:
        """Return the LLM's answers; with ``generation.ctc_weight`` transcripts are the best of these and the head's.

        The head gives `N_HYPOTHESES`, with ``generation.whisper_weight`` Whisper's own decoder one. The best has the
        highest weighted sum of log-probabilities, CTC's, the LLM's and Whisper's, with what the keywords in it are
        worth. What is no transcript of one audio is the LLM's alone.
        """
        answers = super().generate_answers(batch, perceived, max_new_tokens, beam_size)
        if self.ctc_head is None or self.cfg.generation.ctc_weight == 0 or len(batch.audio) == 0:
            return answers
        log_probs = batch.by_conversation(self.ctc_log_probs(perceived), self.ctc_states(perceived)[1])
        start = 0
        for place, (item, of_audios) in enumerate(zip(batch.split(), log_probs, strict=True)):
            rows = slice(start, start := start + len(item.audio))
            if len(item.audio) == 1 and item.conversations[0].task == "asr":
                answers[place] = self._best(item, perceived.select(rows), of_audios[0], answers[place], max_new_tokens)
        return answers

    def _best(
        self,
        item: ConversationBatch,
        perceived: PerceptionOutput,
        log_probs: Tensor,
        generated: Answer,
        max_new_tokens: int,
    ) -> Answer:
        """Return the best of what was generated for a conversation, the head's hypotheses, and what Whisper writes."""
        (conversation,) = item.conversations
        keywords = conversation.question.keywords if conversation.question else []
        preference = self._preferences.get(keywords, partial(KeywordPreference, self._head))
        reading = self._whisper_reading(item, log_probs)
        written = tuple(reading.texts()) if reading else ()
        others = [generated.text, *written]
        hypotheses = ctc_hypotheses(self._head, log_probs, N_HYPOTHESES, *others, preference=preference.tree)
        text = self._choose(item, perceived, hypotheses, preference, reading)
        answer = self._answer(text, generated, max_new_tokens)
        of_words = reading.word_log_probs(answer.text) if reading else None
        return replace(answer, also_heard=written, heard_log_probs=None if of_words is None else tuple(of_words))

    def _joint_scores(
        self, batch: ConversationBatch, perceived: PerceptionOutput, beam_size: int
    ) -> JointCTCScores | None:
        """Return None with a head: its tokens are not the LLM's."""
        return None if self.ctc_head is not None else super()._joint_scores(batch, perceived, beam_size)

    def _choose(
        self,
        item: ConversationBatch,
        perceived: PerceptionOutput,
        hypotheses: list[Hypothesis],
        preference: KeywordPreference,
        reading: WhisperReading | None,
    ) -> str:
        """Return the best text of a conversation; see `generate_answers`."""
        if len(hypotheses) == 1:
            return hypotheses[0].text
        (conversation,), weight = item.conversations, self.cfg.generation.ctc_weight
        asked = self.prepare_questions(item, perceived)
        texts = [hypothesis.text for hypothesis in hypotheses]
        of_llm = answer_log_probs(self.llm, asked.embeddings[0], self.prompt.answer_ids(texts, conversation.id))
        of_ctc = torch.tensor([hypothesis.log_prob for hypothesis in hypotheses]).to(of_llm)
        scores = weight * of_ctc + (1 - weight) * of_llm
        if reading is not None:
            of_whisper = self.cfg.generation.whisper_weight
            scores = (1 - of_whisper) * scores + of_whisper * torch.tensor(reading.log_probs(texts)).to(of_llm)
        scores += torch.tensor([preference.nats(text) for text in texts]).to(of_llm)
        return texts[int(scores.argmax())]

    def _whisper_reading(self, item: ConversationBatch, log_probs: Tensor) -> WhisperReading | None:
        """Return the one audio of a conversation as Whisper's decoder reads it, where the recipe asks for it.

        Not where CTC hears nothing at all: of silence and noise Whisper makes words.
        """
        if self.cfg.generation.whisper_weight == 0 or bool((log_probs.argmax(-1) == self._head.blank).all()):
            return None
        (conversation,), samples = item.conversations, item.audio[0, : int(item.audio_lengths[0])]
        language, name = conversation.metadata.get("lang"), place_of(conversation)
        return self.whisper_reader.read(self.perception.encoder, samples, language, name)

    def _answer(self, text: str, generated: Answer, max_new_tokens: int) -> Answer:
        """Return a text as an answer of the LLM, which it may have generated."""
        if text == generated.text:
            return generated
        (ids,) = self.prompt.encode.texts([text])
        cut = len(ids) > max_new_tokens
        return Answer(self._text(ids[:max_new_tokens]) if cut else text, ids[:max_new_tokens], cut)

    def losses(self, batch: ConversationBatch, perceived: PerceptionOutput) -> dict[str, Mean]:
        """Return the decoder-only losses, and CTC of what the head reads."""
        losses = super().losses(batch, perceived)
        if self.cfg.loss.encoder_ctc_weight > 0 and len(batch.audio) > len(batch.spoken):
            texts = {place: text for place, text in batch.transcripts().items() if place not in batch.spoken}
            losses["encoder_ctc_loss"] = self._head.loss(*self.ctc_states(perceived), texts)
        return losses

    def perceive(self, batch: ConversationBatch) -> PerceptionOutput:
        """Encode the batch's N audios; with ``ctc_posterior`` the LLM reads what the head makes of them.

        Of a spoken text it reads what the head might have made of it, and there are no states.
        """
        if self.posterior is None:
            return super().perceive(batch)
        recorded = [place for place in range(len(batch.audio)) if place not in batch.spoken]
        perceived = self.perception(batch.audio[recorded], batch.audio_lengths[recorded])
        perceived.encoded, perceived.adapted = (
            _scatter(states, recorded, len(batch.audio)) for states in (perceived.encoded, perceived.adapted)
        )
        if len(batch.audio) > 0:
            posteriors = pad_posteriors(self.posteriors(batch, perceived))
            perceived.embeddings = perceived.frames = self.posterior.embed(*posteriors)
        return perceived

    def posteriors(self, batch: ConversationBatch, perceived: PerceptionOutput) -> list[Tensor]:
        """Return the posteriors of the pieces that the head reads in each of N audios, (T', V).

        Those of spoken texts are drawn.
        """
        names = [conversation.id for conversation in batch.conversations for _ in conversation.audios]
        simulated = {place: self._simulate(text, names[place]) for place, text in batch.spoken.items()}
        if len(simulated) == len(batch.audio):
            return [simulated[place].to(self.device) for place in range(len(batch.audio))]
        states, lengths = self.ctc_states(perceived)
        log_probs = self._head.log_probs(states)
        if not self.training:
            perceived.log_probs = log_probs.detach()  # what `ctc_log_probs` would make of them again
        items, counts = piece_posteriors(log_probs, lengths)
        rows = [item[:count] for item, count in zip(items, counts.tolist(), strict=True)]
        return [simulated[place].to(row) if place in simulated else row for place, row in enumerate(rows)]

    def _simulate(self, text: str, name: str) -> Tensor:
        if self._simulator is None:
            raise ValueError(
                f"{name} is a text without audio, and model.ctc_posterior.bank, of which its posteriors are made, is "
                "not set: make one with examples/data/measure_posteriors.py"
            )
        low, high = self.cfg.ctc_posterior.error_rate
        rng = named_random(("posterior", self.cfg.ctc_posterior.seed, self.current_epoch, name))
        ids = self._head.tokenizer.text_to_ids(text)
        return self._simulator(ids, rng.uniform(low, high), rng)


def _is_answered_at_once(segments: list[Segment]) -> bool:
    """Whether an answer is to follow an audio without a token between them."""
    followers = [*segments[1:], None]
    return any(
        isinstance(segment, AudioSegment) and (after is None or isinstance(after, TextSegment) and after.loss)
        for segment, after in zip(segments, followers, strict=True)
    )


def read_part(reference: str | Path | None, part: str, key: str, made_by: str) -> bytes:
    """Return a file, or a part of a checkpoint.

    Args:
        reference: the file; or a ``.nemo``, or the name of a model that comes with the package, which holds it.
        part: what the file is called inside a ``.nemo``.
        key: where the recipe names it, for messages, and ``made_by`` how to get one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: none is named, or the ``.nemo`` holds none.
    """
    if reference is None:
        raise ValueError(f"{key} is not set: name a file ({made_by}), or the .nemo whose own is to be read")
    path = shipped_models().get(str(reference)) or Path(reference).expanduser()
    if not path.is_file():
        remedy = "correct its path, also in init_from_nemo_model" if path.suffix == ".nemo" else made_by
        raise FileNotFoundError(f"{key} {path} does not exist; {remedy}")
    if path.suffix != ".nemo":
        return path.read_bytes()
    with tempfile.TemporaryDirectory(prefix="nemo_speechllm_") as folder:
        unpack(path, Path(folder))
        parts = list(Path(folder).glob(f"*_{part}"))
        if not parts:
            raise ValueError(f"{key} {path} holds no {part}: it was trained without; {made_by}, name that in {key}")
        return parts[0].read_bytes()


def _scatter(states: States, places: list[int], count: int) -> States:
    """Return states (M, T, d), lengths (M,) at their places among ``count`` items, the others of length 0."""
    if len(places) == count:
        return states
    values = states[0].new_zeros(count, *states[0].shape[1:])
    lengths = states[1].new_zeros(count)
    values[places], lengths[places] = states
    return values, lengths

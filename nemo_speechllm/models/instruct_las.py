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

"""Instruction-Following Speech Recognition (2309.09843)."""

from pathlib import Path
from typing import ClassVar, cast

import torch
from nemo.utils import logging
from omegaconf import DictConfig
from torch import Tensor, nn
from transformers import PreTrainedModel

from nemo_speechllm.data.conversation import Conversation
from nemo_speechllm.data.conversation_check import check_conversations
from nemo_speechllm.data.dataset import ConversationBatch, ConversationDataset, in_batches, place_of
from nemo_speechllm.decoding.generate import generate_text_ids
from nemo_speechllm.decoding.rescoring import ANSWERS_AT_ONCE, AnswerScore
from nemo_speechllm.decoding.word_confidence import sums_by_word
from nemo_speechllm.models.answer_scores import require_trained_decoder
from nemo_speechllm.models.answering import require_evaluation_mode
from nemo_speechllm.models.answers import Answer
from nemo_speechllm.models.shipped import shipped_models
from nemo_speechllm.models.speech_lm import SpeechLM
from nemo_speechllm.modules.ctc import CTCHead
from nemo_speechllm.modules.encoders import valid_positions
from nemo_speechllm.modules.las_decoder import (
    DecoderText,
    add_positions,
    build_las_decoder,
    join_text,
    las_loss,
)
from nemo_speechllm.modules.losses import Mean, joined_mean
from nemo_speechllm.modules.perception import Perception, PerceptionOutput, States
from nemo_speechllm.modules.text_encoder import TextEncoder
from nemo_speechllm.prompts.instruction_prompt import InstructionPrompt, InstructionTokenizer
from nemo_speechllm.prompts.segments import TextSegment, check_context
from nemo_speechllm.recipes.models import InstructLASRecipe
from nemo_speechllm.training.fsdp import is_sharded

TOKENIZER_KEY, TOKENIZER_NAME = "tokenizer.model_file", "tokenizer.model"
# what has a row for each piece of the tokenizer
ROWS_OF_PIECES = (
    "text_decoder.shared.",
    "text_decoder.encoder.embed_tokens.",
    "text_decoder.decoder.embed_tokens.",
    "text_decoder.lm_head.",
    "ctc_head.decoder.decoder_layers.0.",
)
TEXTS_AT_ONCE = 24  # read together in training, of about one length
MAX_TEXT_TOKENS = 4096  # T5 reads any number, in memory that grows with its square


class InstructLAS(SpeechLM):
    """Listen, attend and spell by instruction: Conformer → Transformer decoder, both from scratch (section 3).

    The decoder's text is ``instruction [EOT] answer``; the instruction is given, the answer is learned and generated.
    With an empty instruction it is a plain listen-attend-spell model. With ``ctc_compression`` the decoder attends to
    one vector for each token that CTC hears, in place of every frame: where it has only hours of speech to learn from,
    finding the place in the audio is what it is slowest to learn. With ``loss.lm_weight`` 0 the decoder is not run at
    all: the encoder alone is taught, by CTC. With ``text_encoder`` the decoder attends as well to what a frozen
    sentence encoder makes of the instruction. Its own sub-words of it the decoder reads all the same, in training but
    for a share (``instruction_dropout``). Beside the decoder a CTC head may learn, from the same encoder's states,
    what is said, whatever the answer (``loss.encoder_ctc_weight``); ``decoder=ctc`` asks it.

    Raises:
        FileNotFoundError: there is no tokenizer in ``model.tokenizer.dir``.
        ValueError: the tokenizer has no ``[EOT]``; ``ctc_compression`` without CTC of the same frames; no
            loss has a weight.
    """

    recipe: ClassVar[type] = InstructLASRecipe
    deaf_remedy: ClassVar[str] = (
        "teach the encoder by CTC first (conf/instruct_las/digits_encoder.yaml), let the decoder attend to what CTC "
        "hears (model.ctc_compression), train longer and on more voices"
    )
    reference_sections = ("perception.encoder", "text_encoder")

    def build_modules(self) -> None:
        """Build tokenizer, perception, decoder, and the CTC head where the recipe asks for it."""
        tokenizer_file = self.kept_files.keep(TOKENIZER_KEY, TOKENIZER_NAME, self._read_tokenizer())
        self.tokenizer = InstructionTokenizer(tokenizer_file)
        self.prompt = InstructionPrompt(self.tokenizer, self.cfg.prompt.keywords)
        # not `decoder`: NeMo's transcription takes what is called so for a module of its own
        self.text_decoder = build_las_decoder(self.cfg.decoder, self.tokenizer.vocab_size, self.tokenizer.eos_id)
        embeddings, encoder = self.text_decoder.get_input_embeddings().weight, self.cfg.perception.encoder
        self.perception = Perception(self.cfg.perception, embeddings, self.restores_weights_of(encoder))
        self.add_reference("perception.encoder", encoder)
        has_ctc = self.cfg.loss.encoder_ctc_weight > 0
        if not has_ctc and self.cfg.loss.lm_weight <= 0:
            raise ValueError(
                "model.loss.lm_weight and model.loss.encoder_ctc_weight are both 0: there is nothing to learn"
            )
        self.text_encoder = None
        if self.cfg.text_encoder is not None:
            self.text_encoder = TextEncoder(self.cfg.text_encoder, self.cfg.decoder.d_model)
            self.add_reference("text_encoder.encoder", self.cfg.text_encoder)
        self.ctc_head = CTCHead(cast(int, self.perception.encoder.d_model), tokenizer_file) if has_ctc else None
        if self.cfg.ctc_compression and not (has_ctc and self.perception.has_frames_of_encoder):
            raise ValueError(
                "model.ctc_compression joins the frames that CTC reads as one token: it needs "
                "model.loss.encoder_ctc_weight above 0, model.perception.stack=1 and no model.perception.adapter; or "
                "set model.ctc_compression=false"
            )

    def maybe_init_from_pretrained_checkpoint(self, cfg: DictConfig, map_location: str = "cpu") -> None:
        """Take weights from where ``init_from_…`` says; the pieces of a ``.nemo`` with another tokenizer keep theirs.

        It may be named as one of those that come with the package. Pieces that it does not have begin anew.
        """
        path = cfg.get("init_from_nemo_model")
        if not isinstance(path, str):
            return super().maybe_init_from_pretrained_checkpoint(cfg, map_location)
        start = InstructLAS.restore_from(shipped_models().get(path, path), map_location=torch.device(map_location))
        self.load_state_dict(self._with_own_pieces(start), strict=False)

    def _with_own_pieces(self, start: "InstructLAS") -> dict[str, Tensor]:
        """Return another model's weights, those of its pieces where this model's tokenizer has the same."""
        pieces = self.tokenizer.tokenizer
        theirs = {start.tokenizer.tokenizer.id_to_piece(index): index for index in range(start.tokenizer.vocab_size)}
        shared = [(index, theirs.get(pieces.id_to_piece(index))) for index in range(self.tokenizer.vocab_size)]
        here, there = map(list, zip(*[pair for pair in shared if pair[1] is not None], strict=True))
        if len(here) < self.tokenizer.vocab_size:
            logging.info(
                f"{len(here)} of the tokenizer's {self.tokenizer.vocab_size} pieces are the checkpoint's and keep its "
                "weights; the others begin anew"
            )
        weights, own = start.state_dict(), self.state_dict()
        for name in weights.keys() & own.keys():
            # other widths are told by `load_state_dict`
            if name.startswith(ROWS_OF_PIECES) and weights[name].shape[1:] == own[name].shape[1:]:
                # the last row of CTC's layer is the blank
                blank = [-1] * (own[name].shape[0] > self.tokenizer.vocab_size)
                weights[name] = own[name].index_put((torch.tensor(here + blank),), weights[name][there + blank])
        return weights

    @property
    def sharded_part(self) -> PreTrainedModel:
        """The decoder."""
        return self.text_decoder

    def _read_tokenizer(self) -> bytes:
        """Return the SentencePiece model, from the checkpoint that is being restored or from the recipe's folder."""
        saved = self.kept_files.saved(TOKENIZER_KEY)
        if saved is not None:
            self.cfg.tokenizer.dir = None  # of the machine it was trained on
            return saved
        path = Path(self.cfg.tokenizer.dir).expanduser() / TOKENIZER_NAME
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} does not exist; make it with `python examples/data/train_tokenizer.py --instructions …` and "
                "give its folder as model.tokenizer.dir"
            )
        return path.read_bytes()

    @property
    def ctc(self) -> CTCHead | None:
        """The CTC head over the encoder, where the recipe has one."""
        return self.ctc_head

    def ctc_states(self, perceived: PerceptionOutput) -> States:
        """Return what the head reads: the encoder's states."""
        return perceived.encoded

    def losses(self, batch: ConversationBatch, perceived: PerceptionOutput) -> dict[str, Mean]:
        """Return cross-entropy of the decoder's text, and CTC of what is said."""
        losses = {}
        if self.cfg.loss.lm_weight > 0:
            losses["lm_loss"] = self.lm_loss(batch, perceived)
        if self.ctc_head is not None:
            losses["encoder_ctc_loss"] = self.ctc_head.loss(*perceived.encoded, batch.transcripts())
        return losses

    def _heard(self, perceived: PerceptionOutput) -> States:
        """Return what the decoder hears, (B, T', d), lengths (B,).

        It is every frame, or with ``ctc_compression`` every token that CTC reads.
        """
        if not self.cfg.ctc_compression:
            return perceived.embeddings
        assert self.ctc_head is not None, "`build_modules` has seen to it"
        tokens, counts = self.ctc_head.compress(*perceived.embeddings, self.ctc_log_probs(perceived))
        # where nothing was heard there is still a place to look at: attention over nothing is not defined
        return nn.functional.pad(tokens, (0, 0, 0, 1)), counts + 1

    def _attended(self, heard: States, conversations: list[Conversation]) -> tuple[Tensor, Tensor]:
        """Return what the decoder attends to, (B, T', d), and where there is something, (B, T').

        It is what is heard, and what the text encoder makes of the instruction.
        """
        states, lengths = heard
        attended, mask = add_positions(states), valid_positions(lengths, states.shape[1])
        if self.text_encoder is None:
            return attended, mask
        meant, meant_mask = self.text_encoder([self.prompt.asked(conversation) for conversation in conversations])
        return torch.cat([attended, meant], dim=1), torch.cat([mask, meant_mask], dim=1)

    def lm_loss(self, batch: ConversationBatch, perceived: PerceptionOutput) -> Mean:
        """Return cross-entropy of the text.

        Labels are smoothed in training alone, so that validation's loss is comparable. Texts are read beside others of
        about their length: instructions and answers differ so much in it that most of a batch would be padding.
        """
        smoothing = self.cfg.loss.label_smoothing if self.training else 0.0
        states, lengths = self._heard(perceived)
        prompts, losses = self._prompts(batch.conversations), []
        by_length = sorted(range(len(prompts)), key=lambda row: [len(segment.ids) for segment in prompts[row][::-1]])
        # where its layers are sharded, the decoder must run as often in every process
        at_once = len(prompts) if self.training and is_sharded(self.text_decoder) else TEXTS_AT_ONCE
        for rows in in_batches(by_length, at_once):
            text = join_text([prompts[row] for row in rows], self.tokenizer.eos_id, self.device)
            attended = self._attended((states[rows], lengths[rows]), [batch.conversations[row] for row in rows])
            losses.append(las_loss(self._logits(text, *attended), text, self.cfg.loss.instruction_weight, smoothing))
        return joined_mean(losses, by_length)

    def _logits(self, text: DecoderText, attended: Tensor, mask: Tensor) -> Tensor:
        """Return the decoder's prediction at each position of B texts of the next, (B, L, V)."""
        return self.text_decoder(
            inputs_embeds=attended,
            attention_mask=mask,
            decoder_input_ids=self._with_dropout(text) if self.training else text.ids,
            decoder_attention_mask=text.attention_mask,
            decoder_answer_start=text.answer_start,
            use_cache=False,
        ).logits

    def _with_dropout(self, text: DecoderText) -> Tensor:
        """Return the ids (B, L) with a share of the instructions' sub-words unknown."""
        dropped = torch.rand(text.ids.shape, device=text.ids.device) < self.cfg.instruction_dropout
        dropped &= ~text.learned & (text.ids != self.tokenizer.end_of_instruction_id)
        return text.ids.masked_fill(dropped, self.tokenizer.tokenizer.unk_id())

    def _text(self, conversations: list[Conversation]) -> DecoderText:
        return join_text(self._prompts(conversations), self.tokenizer.eos_id, self.device)

    def _prompts(self, conversations: list[Conversation]) -> list[list[TextSegment]]:
        prompts = [self.prompt.segments(conversation) for conversation in conversations]
        for conversation, prompt in zip(conversations, prompts, strict=True):
            check_context([*prompt], [], MAX_TEXT_TOKENS, place_of(conversation))
        return prompts

    @torch.inference_mode()
    def generate_answers(
        self, batch: ConversationBatch, perceived: PerceptionOutput, max_new_tokens: int, beam_size: int
    ) -> list[Answer]:
        """Return answers of the decoder."""
        text = self._text([conversation.without_answer() for conversation in batch.conversations])
        ids, truncated = generate_text_ids(
            self.text_decoder,
            *self._attended(self._heard(perceived), batch.conversations),
            text,
            self.tokenizer.eos_id,
            max_new_tokens,
            beam_size,
            self.cfg.generation.repetition_penalty,
        )
        return [
            Answer(self.tokenizer.ids_to_text(row).strip(), row, bool(cut))
            for row, cut in zip(ids, truncated, strict=True)
        ]

    @torch.inference_mode()
    def word_log_probs(
        self, batch: ConversationBatch, perceived: PerceptionOutput, texts: list[str]
    ) -> list[list[float]]:
        """Return the decoder's log-probability of each word of an answer to each conversation, given those before."""
        require_trained_decoder(self)
        answered = [item.with_answer(answer) for item, answer in zip(batch.conversations, texts, strict=True)]
        text = self._text(answered)
        attended = self._attended(self._heard(perceived), batch.conversations)
        log_probs = self._logits(text, *attended)[:, :-1].float().log_softmax(-1)
        of_tokens = log_probs.gather(2, text.ids[:, 1:, None]).squeeze(2)[:, text.answer_start - 1 :]
        return [
            sums_by_word(self.tokenizer(answer).input_ids, row.tolist(), answer, self.tokenizer.ids_to_text)
            for row, answer in zip(of_tokens, texts, strict=True)
        ]

    @torch.inference_mode()
    def score_answers(self, conversations: list[Conversation], answers: list[list[str]]) -> list[list[AnswerScore]]:
        """Return how likely the decoder finds each answer; see `ScoresAnswers`.

        Raises:
            TypeError, ValueError: they are no conversations that ask something; see `check_conversations`.
            ValueError: the model was trained by CTC alone, or is in training mode.
        """
        require_trained_decoder(self)
        require_evaluation_mode(self)
        questions = check_conversations(conversations)
        batch = ConversationDataset(self.builder).collate(questions).to(self.device)
        states, lengths = self._heard(self.perceive(batch))
        return [
            self._scores_of(
                [question.with_answer(text) for text in texts],
                *self._attended((states[row : row + 1], lengths[row : row + 1]), [question]),
            )
            for row, (question, texts) in enumerate(zip(questions, answers, strict=True))
        ]

    def _scores_of(self, answered: list[Conversation], attended: Tensor, mask: Tensor) -> list[AnswerScore]:
        """Return how likely the answers of conversations about one audio are; what is attended to is (1, T, d)."""
        scores: list[AnswerScore] = []
        for items in in_batches(answered, ANSWERS_AT_ONCE):
            text, count = self._text(items), len(items)
            logits = self._logits(text, attended.expand(count, -1, -1), mask.expand(count, -1))
            of_answers = las_loss(logits, text, instruction_weight=0.0, label_smoothing=0.0).of_answers
            assert of_answers is not None, "it always has them"
            scores += [
                AnswerScore(-nats, int(tokens)) for nats, tokens in zip(*map(Tensor.tolist, of_answers), strict=True)
            ]
        return scores

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

import tempfile
from functools import cached_property
from pathlib import Path
from typing import ClassVar, cast

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from nemo_speechllm.checkpointing.archive import unpack
from nemo_speechllm.data.conversation import Conversation
from nemo_speechllm.data.dataset import ConversationBatch
from nemo_speechllm.models.decoder_only import DecoderOnlySpeechLM
from nemo_speechllm.modules.ctc import CTCHead, EmbeddingCTC, check_has_ctc_head
from nemo_speechllm.modules.ctc_posterior import (
    PosteriorBank,
    PosteriorEmbedding,
    PosteriorSimulator,
    pad_posteriors,
    piece_posteriors,
)
from nemo_speechllm.modules.encoders import load_asr_model
from nemo_speechllm.modules.losses import Mean
from nemo_speechllm.modules.perception import PerceptionOutput, States
from nemo_speechllm.modules.segments import mask_text
from nemo_speechllm.prompts.segments import Segment
from nemo_speechllm.randomness import named_random
from nemo_speechllm.recipes.models import CTCPromptedRecipe

TOKENIZER_NAME = "ctc_tokenizer.model"
WORD_BOUNDARY = "▁"  # SentencePiece's mark of a space


class CTCPromptedLLM(DecoderOnlySpeechLM):
    """Conformer trained with CTC → n frames stacked → linear → LLM (section 3).

    The LLM's prompt is the audio and nothing else. The CTC head that the encoder was trained with stays: it may go on
    training (``loss.encoder_ctc_weight``) and it answers where ``decoder`` is ``ctc``. The alignment loss
    (``loss.ctc_weight``) is CTC of the audio embeddings against the same pieces, each as the LLM's embedding of its
    text. In training the LLM may read a mask in place of some tokens of the answer (``text_mask``).

    With an adapter the head reads the adapter's frames and is trained here (``loss.lm_weight`` 0,
    ``encoder_ctc_weight`` 1). With ``ctc_posterior`` the LLM reads what the head hears in place of projected frames
    (see `PosteriorEmbedding`), and may learn to from lines of text (``input_cfg`` of type ``txt`` or ``txt_jsonl``),
    of which a `PosteriorSimulator` makes up what would be heard.

    Raises:
        ValueError: the encoder is not that of a CTC model with a SentencePiece tokenizer, or ``text_mask`` has no
            token to mask with; or ``generation.ctc_weight`` is given.
    """

    recipe: ClassVar[type] = CTCPromptedRecipe
    ctc_head: CTCHead

    def build_modules(self) -> None:
        """Build what every decoder-only model has, and the CTC head."""
        super().build_modules()
        mask = self.cfg.text_mask
        self._mask_id = self._find_mask_token(mask.token) if mask and mask.fraction > 0 else None

    def _build_ctc(self) -> None:
        """Build stage 1's head, and for the alignment loss what its pieces are in the LLM."""
        self.ctc_head = self._restored_head() if self.is_nemo_file_being_restored() else self._new_head()
        if self.cfg.generation.ctc_weight > 0:
            raise ValueError(
                "model.generation.ctc_weight is for CTC over the LLM's tokens, and this model's CTC reads stage 1's "
                "pieces: set it to 0; decoder=ctc asks CTC alone"
            )
        super()._build_ctc()
        posterior = self.cfg.ctc_posterior
        self.posterior = PosteriorEmbedding(self._piece_embeddings()) if posterior else None
        self._simulator = self._build_simulator(posterior) if posterior and posterior.bank else None

    def _build_simulator(self, cfg: DictConfig) -> PosteriorSimulator | None:
        """Return what makes up posteriors of text; it serves training alone, so a restored model has none."""
        if self.is_nemo_file_being_restored():
            return None
        return PosteriorSimulator(PosteriorBank.load(cfg.bank), self.ctc_head.blank)

    def _new_alignment(self) -> EmbeddingCTC:
        """Return CTC of audio embeddings against stage 1's pieces as the LLM embeds their text.

        An LLM's own tokens are too many for CTC to learn from hours of speech: most are met a few times.
        """
        return EmbeddingCTC(self._piece_embeddings, self.ctc_head.ids, self.ctc_head.text)

    @property
    def ctc(self) -> CTCHead:
        """Stage 1's head."""
        return self.ctc_head

    def ctc_states(self, perceived: PerceptionOutput) -> States:
        """Return what the head reads: the encoder's states, or an adapter's frames."""
        return perceived.encoded if self.perception.adapter is None else perceived.adapted

    @cached_property
    def _piece_tokens(self) -> tuple[Tensor, Tensor]:
        """The LLM's ids of all pieces' texts, one after the other, and where each piece begins (V,)."""
        pieces = self.ctc_head.tokenizer.ids_to_tokens(range(self.ctc_head.blank))
        texts = [piece.replace(WORD_BOUNDARY, " ") for piece in pieces]
        rows = self.tokenizer(texts, add_special_tokens=False).input_ids
        starts = torch.tensor([0, *map(len, rows[:-1])]).cumsum(0)
        return torch.tensor([token for row in rows for token in row]), starts

    def _piece_embeddings(self) -> Tensor:
        """Return stage 1's pieces in the LLM, (V, d_llm): the mean of the tokens that spell a piece."""
        table = self._token_embeddings().detach()
        ids, starts = (part.to(table.device) for part in self._piece_tokens)
        return nn.functional.embedding_bag(ids, table, starts, mode="mean")

    def _new_head(self) -> CTCHead:
        """Return stage 1's head; over an adapter a fresh one, of the pieces of ``ctc_head.tokenizer``."""
        if self.perception.adapter is None:
            return self._pretrained_head()
        return self._head_with_tokenizer(read_tokenizer(self.cfg.ctc_head.tokenizer))

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
        width = self.perception.d_adapted if self.perception.adapter else self.perception.encoder.d_model
        return CTCHead(cast(int, width), path)

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

    def losses(self, batch: ConversationBatch, perceived: PerceptionOutput) -> dict[str, Mean]:
        """Return the decoder-only losses, and CTC of what the head reads."""
        losses = super().losses(batch, perceived)
        if self.cfg.loss.encoder_ctc_weight > 0 and len(batch.audio) > len(batch.spoken):
            texts = {place: text for place, text in self._transcripts(batch).items() if place not in batch.spoken}
            losses["encoder_ctc_loss"] = self.ctc.loss(*self.ctc_states(perceived), texts)
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
        items, counts = piece_posteriors(self.ctc.log_probs(states), lengths)
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
        ids = self.ctc_head.tokenizer.text_to_ids(text)
        return self._simulator(ids, rng.uniform(low, high), rng)


def read_tokenizer(reference: str | Path | None) -> bytes:
    """Return a SentencePiece model: that of a file, or the one inside a ``.nemo`` of a model with a CTC head.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: none is named, or the ``.nemo`` holds none.
    """
    if reference is None:
        raise ValueError(
            "model.ctc_head.tokenizer is not set: name a SentencePiece model (examples/data/train_tokenizer.py makes "
            "one), or the .nemo whose head is to be read"
        )
    path = Path(reference).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"model.ctc_head.tokenizer {path} does not exist")
    if path.suffix != ".nemo":
        return path.read_bytes()
    with tempfile.TemporaryDirectory(prefix="nemo_speechllm_") as folder:
        unpack(path, Path(folder))
        models = list(Path(folder).glob(f"*_{TOKENIZER_NAME}"))
        if not models:
            raise ValueError(f"model.ctc_head.tokenizer {path} holds no tokenizer of a CTC head")
        return models[0].read_bytes()


def _scatter(states: States, places: list[int], count: int) -> States:
    """Return states (M, T, d), lengths (M,) at their places among ``count`` items, the others of length 0."""
    if len(places) == count:
        return states
    values = states[0].new_zeros(count, *states[0].shape[1:])
    lengths = states[1].new_zeros(count)
    values[places], lengths[places] = states
    return values, lengths

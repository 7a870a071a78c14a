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

"""Speech language models whose decoder is an LLM that reads audio as embeddings among those of its own tokens."""

from dataclasses import replace
from typing import ClassVar, cast

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel

from nemo_speechllm import assets
from nemo_speechllm.data.conversation import Conversation
from nemo_speechllm.data.conversation_check import check_conversations
from nemo_speechllm.data.dataset import ConversationBatch, ConversationDataset, place_of
from nemo_speechllm.decoding.generate import generate_ids
from nemo_speechllm.decoding.joint import JointCTCScores
from nemo_speechllm.decoding.rescoring import AnswerScore, score_answers, token_log_probs
from nemo_speechllm.decoding.word_confidence import sums_by_word
from nemo_speechllm.models.answer_scores import require_trained_decoder
from nemo_speechllm.models.answering import require_evaluation_mode, require_transcripts
from nemo_speechllm.models.answers import Answer
from nemo_speechllm.models.speech_lm import SpeechLM
from nemo_speechllm.modules.answer_loss import answer_nats
from nemo_speechllm.modules.ctc import CTC, EmbeddingCTC
from nemo_speechllm.modules.llm import add_lora, checkpoint_activations, load_llm
from nemo_speechllm.modules.losses import Mean
from nemo_speechllm.modules.perception import Perception, PerceptionOutput, States
from nemo_speechllm.modules.segments import LLMInputs, join_segments
from nemo_speechllm.prompts.chat_prompt import ChatPrompt
from nemo_speechllm.prompts.segments import Segment, check_context
from nemo_speechllm.recipes.models import DecoderOnlyRecipe

PROJECTION = "perception.projection."


class DecoderOnlySpeechLM(SpeechLM):
    """perception → LLM.

    A variant says what stands in the prompt, what trains (``freeze_params``, ``lora``) and which losses are taken
    (``loss.lm_weight``, ``loss.ctc_weight``). With ``ctc_compression`` the LLM reads one embedding for each token that
    CTC hears instead of one for each frame. With ``lm_weight`` 0 the LLM is not run at all: the adapter alone is
    taught by CTC against the LLM's token embeddings, and answers are CTC's best path.
    """

    recipe: ClassVar[type] = DecoderOnlyRecipe
    ctc_transcribes: ClassVar[bool] = True  # whether `alignment` is taught what is said

    def build_modules(self) -> None:
        """Build tokenizer, prompt, LLM with LoRA, perception, and CTC where the recipe asks for it."""
        self._build_llm()
        encoder = self.cfg.perception.encoder
        self.perception = Perception(self.cfg.perception, self._token_embeddings(), self.restores_weights_of(encoder))
        self.add_reference("perception.encoder", encoder)
        self._build_ctc()

    def _build_ctc(self) -> None:
        """Build CTC of the audio embeddings, where the recipe gives it a weight."""
        self.alignment = self._new_alignment() if self.cfg.loss.ctc_weight > 0 else None
        self.perception.with_frames = self.alignment is not None
        has_needed = self.alignment is not None or not self.cfg.ctc_compression
        if not has_needed or self.cfg.generation.ctc_weight > 0 and self.ctc is None:
            raise ValueError(
                "model.ctc_compression and model.generation.ctc_weight need CTC, but model.loss.ctc_weight is 0: "
                "there is none; give it a weight, or set model.ctc_compression=false model.generation.ctc_weight=0"
            )

    def _new_alignment(self) -> EmbeddingCTC:
        """Return CTC of audio embeddings against the LLM's own tokens."""
        return EmbeddingCTC(self._token_embeddings, self.prompt.encode.texts, self._text, self.ctc_transcribes)

    @property
    def ctc(self) -> CTC | None:
        """The CTC that reads audio embeddings as text, where the recipe has one."""
        return self.alignment

    def ctc_states(self, perceived: PerceptionOutput) -> States:
        """Return what `ctc` reads: one embedding for each frame."""
        return perceived.frames

    def _token_embeddings(self) -> Tensor:
        """Return the LLM's embedding matrix, (V, d_llm)."""
        return cast(Tensor, self.llm.get_input_embeddings().weight)

    def _text(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _build_llm(self) -> None:
        cfg = self.cfg.llm
        if not cfg.pretrained_weights:  # nothing to refer to: a checkpoint must hold the weights
            cfg.by_reference = False
        folder = None if self.restores_weights_of(cfg) else assets.resolve(cfg.pretrained)
        own_folder = self.register_llm_artifacts(folder)
        self.tokenizer = AutoTokenizer.from_pretrained(own_folder, trust_remote_code=False)
        prompt = self.cfg.prompt
        self.prompt = ChatPrompt(self.tokenizer, prompt.system_prompt, prompt.chat_template, prompt.keywords)
        with_weights = folder is not None and cfg.pretrained_weights
        self.llm = load_llm(folder or own_folder, cfg.dtype, with_weights)
        if with_weights:
            self.add_reference("llm", cfg)
        if self.cfg.lora is not None and self.cfg.lora.r > 0:
            add_lora(self.llm, self.cfg.lora)
        if cfg.activation_checkpointing:
            checkpoint_activations(self.llm)

    @property
    def sharded_part(self) -> PreTrainedModel:
        """The LLM."""
        return self.llm

    def load_state_dict(self, state_dict: dict[str, Tensor], strict: bool = True, assign: bool = False):
        """Load as every checkpoint; where a model is but initialised, a projection of another stride stays as it is.

        So an encoder that was aligned at 80 ms serves any stride.
        """
        projection = self.perception.projection.state_dict(prefix=PROJECTION)
        weight = state_dict.get(f"{PROJECTION}linear.weight")
        if not strict and weight is not None and weight.shape != projection[f"{PROJECTION}linear.weight"].shape:
            state_dict = {name: tensor for name, tensor in state_dict.items() if name not in projection}
        return super().load_state_dict(state_dict, strict=strict, assign=assign)

    def losses(self, batch: ConversationBatch, perceived: PerceptionOutput) -> dict[str, Mean]:
        """Return cross-entropy of answers and their end tokens, and CTC of the audio embeddings."""
        weights, losses = self.cfg.loss, {}
        if weights.lm_weight > 0:
            losses["lm_loss"] = self.lm_loss(batch, perceived)
        if weights.ctc_weight > 0:
            assert self.alignment is not None, "`_build_ctc` has seen to it"
            losses["ctc_loss"] = self.alignment.loss(*perceived.frames, self.ctc_texts(batch))
        return losses

    def prompt_segments(self, conversation: Conversation) -> list[Segment]:
        """Return what the LLM reads of a conversation."""
        return self.prompt.segments(conversation)

    @torch.inference_mode()
    def embed_audio(self, conversations: list[Conversation]) -> list[Tensor]:
        """Return each conversation's audio projected to the LLM's width, (T, d_llm) each.

        Audios of one conversation are joined. A position lasts ``perception.frame_shift`` seconds.
        """
        require_evaluation_mode(self)
        batch = ConversationDataset(self.builder).collate(conversations).to(self.device)
        return [torch.cat(audios) for audios in batch.by_conversation(*self.perceive(batch).embeddings)]

    @torch.inference_mode()
    def embed_text(self, text: str) -> tuple[list[str], Tensor]:
        """Return a text's N tokens as text, and their embeddings in the LLM, (N, d_llm)."""
        (ids,) = self.prompt.encode.texts([text])
        embeddings = self.llm.get_input_embeddings()(torch.tensor(ids, dtype=torch.long, device=self.device))
        return [str(self.tokenizer.decode([token])) for token in ids], embeddings

    def prepare_inputs(self, batch: ConversationBatch, perceived: PerceptionOutput) -> LLMInputs:
        """Join what `prompt` makes of each conversation with the embeddings of the batch's audios.

        These are all of them, or with ``ctc_compression`` one for each token that CTC reads.
        """
        prompts = [self.prompt_segments(conversation) for conversation in batch.conversations]
        embeddings = perceived.embeddings
        if self.cfg.ctc_compression and len(batch.audio) > 0:
            embeddings = self._compressed(perceived)
        audios = batch.by_conversation(*embeddings)
        limit = getattr(self.llm.config.get_text_config(), "max_position_embeddings", None)
        for conversation, prompt, embedded in zip(batch.conversations, prompts, audios, strict=True):
            check_context(prompt, [len(audio) for audio in embedded], limit, place_of(conversation))
        return join_segments(prompts, audios, self.llm.get_input_embeddings())

    def prepare_questions(self, batch: ConversationBatch, perceived: PerceptionOutput) -> LLMInputs:
        """Return `prepare_inputs` of the conversations without the answers that they may have."""
        questions = [conversation.without_answer() for conversation in batch.conversations]
        return self.prepare_inputs(replace(batch, conversations=questions), perceived)

    def _compressed(self, perceived: PerceptionOutput) -> States:
        """Return one embedding for each token that CTC reads, (N, T', d_llm), lengths (N,), at least 1."""
        assert self.alignment is not None, "`_build_ctc` has seen to it"
        if self.alignment is self.ctc:
            log_probs = self.ctc_log_probs(perceived)
        else:
            log_probs = self.alignment.log_probs(perceived.frames[0].detach())
        return self.alignment.compress(*perceived.frames, log_probs)

    def lm_loss(self, batch: ConversationBatch, perceived: PerceptionOutput) -> Mean:
        """Return mean cross-entropy of answers and their end tokens."""
        nats, tokens = answer_nats(self.llm, self.prepare_inputs(batch, perceived))
        return Mean(nats.sum() / tokens.sum(), tokens.sum(), (nats.detach(), tokens))

    @torch.inference_mode()
    def generate_answers(
        self, batch: ConversationBatch, perceived: PerceptionOutput, max_new_tokens: int, beam_size: int
    ) -> list[Answer]:
        """Return answers of the LLM, with ``generation.ctc_weight`` of its and CTC's joint choice in transcripts."""
        ids, truncated = generate_ids(
            self.llm,
            self.prepare_questions(batch, perceived),
            self.prompt.end_token_id,
            max_new_tokens=max_new_tokens,
            beam_size=beam_size,
            repetition_penalty=self.cfg.generation.repetition_penalty,
            joint=self._joint_scores(batch, perceived, beam_size),
            drafts=self._drafts(batch, perceived) if self.cfg.generation.draft == "ctc" else None,
        )
        return [Answer(self._text(row), row, bool(cut)) for row, cut in zip(ids, truncated, strict=True)]

    def _drafts(self, batch: ConversationBatch, perceived: PerceptionOutput) -> list[list[int]]:
        """Return what CTC hears, as the LLM would write it, where a transcript of one audio is asked for."""
        drafts: list[list[int]] = [[] for _ in batch.conversations]
        if len(batch.audio) == 0:
            return drafts
        ctc = require_transcripts(self, "model.generation.draft=ctc")
        log_probs, (_, lengths) = self.ctc_log_probs(perceived), self.ctc_states(perceived)
        texts = iter([transcript.text.strip() for transcript in ctc.greedy(log_probs, lengths)])
        for draft, conversation in zip(drafts, batch.conversations, strict=True):
            heard = [next(texts) for _ in conversation.audios]
            if len(heard) == 1 and conversation.task == "asr":
                draft += self.prompt.answer_ids(heard, conversation.id)[0]
        return drafts

    @torch.inference_mode()
    def word_log_probs(
        self, batch: ConversationBatch, perceived: PerceptionOutput, texts: list[str]
    ) -> list[list[float]]:
        """Return the LLM's log-probability of each word of an answer to each conversation, given those before it."""
        require_trained_decoder(self)
        inputs = self.prepare_questions(batch, perceived)
        return [
            sums_by_word(ids[:-1], token_log_probs(self.llm, prompt[mask.bool()], [ids])[0].tolist(), text, self._text)
            for prompt, mask, ids, text in zip(
                inputs.embeddings, inputs.attention_mask, self.prompt.answer_ids(texts), texts, strict=True
            )
        ]

    @torch.inference_mode()
    def score_answers(self, conversations: list[Conversation], answers: list[list[str]]) -> list[list[AnswerScore]]:
        """Return how likely the LLM finds each answer; see `ScoresAnswers`. It reads a prompt once for 32 of them.

        Long recordings are not cut and keyword lists not shortened: what is asked is asked whole.

        Raises:
            TypeError, ValueError: they are no conversations that ask something; see `check_conversations`.
            ValueError: the model was trained by CTC alone, or is in training mode.
        """
        require_trained_decoder(self)
        require_evaluation_mode(self)
        questions = [conversation.without_answer() for conversation in check_conversations(conversations)]
        batch = ConversationDataset(self.builder).collate(questions).to(self.device)
        inputs = self.prepare_inputs(batch, self.perceive(batch))
        return score_answers(self.llm, inputs, [self.prompt.answer_ids(texts) for texts in answers])

    def _joint_scores(
        self, batch: ConversationBatch, perceived: PerceptionOutput, beam_size: int
    ) -> JointCTCScores | None:
        """Return CTC's say in answers that are transcripts: of one audio, with the recipe's own instruction for it."""
        weight = self.cfg.generation.ctc_weight
        if weight == 0 or len(batch.audio) == 0:
            return None
        assert self.alignment is not None, "`_build_ctc` has seen to it"
        per_conversation = batch.by_conversation(self.ctc_log_probs(perceived), perceived.frames[1])
        scored = [
            audios[0] if len(audios) == 1 and conversation.task == "asr" else None
            for conversation, audios in zip(batch.conversations, per_conversation, strict=True)
        ]
        return JointCTCScores(scored, self.alignment.tokens[1:], self.prompt.end_token_id, weight, beam_size)

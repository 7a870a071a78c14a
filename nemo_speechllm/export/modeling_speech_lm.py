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

"""A SALM as a Hugging Face model: config, model and processor. Exported folders hold a copy of this file.

It builds encoder, adapter and CTC compression of ``nemo_speechllm.modules``, so that package must be installed.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BatchFeature,
    GenerationConfig,
    GenerationMixin,
    LogitsProcessorList,
    PreTrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
    RepetitionPenaltyLogitsProcessor,
)

from nemo_speechllm.modules.ctc import EmbeddingCTC
from nemo_speechllm.modules.perception import Perception
from nemo_speechllm.modules.segments import LLMInputs, join_segments
from nemo_speechllm.prompts.segments import AudioSegment, Segment, TextSegment

SAMPLE_RATE = 16000


class SpeechLMConfig(PreTrainedConfig):
    """What a SALM is built of.

    Args:
        text_config: of the LLM.
        perception: the recipe's ``model.perception``.
        ctc_compression: the LLM reads one embedding for each token that CTC hears.
        audio_token: stands for an audio in a prompt, and ``audio_token_id``.
    """

    model_type = "nemo_speechllm_salm"
    sub_configs = {"text_config": AutoConfig}

    def __init__(
        self,
        text_config: dict[str, Any] | PreTrainedConfig | None = None,
        perception: dict[str, Any] | None = None,
        ctc_compression: bool = False,
        audio_token: str = "<|audio|>",
        audio_token_id: int | None = None,
        **kwargs: Any,
    ):
        if not isinstance(text_config, PreTrainedConfig):  # transformers makes one of nothing, to compare with
            text_config = AutoConfig.for_model(**(text_config or {"model_type": "llama"}))
        self.text_config = text_config
        self.perception = perception
        self.ctc_compression = ctc_compression
        self.audio_token, self.audio_token_id = audio_token, audio_token_id
        super().__init__(**kwargs)


class SpeechLMForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """perception → LLM, which reads an audio's embeddings where the prompt has the audio's token."""

    config_class = SpeechLMConfig
    main_input_name = "input_ids"
    _keep_in_fp32_modules_strict = {"perception", "alignment"}  # as in training, whatever the LLM is held in

    def __init__(self, config: SpeechLMConfig):
        super().__init__(config)
        self.llm = AutoModelForCausalLM.from_config(config.text_config)
        with _as_in_training():
            self.perception = Perception(OmegaConf.create(config.perception), self._token_embeddings(), True)
            has_ctc = config.ctc_compression
            self.alignment = EmbeddingCTC(self._token_embeddings, _no_text, _no_text) if has_ctc else None
        self.perception.with_frames = has_ctc
        for module in self.perception.modules():  # `from_pretrained` fills nothing but what the file holds
            for name, buffer in list(module.named_buffers(recurse=False)):
                module.register_buffer(name, buffer, persistent=True)
        self.post_init()

    def _token_embeddings(self) -> Tensor:
        return self.llm.get_input_embeddings().weight

    def get_input_embeddings(self) -> torch.nn.Module:
        """Return the LLM's embedding layer."""
        return self.llm.get_input_embeddings()

    def get_output_embeddings(self) -> torch.nn.Module | None:
        """Return the LLM's last layer."""
        return self.llm.get_output_embeddings()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        audio: Tensor | None = None,
        audio_lengths: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Return what the LLM returns for prompts with their audio embedded; see `embed`."""
        inputs = self.embed(input_ids, attention_mask, audio, audio_lengths)
        return self.llm(inputs_embeds=inputs.embeddings, attention_mask=inputs.attention_mask, **kwargs)

    @torch.no_grad()
    def generate(  # type: ignore[override]  # the prompt becomes embeddings, whose number only the audio tells
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        audio: Tensor | None = None,
        audio_lengths: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Return the answers' ids (B, L), without the prompts'; arguments are those of transformers' ``generate``.

        A repetition penalty counts the answer alone; transformers' own leaves out as many of an answer's tokens as
        its prompt is padded by.
        """
        inputs = self.embed(input_ids, attention_mask, audio, audio_lengths)
        config = copy.deepcopy(generation_config or self.generation_config)
        others = config.update(**kwargs)  # what is no setting of a search
        processors = LogitsProcessorList(others.pop("logits_processor", None) or [])
        if (config.repetition_penalty or 1.0) != 1.0:
            processors.append(RepetitionPenaltyLogitsProcessor(config.repetition_penalty))
        config.repetition_penalty = 1.0
        return self.llm.generate(
            inputs_embeds=inputs.embeddings,
            attention_mask=inputs.attention_mask,
            generation_config=config,
            logits_processor=processors,
            **others,
        )

    def embed(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        audio: Tensor | None = None,
        audio_lengths: Tensor | None = None,
    ) -> LLMInputs:
        """Embed prompts and put their audios in the places of `SpeechLMConfig.audio_token_id`, in order.

        Args:
            input_ids: (B, L); attention_mask: (B, L), 0 where there is padding.
            audio: samples at 16 kHz, (N, T), of all prompts; audio_lengths: (N,).

        Raises:
            ValueError: there are more or fewer audios than places.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        rows = [ids[kept.bool()].tolist() for ids, kept in zip(input_ids, mask, strict=True)]
        counts = [row.count(self.config.audio_token_id) for row in rows]
        heard = self._hear(audio, audio_lengths) if audio is not None else []
        if sum(counts) != len(heard):
            raise ValueError(f"the prompts have {sum(counts)} places for audio, and {len(heard)} audios were given")
        ends = np.cumsum(counts).tolist()
        audios = [heard[end - count : end] for count, end in zip(counts, ends, strict=True)]
        prompts = [_segments(row, self.config.audio_token_id) for row in rows]
        return join_segments(prompts, audios, self.get_input_embeddings())

    def _hear(self, audio: Tensor, audio_lengths: Tensor | None) -> list[Tensor]:
        """Return what the LLM reads of each audio, (T, d_llm)."""
        if audio_lengths is None:
            audio_lengths = torch.full((len(audio),), audio.shape[1], device=audio.device)
        perceived = self.perception(audio.float(), audio_lengths)
        values, lengths = perceived.embeddings
        if self.alignment is not None:
            frames, counts = perceived.frames
            values, lengths = self.alignment.compress(frames, counts, self.alignment.log_probs(frames))
        return [row[:length] for row, length in zip(values, lengths.tolist(), strict=True)]


class SpeechLMProcessor(ProcessorMixin):
    """Prompts and audio for `SpeechLMForConditionalGeneration`."""

    attributes = ["tokenizer"]
    tokenizer_class = "AutoTokenizer"
    model_input_names = ["input_ids", "attention_mask", "audio", "audio_lengths"]

    def __init__(self, tokenizer: Any, chat_template: str | None = None, audio_token: str = "<|audio|>"):
        super().__init__(tokenizer, chat_template=chat_template)
        self.audio_token = audio_token

    def __call__(
        self,
        text: str | list[str],
        audio: Any = None,
        sampling_rate: int = SAMPLE_RATE,
        **kwargs: Any,
    ) -> BatchFeature:
        """Return a model's inputs as tensors, prompts padded on the left.

        Args:
            text: prompts as the chat template writes them, with the audio's token for each audio.
            audio: samples (T,), or a list of them in the order of their places in the prompts.
            sampling_rate: of the samples; 16 kHz alone can be read.

        Raises:
            ValueError: the rate is another, or there are more or fewer audios than places.
        """
        if sampling_rate != SAMPLE_RATE:
            raise ValueError(f"the audio is at {sampling_rate} Hz; resample it to {SAMPLE_RATE} Hz")
        texts = [text] if isinstance(text, str) else list(text)
        audios = [] if audio is None else _as_list(audio)
        places = sum(text.count(self.audio_token) for text in texts)
        if places != len(audios):
            raise ValueError(
                f"the prompts have {places} times {self.audio_token}, and {len(audios)} audios were given"
            )
        # the template writes the tokens that begin a prompt
        options = {"padding": True, "padding_side": "left", "add_special_tokens": False, "return_tensors": "pt"}
        inputs = dict(self.tokenizer(texts, **options))
        if audios:
            samples = [torch.as_tensor(np.asarray(item), dtype=torch.float32) for item in audios]
            inputs["audio"] = pad_sequence(samples, batch_first=True)
            inputs["audio_lengths"] = torch.tensor([len(item) for item in samples])
        return BatchFeature(inputs)


@contextmanager
def _as_in_training() -> Iterator[None]:
    """Build what computes while it is built on a real device and in float32, which `from_pretrained` does not."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(default)


def _segments(ids: list[int], audio: int | None) -> list[Segment]:
    """Return a prompt's segments; ``audio`` is the token that stands for one."""
    segments: list[Segment] = []
    begin = 0
    places = [place for place, token in enumerate(ids) if token == audio]
    for index, place in enumerate(places):
        segments += [TextSegment(ids[begin:place]), AudioSegment(index)]
        begin = place + 1
    return [*segments, TextSegment(ids[begin:])]


def _as_list(audio: Any) -> list[Any]:
    is_one = isinstance(audio, np.ndarray | Tensor) and audio.ndim == 1
    return [audio] if is_one else list(audio)


def _no_text(_: Any) -> Any:
    raise NotImplementedError("an exported model's CTC reads audio embeddings, and neither texts nor their ids")

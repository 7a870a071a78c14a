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

"""Text lengths for NeMo's sampler, which batches and buckets by the sum of audio and text tokens.

Importing this registers a prompt format with NeMo: NeMo itself counts the transcripts of cuts alone, and multimodal
conversations only through a prompt format.
"""

from typing import Any

import numpy as np
from lhotse.cut import Cut
from nemo.collections.common.data.lhotse.text_adapters import NeMoMultimodalConversation, TextExample
from nemo.collections.common.data.prompt_fn import registered_prompt_format_fn
from nemo.collections.common.prompts import PromptFormatter
from omegaconf import DictConfig, ListConfig
from transformers import PreTrainedTokenizerBase

from nemo_speechllm.data.conversation import Turn
from nemo_speechllm.data.dataset import ConversationBuilder

PROMPT_FORMAT = "nemo_speechllm"


class TextTokenizer:
    """What NeMo's dataloader takes for its tokenizer: text of an example's turns to token ids.

    Args:
        builder: makes the conversation of an example, so that instruction and keywords count as well.
        tokenizer: of the LLM.
        answers_alone: nothing is asked of what comes before the answer.
    """

    def __init__(self, builder: ConversationBuilder, tokenizer: PreTrainedTokenizerBase, answers_alone: bool = False):
        self.builder = builder
        self.tokenizer = tokenizer
        self.answers_alone = answers_alone

    def __call__(self, example: Any) -> tuple[list[int], list[int]]:
        """Ids of the text before the answer, and of the answer; the chat template's few are not counted."""
        conversation = self.builder.from_example(example)
        turns, asked = conversation.rendered(self.builder.keyword_template), len(conversation.without_answer().turns)
        return [] if self.answers_alone else self._ids(turns[:asked]), self._ids(turns[asked:])

    def _ids(self, turns: list[Turn]) -> list[int]:
        return [i for turn in turns for i in self.tokenizer(turn.text, add_special_tokens=False).input_ids]


def has_bins_of_answers(cfg: DictConfig) -> bool:
    """Tell whether a section's ``bucket_duration_bins`` are pairs of seconds of audio and tokens of the answer."""
    bins = cfg.get("bucket_duration_bins")
    return bool(bins) and isinstance(bins[0], ListConfig)


class TextLength(PromptFormatter):
    """The prompt format under whose name NeMo finds the two functions below; it renders nothing itself."""

    NAME = PROMPT_FORMAT
    OUTPUT_ROLE = "assistant"
    TEMPLATE = {"user": {"template": ""}, "assistant": {"template": ""}}


@registered_prompt_format_fn(Cut, TextLength)
def _measure_cut(cut: Cut, prompt: TextLength) -> dict[str, np.ndarray]:
    """NeMo measures a cut by its duration and the tokens of its supervisions."""
    question, answer = prompt.tokenizer(cut)
    cut.supervisions[0].tokens = np.array(question + answer)
    return {}


@registered_prompt_format_fn(NeMoMultimodalConversation, TextLength)
def _measure_conversation(conversation: NeMoMultimodalConversation, prompt: TextLength) -> dict[str, np.ndarray]:
    """NeMo takes one of the ids for the place of each audio, and puts the audio's length in its stead."""
    question, answer = prompt.tokenizer(conversation)
    context = np.array(question + [0] * len(conversation.list_cuts()))
    return {
        "context_ids": context,
        "answer_ids": np.array(answer),
        "input_ids": np.concatenate([context, np.array(answer, dtype=context.dtype)]),
    }


@registered_prompt_format_fn(TextExample, TextLength)
def _measure_text(example: TextExample, prompt: TextLength) -> dict[str, np.ndarray]:
    """Count a line of text twice: as what CTC hears of it, about as many positions, and as the answer."""
    question, answer = prompt.tokenizer(example)
    context, answer = np.array(question + answer), np.array(answer)
    return {"context_ids": context, "answer_ids": answer, "input_ids": np.concatenate([context, answer])}

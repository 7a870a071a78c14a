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

"""A Hugging Face LLM in this process."""

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from nemo_speechllm.data.conversation import Conversation, Turn
from nemo_speechllm.data.dataset import in_batches
from nemo_speechllm.engines.engine import Completion, Request
from nemo_speechllm.prompts.chat_prompt import ChatPrompt
from nemo_speechllm.prompts.segments import TextSegment


class TransformersEngine:
    """A Hugging Face LLM in this process, greedy, in batches of similar length; answers do not depend on the batch.

    Args:
        llm: in float32 for answers that are the same in any batch.
        tokenizer: with a chat template; the prompt is rendered as it is for training.
        batch_size: how many are answered together.
        max_new_tokens: limit of an answer.
    """

    def __init__(
        self, llm: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int = 8, max_new_tokens: int = 256
    ):
        self.llm = llm.eval()
        self.tokenizer = tokenizer
        self.prompt = ChatPrompt(tokenizer)
        self.batch_size = batch_size
        end = self.prompt.end_token_id
        self.config = GenerationConfig(
            max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=end, pad_token_id=end
        )

    def __call__(self, requests: Sequence[Request]) -> Iterator[tuple[str, Completion]]:
        """Yield the id of each request with its completion; requests of like length go together."""
        prompts = [(request.id, self._prompt_ids(request)) for request in requests]
        prompts.sort(key=lambda prompt: len(prompt[1]))
        for batch in in_batches(prompts, self.batch_size):
            yield from zip([id for id, _ in batch], self._complete([ids for _, ids in batch]), strict=True)

    def _prompt_ids(self, request: Request) -> list[int]:
        segments = self.prompt.segments(Conversation(request.id, [Turn("user", [request.message])]))
        return [token for segment in segments if isinstance(segment, TextSegment) for token in segment.ids]

    @torch.inference_mode()
    def _complete(self, prompts: list[list[int]]) -> list[Completion]:
        length = max(map(len, prompts))
        ids = torch.full((len(prompts), length), self.config.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, length - len(prompt) :] = torch.tensor(prompt)
            mask[row, length - len(prompt) :] = 1
        device = self.llm.device
        output = self.llm.generate(ids.to(device), attention_mask=mask.to(device), generation_config=self.config)
        return [self._completion(row) for row in output[:, length:].tolist()]

    def _completion(self, ids: list[int]) -> Completion:
        end = self.prompt.end_token_id
        written = ids[: ids.index(end)] if end in ids else ids
        answer = cast(str, self.tokenizer.decode(written, skip_special_tokens=True))
        return Completion(answer.strip(), end not in ids)

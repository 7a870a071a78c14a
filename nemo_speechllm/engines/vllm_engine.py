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

"""An LLM in this process, by vLLM."""

import importlib.util
from collections.abc import Iterator, Sequence

from nemo_speechllm.data.dataset import in_batches
from nemo_speechllm.engines.engine import Completion, Request


class VLLMEngine:
    """vLLM in this process, greedy.

    Args:
        folder: Hugging Face model folder.
        batch_size: how many are handed over together; vLLM schedules them itself.
        max_new_tokens: limit of an answer.

    Raises:
        ImportError: vLLM is not installed.
    """

    def __init__(self, folder: str, batch_size: int = 256, max_new_tokens: int = 256):
        if not importlib.util.find_spec("vllm"):
            raise ImportError(
                "engine=vllm needs vLLM: `pip install vllm`, or use engine=transformers or engine=endpoint"
            )
        import vllm

        self.llm = vllm.LLM(folder)
        self.sampling = vllm.SamplingParams(temperature=0.0, max_tokens=max_new_tokens)
        self.batch_size = batch_size

    def __call__(self, requests: Sequence[Request]) -> Iterator[tuple[str, Completion]]:
        """Yield the id of each request with its completion, in order."""
        for batch in in_batches(requests, self.batch_size):
            turns = [[{"role": "user", "content": request.message}] for request in batch]
            for request, output in zip(batch, self.llm.chat(turns, self.sampling, use_tqdm=False), strict=True):
                answer = output.outputs[0]
                yield request.id, Completion(answer.text.strip(), answer.finish_reason == "length")

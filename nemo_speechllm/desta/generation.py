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

"""Descriptions from seed transcripts, by the LLM that will be trained against (2409.20007, section 3.1).

One user turn, with seed and question, is answered greedily. Three engines with one face: transformers, an OpenAI-like
endpoint, vLLM.
"""

import importlib.util
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import cast

import httpx
import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from nemo_speechllm.data.conversation import Conversation, Turn
from nemo_speechllm.data.dataset import in_batches
from nemo_speechllm.prompts.chat_prompt import ChatPrompt
from nemo_speechllm.prompts.segments import TextSegment

LONGEST_WAIT = 60.0  # s, between two attempts


class EndpointError(RuntimeError):
    """An endpoint that refuses a request or stays away; the message names it and the remedy."""


@dataclass(frozen=True)
class Request:
    """What is asked about a clip: its ``id`` and the user's ``message``."""

    id: str
    message: str


@dataclass(frozen=True)
class Completion:
    """The LLM's ``text``, and whether it was cut at the limit of new tokens."""

    text: str
    truncated: bool


# Requests to completions with the requests' ids, as they are finished, in any order.
Engine = Callable[[Sequence[Request]], Iterator[tuple[str, Completion]]]


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


class EndpointEngine:
    """An OpenAI-compatible server (``/chat/completions``), greedy; its key, if any, is in ``$OPENAI_API_KEY``.

    Args:
        url: up to and with the version, e.g. ``http://localhost:8000/v1``.
        model: the name it serves the LLM under.
        concurrency: requests under way at a time, at most.
        attempts: at a request; waits double from ``first_wait`` unless the server says ``Retry-After``.
        timeout: seconds until a request counts as lost.
        first_wait: seconds.
        max_new_tokens: limit of an answer.
    """

    def __init__(
        self,
        url: str,
        model: str,
        concurrency: int = 16,
        attempts: int = 6,
        timeout: float = 120.0,
        first_wait: float = 1.0,
        max_new_tokens: int = 256,
    ):
        self.url = f"{url.rstrip('/')}/chat/completions"
        self.model = model
        self.concurrency = concurrency
        self.attempts = attempts
        self.first_wait = first_wait
        self.max_new_tokens = max_new_tokens
        key = os.environ.get("OPENAI_API_KEY")
        self.client = httpx.Client(
            timeout=timeout,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            limits=httpx.Limits(max_connections=concurrency),
        )

    def __call__(self, requests: Sequence[Request]) -> Iterator[tuple[str, Completion]]:
        """Yield the id of each request with its completion, as they come.

        Raises:
            EndpointError: a request was refused, or failed in all attempts; the others under way are given up.
        """
        stopped, coming = threading.Event(), iter(requests)
        with ThreadPoolExecutor(self.concurrency) as pool:
            under_way: dict[Future[Completion], str] = {}
            try:
                while True:
                    while len(under_way) < self.concurrency and (request := next(coming, None)) is not None:
                        under_way[pool.submit(self._complete, request, stopped)] = request.id
                    if not under_way:
                        return
                    for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                        yield under_way.pop(future), future.result()
            finally:
                stopped.set()  # nobody waits for another attempt

    def _complete(self, request: Request, stopped: threading.Event) -> Completion:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": request.message}],
            "temperature": 0,
            "max_tokens": self.max_new_tokens,
        }
        for attempt in range(1, self.attempts + 1):
            pause = min(self.first_wait * 2 ** (attempt - 1), LONGEST_WAIT)
            try:
                response = self.client.post(self.url, json=body)
            except httpx.TransportError as error:
                problem = f"{type(error).__name__}: {error}"
            else:
                if response.is_success:
                    return _read_completion(self.url, response)
                problem = f"status {response.status_code}: {response.text[:500]}"
                if response.status_code not in (408, 409, 429) and response.status_code < 500:
                    raise EndpointError(
                        f"{self.url} refuses the request for {request.id} ({problem}); correct `endpoint`"
                    )
                pause = _retry_after(response) or pause
            if attempt == self.attempts or stopped.wait(pause):
                break
        raise EndpointError(
            f"{self.url} failed {attempt} times on {request.id} ({problem}); see to the server and run the same "
            "command again: what is done is kept"
        )


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds the server asks for; dates, which the header may also hold, are left to the back-off."""
    value = response.headers.get("Retry-After", "")
    return float(value) if re.fullmatch(r"\d+(\.\d+)?", value) else None


def _read_completion(url: str, response: httpx.Response) -> Completion:
    try:
        (choice,) = response.json()["choices"]
        return Completion((choice["message"]["content"] or "").strip(), choice["finish_reason"] == "length")
    except (ValueError, KeyError, TypeError) as error:
        raise EndpointError(f"{url}: no chat completion in the answer {response.text[:500]!r}") from error


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


_REFUSAL = re.compile(
    r"\bas an? (?:\w+[ -]){0,3}(?:AI|language model|assistant)\b|"
    r"\bI(?:['’]m| am) (?:sorry|unable|not able|afraid|just an? |only an? )|"
    r"\bI (?:can(?:no|['’])t|do(?: not|n['’]t) have the (?:ability|capability)|apologi[sz]e)\b|"
    r"\b(?:no audio|the audio) (?:was|is|has)(?: not| n['’]t)? (?:been )?(?:provided|attached|available)\b",
    re.IGNORECASE,
)
_SEED_HEAD = re.compile(r"\[\d\d:\d\d:\d\d - \d\d:\d\d:\d\d\]")
REASONS = ("empty", "truncated", "refusal", "echo")


def reason_to_reject(completion: Completion, seed: str) -> str | None:
    """Why a description is not to be learnt from, one of ``REASONS``, or None.

    A refusal speaks of what the LLM cannot do, in the first sentence or two. An echo writes out a time stamp or a list
    of attributes as the seed transcript does: a model that hears would have to invent them.

    Args:
        completion: the LLM's.
        seed: the seed transcript it was given.
    """
    text = completion.text
    if not text:
        return "empty"
    if completion.truncated:
        return "truncated"
    if _REFUSAL.search(text[:200]):
        return "refusal"
    lists = [line.rpartition('" ')[2] for line in seed.splitlines() if line.endswith(")")]
    return "echo" if _SEED_HEAD.search(text) or any(written in text for written in lists) else None

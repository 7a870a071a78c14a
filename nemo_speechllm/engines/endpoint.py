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

"""An LLM behind an OpenAI-compatible endpoint, through the `openai` client."""

import os
import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import openai

from nemo_speechllm.engines.engine import Completion, Request

LONGEST_WAIT = 60.0  # s, between two attempts


class EndpointError(RuntimeError):
    """An endpoint that refuses a request or stays away; the message names it and the remedy."""


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
        self.url = url.rstrip("/")
        self.model = model
        self.concurrency = concurrency
        self.attempts = attempts
        self.first_wait = first_wait
        self.max_new_tokens = max_new_tokens
        key = os.environ.get("OPENAI_API_KEY") or "none"  # a server of one's own asks for none
        # attempts are counted here: one that waits ends as soon as another request is refused
        self.client = openai.OpenAI(base_url=self.url, api_key=key, timeout=timeout, max_retries=0)

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
        for attempt in range(1, self.attempts + 1):
            pause = min(self.first_wait * 2 ** (attempt - 1), LONGEST_WAIT)
            try:
                return self._asked(request)
            except openai.APIConnectionError as error:
                problem = f"{type(error).__name__}: {error.__cause__ or error}"
            except openai.APIStatusError as error:
                problem = f"status {error.status_code}: {error.response.text[:500]}"
                if error.status_code not in (408, 409, 429) and error.status_code < 500:
                    raise EndpointError(
                        f"{self.url} refuses the request for {request.id} ({problem}); correct the endpoint's url and "
                        "model, or $OPENAI_API_KEY"
                    ) from error
                pause = _retry_after(error.response.headers.get("Retry-After", "")) or pause
            if attempt == self.attempts or stopped.wait(pause):
                break
        raise EndpointError(
            f"{self.url} failed {attempt} times on {request.id} ({problem}); see to the server and run the same "
            "command again: what is done is kept"
        )

    def _asked(self, request: Request) -> Completion:
        try:
            answer = self.client.chat.completions.create(
                model=self.model,
                messages=[{"role": "user", "content": request.message}],
                temperature=0,
                max_tokens=self.max_new_tokens,
            )
            (choice,) = answer.choices
            return Completion((choice.message.content or "").strip(), choice.finish_reason == "length")
        except (openai.APIResponseValidationError, ValueError, TypeError, AttributeError) as error:
            raise EndpointError(f"{self.url}: no chat completion in the answer for {request.id}: {error}") from error


def _retry_after(value: str) -> float | None:
    """Return the seconds the server asks for; dates, which the header may also hold, are left to the back-off."""
    return float(value) if re.fullmatch(r"\d+(\.\d+)?", value) else None

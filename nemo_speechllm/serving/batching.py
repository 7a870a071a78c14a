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

"""Pieces of recordings of all clients, answered together by one thread that owns the models."""

import heapq
import itertools
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from nemo_speechllm.data.conversation import Conversation
from nemo_speechllm.models.answers import Answer
from nemo_speechllm.serving.errors import RequestError

Group = tuple[Any, ...]  # what is the same for all that is answered together: the model and its settings
REQUESTS, SECONDS = "requests", "seconds of audio"
logger = logging.getLogger(__name__)


@dataclass(order=True)
class _Piece:
    rank: tuple[int, int]
    group: Group = field(compare=False)
    conversation: Conversation = field(compare=False)
    future: "Future[Answer]" = field(compare=False, default_factory=Future)


class Batcher:
    """Collects what is waiting, up to a batch, and answers it.

    Pieces go by the time at which they came, each further piece of a long recording as if it had come one request
    later: it does not hold up the others, nor they it.

    Args:
        answer: gives answers to pieces of one group. Where it fails on several, each is asked alone.
        batch_size: the most that are answered together.
        watch: is told the number of pieces of each batch.
    """

    def __init__(
        self,
        answer: Callable[[Group, list[Conversation]], list[Answer]],
        batch_size: int,
        watch: Callable[[int], None] = lambda pieces: None,
    ):
        self._answer, self._batch_size, self._watch = answer, batch_size, watch
        self._waiting: list[_Piece] = []
        self._numbers, self._requests = itertools.count(), itertools.count()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="answering", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Tell whether anything is answered."""
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """Number of pieces that wait."""
        return len(self._waiting)

    def submit(self, group: Group, pieces: Sequence[Conversation]) -> "list[Future[Answer]]":
        """Return what will be the answers to the pieces of a recording; one that is cancelled is not answered."""
        with self._changed:
            came = next(self._requests)
            put = [_Piece((came + i, next(self._numbers)), group, piece) for i, piece in enumerate(pieces)]
            for piece in put:
                heapq.heappush(self._waiting, piece)
            self._changed.notify()
        return [piece.future for piece in put]

    def close(self) -> None:
        """Answer the batch that was begun, and no other; end the thread."""
        with self._changed:
            self._closed = True
            for piece in self._waiting:
                piece.future.cancel()
            self._waiting.clear()
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next_batch():
            self._watch(len(batch))
            self._answer_batch(batch)

    def _next_batch(self) -> list[_Piece]:
        """Wait for pieces and take the first of them with those of its group; none where it is closed."""
        with self._changed:
            batch: list[_Piece] = []
            while not batch:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return []
                batch = self._take()
            return batch

    def _take(self) -> list[_Piece]:
        taken: list[_Piece] = []
        left: list[_Piece] = []
        while self._waiting and len(taken) < self._batch_size:
            piece = heapq.heappop(self._waiting)
            if taken and piece.group != taken[0].group:
                left.append(piece)
            elif piece.future.set_running_or_notify_cancel():
                taken.append(piece)
        for piece in left:
            heapq.heappush(self._waiting, piece)
        return taken

    def _answer_batch(self, batch: list[_Piece]) -> None:
        """Answer pieces together; where that fails, each alone, so that one ends no other's request."""
        try:
            answers = self._answer(batch[0].group, [piece.conversation for piece in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            logger.warning("a batch of %d pieces failed (%s); each is answered alone", len(batch), error)
            for piece in batch:
                self._answer_batch([piece])
            return
        for piece, answer in zip(batch, answers, strict=True):
            piece.future.set_result(answer)


class Admission:
    """Bounds what waits or is being answered, in requests and in seconds of audio.

    Args:
        requests, seconds: the most there may be.
    """

    def __init__(self, requests: int, seconds: float):
        self._most = {REQUESTS: requests, SECONDS: seconds}
        self.held = {REQUESTS: 0.0, SECONDS: 0.0}

    @contextmanager
    def place(self, what: str, amount: float = 1) -> Iterator[None]:
        """Hold a place for a request, or for the seconds of its audio; there is always one for the first.

        Raises:
            RequestError: there is none; the client is to come again.
        """
        if self.held[what] and self.held[what] + amount > self._most[what]:
            raise RequestError(
                f"{self.held[what]:.0f} {what} are waiting already; try again in a second",
                *(None, 429, "queue_full", {"Retry-After": "1"}),
            )
        self.held[what] += amount
        try:
            yield
        finally:
            self.held[what] -= amount

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

"""What waits is answered together by one thread; a failing piece ends no other."""

import threading
from concurrent.futures import CancelledError

import pytest

from nemo_speechllm.data.conversation import Conversation, Turn
from nemo_speechllm.models.answers import Answer
from nemo_speechllm.serving.batching import REQUESTS, SECONDS, Admission, Batcher
from nemo_speechllm.serving.errors import RequestError


def said(text: str) -> Conversation:
    return Conversation(text, [Turn("user", [text])])


class Echo:
    """Answers with the text, once it may; keeps what was answered together."""

    def __init__(self):
        self.batches, self.go = [], threading.Event()

    def __call__(self, group, conversations):
        assert self.go.wait(10)
        self.batches.append((group, [item.id for item in conversations]))
        if any(item.id == "bad" for item in conversations):
            raise ValueError("a bad one")
        return [Answer(item.id, [], False) for item in conversations]


@pytest.fixture
def echo():
    return Echo()


@pytest.fixture
def batcher(echo):
    """Is busy with a first piece until ``echo.go`` is set."""
    batcher = Batcher(echo, 3)
    batcher.submit(("first",), [said("first")])
    while batcher.waiting:
        pass
    yield batcher
    echo.go.set()
    batcher.close()


def test_what_waits_is_answered_together_by_group_and_up_to_a_batch(echo, batcher):
    futures = [batcher.submit((group,), [said(f"{group}{n}")])[0] for n in range(4) for group in "ab"]
    echo.go.set()
    assert [future.result(10).text for future in futures] == [f"{group}{n}" for n in range(4) for group in "ab"]
    assert echo.batches[1:3] == [(("a",), ["a0", "a1", "a2"]), (("b",), ["b0", "b1", "b2"])]
    assert {size for size in map(len, (ids for _, ids in echo.batches[3:]))} == {1}


def test_a_long_recording_does_not_hold_up_who_comes_later(echo, batcher):
    long = batcher.submit(("a",), [said(f"long{n}") for n in range(6)])
    short = batcher.submit(("a",), [said("short")])
    echo.go.set()
    assert short[0].result(10).text == "short" and long[-1].result(10).text == "long5"
    assert echo.batches[1] == (("a",), ["long0", "long1", "short"])


def test_one_that_fails_ends_no_other(echo, batcher):
    good, bad, other = (batcher.submit(("a",), [said(text)])[0] for text in ("good", "bad", "other"))
    echo.go.set()
    assert good.result(10).text == "good" and other.result(10).text == "other"
    with pytest.raises(ValueError, match="a bad one"):
        bad.result(10)
    assert batcher.submit(("a",), [said("later")])[0].result(10).text == "later" and batcher.alive


def test_what_nobody_waits_for_is_not_answered(echo, batcher):
    gone, kept = (batcher.submit(("a",), [said(text)])[0] for text in ("gone", "kept"))
    gone.cancel()
    echo.go.set()
    assert kept.result(10).text == "kept" and echo.batches[-1] == (("a",), ["kept"])


def test_closing_ends_the_thread_and_what_waits(echo, batcher):
    (waiting,) = batcher.submit(("a",), [said("x")])
    threading.Timer(0.1, echo.go.set).start()
    batcher.close()
    with pytest.raises(CancelledError):
        waiting.result(10)
    assert not batcher.alive


def test_places_are_bounded_and_given_back():
    admission = Admission(requests=1, seconds=10)
    with admission.place(REQUESTS), admission.place(SECONDS, 8):
        for what, amount in ((REQUESTS, 1), (SECONDS, 3)):
            with (
                pytest.raises(RequestError, match=f"{what} are waiting already") as raised,
                admission.place(what, amount),
            ):
                pass
            assert raised.value.status == 429 and raised.value.headers == {"Retry-After": "1"}
    with admission.place(REQUESTS), admission.place(SECONDS, 30):
        assert admission.held == {REQUESTS: 1, SECONDS: 30}

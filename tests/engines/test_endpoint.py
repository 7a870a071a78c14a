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

"""An LLM behind an endpoint: retries, bounded concurrency, what is refused is named."""

import pytest

from nemo_speechllm.engines.endpoint import EndpointEngine, EndpointError
from nemo_speechllm.engines.engine import Completion, Request

SEED = '[00:00:00 - 00:00:02]: "Go." (Gender:Male, Emotion: neutral)'
REQUESTS = [Request(str(i), f"{SEED}\n" + "What can you hear? " * (1 + 3 * i)) for i in range(5)]


def connect(endpoint, **options) -> EndpointEngine:
    return EndpointEngine(endpoint.url, "tiny", **{"first_wait": 0.001, "max_new_tokens": 9} | options)


def test_asks_greedily_in_one_user_turn(endpoint, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    ((id, completion),) = connect(endpoint)(REQUESTS[:1])
    assert id == "0" and completion.text.startswith("I can hear") and not completion.truncated
    body = {"model": "tiny", "messages": [{"role": "user", "content": REQUESTS[0].message}]}
    body |= {"temperature": 0, "max_tokens": 9}
    assert endpoint.requests == [("/v1/chat/completions", body, "Bearer key")]


def test_answers_come_with_their_ids_and_a_bounded_number_is_under_way(endpoint):
    endpoint.seconds = 0.03
    requests = [Request(str(i), f"message {i}") for i in range(20)]
    answers = dict(connect(endpoint, concurrency=3)(requests))
    again = dict(connect(endpoint, concurrency=1)(requests[:2]))
    assert set(answers) == {request.id for request in requests} and again.items() <= answers.items()
    assert 1 < endpoint.peak <= 3 and len(endpoint.requests) == 22


def test_tries_again_when_told_to_wait_and_when_the_server_fails(endpoint):
    endpoint.script = [(429, {"Retry-After": "0.01"}, {}), (500, {}, {}), (503, {}, {})]
    assert dict(connect(endpoint, attempts=4)(REQUESTS[:1]))["0"].text.startswith("I can hear")
    assert len(endpoint.requests) == 4


class Waits(list):
    """In the place of the event that ends all waiting: notes how long it is waited for."""

    def wait(self, seconds: float) -> bool:
        self.append(seconds)
        return False


def test_waits_double_unless_the_server_says_how_long(endpoint):
    endpoint.script = [(500, {}, {}), (500, {}, {}), (429, {"Retry-After": "7"}, {}), (500, {}, {})]
    waits = Waits()
    connect(endpoint, first_wait=1.0)._complete(REQUESTS[0], waits)
    assert waits == [1.0, 2.0, 7.0, 8.0]


def test_gives_up_after_the_last_attempt_with_what_to_do(endpoint):
    endpoint.script = [(500, {}, {"error": "no memory"})] * 3
    with pytest.raises(EndpointError, match="failed 3 times on 0 .status 500.*no memory.*run the same command again"):
        list(connect(endpoint, attempts=3)(REQUESTS[:1]))


def test_a_refused_request_is_not_repeated(endpoint):
    endpoint.script = [(404, {}, {"error": "no model tiny"})]
    with pytest.raises(
        EndpointError,
        match="refuses the request for 0 .status 404.*no model tiny.*correct the endpoint's url",
    ):
        list(connect(endpoint)(REQUESTS[:1]))
    assert len(endpoint.requests) == 1


def test_an_absent_server_and_a_foreign_one_are_named(endpoint):
    with pytest.raises(EndpointError, match="failed 2 times on 0 .*Connection refused"):
        list(EndpointEngine("http://127.0.0.1:9/v1", "tiny", attempts=2, first_wait=0.001)(REQUESTS[:1]))
    endpoint.script = [(200, {}, {"hello": "world"})]
    with pytest.raises(EndpointError, match="no chat completion in the answer"):
        list(connect(endpoint)(REQUESTS[:1]))


def test_an_answer_cut_at_the_limit_is_truncated(endpoint):
    cut = {"choices": [{"message": {"content": " A voice "}, "finish_reason": "length"}]}
    endpoint.script = [(200, {}, cut)]
    assert dict(connect(endpoint)(REQUESTS[:1])) == {"0": Completion("A voice", True)}

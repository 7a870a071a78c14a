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

"""Engines: batches that change nothing, retries, bounded concurrency; filters."""

import importlib.util

import pytest
import torch
from transformers import AutoModelForCausalLM

from nemo_speechllm.desta.generation import (
    Completion,
    EndpointEngine,
    EndpointError,
    Request,
    TransformersEngine,
    VLLMEngine,
    reason_to_reject,
)

SEED = '[00:00:00 - 00:00:02]: "Go." (Gender:Male, Emotion: neutral)'
REQUESTS = [Request(str(i), f"{SEED}\n" + "What can you hear? " * (1 + 3 * i)) for i in range(5)]


# -------------------------------------------------------------------------------------------------------- transformers


@pytest.fixture
def llm(tiny_llm_folder):
    """Weights so large that an answer depends on all of its prompt."""
    llm = AutoModelForCausalLM.from_pretrained(tiny_llm_folder)
    torch.manual_seed(0)
    for weight in llm.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.3)
    return llm


def test_answers_do_not_depend_on_the_batch(llm, tokenizer):
    alone = dict(TransformersEngine(llm, tokenizer, batch_size=1, max_new_tokens=12)(REQUESTS))
    assert len({completion.text for completion in alone.values()}) > 1
    for batch_size in (2, 5):
        assert dict(TransformersEngine(llm, tokenizer, batch_size, 12)(REQUESTS[::-1])) == alone


def test_an_answer_is_what_the_llm_says_to_the_rendered_chat(llm, tokenizer):
    chat = [{"role": "user", "content": REQUESTS[1].message}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    ids = llm.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt.input_ids.shape[1] :]
    ((id, completion),) = TransformersEngine(llm, tokenizer, max_new_tokens=12)(REQUESTS[1:2])
    assert (id, completion) == ("1", Completion(tokenizer.decode(ids, skip_special_tokens=True).strip(), True))


def test_an_answer_that_ends_is_not_truncated(llm, tokenizer):
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    llm.lm_head = torch.nn.Linear(64, len(tokenizer))
    torch.nn.init.zeros_(llm.lm_head.weight)
    llm.lm_head.bias.data = torch.nn.functional.one_hot(torch.tensor(end), len(tokenizer)).float()
    assert dict(TransformersEngine(llm, tokenizer)(REQUESTS[:1])) == {"0": Completion("", False)}


# ------------------------------------------------------------------------------------------------------------ endpoint


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
        EndpointError, match="refuses the request for 0 .status 404.*no model tiny.*correct `endpoint`"
    ):
        list(connect(endpoint)(REQUESTS[:1]))
    assert len(endpoint.requests) == 1


def test_an_absent_server_and_a_foreign_one_are_named(endpoint):
    with pytest.raises(EndpointError, match="failed 2 times on 0 .ConnectError"):
        list(EndpointEngine("http://127.0.0.1:9/v1", "tiny", attempts=2, first_wait=0.001)(REQUESTS[:1]))
    endpoint.script = [(200, {}, {"hello": "world"})]
    with pytest.raises(EndpointError, match="no chat completion in the answer"):
        list(connect(endpoint)(REQUESTS[:1]))


def test_an_answer_cut_at_the_limit_is_truncated(endpoint):
    cut = {"choices": [{"message": {"content": " A voice "}, "finish_reason": "length"}]}
    endpoint.script = [(200, {}, cut)]
    assert dict(connect(endpoint)(REQUESTS[:1])) == {"0": Completion("A voice", True)}


# ---------------------------------------------------------------------------------------------------------------- vLLM


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_vllm_names_its_package_where_it_is_missing(tmp_path):
    with pytest.raises(ImportError, match="`pip install vllm`, or use engine=transformers"):
        VLLMEngine(str(tmp_path))


# ------------------------------------------------------------------------------------------------------------- filters


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("I can hear a man who says “Go.” He sounds neutral.", None),
        ("A man says that he cannot help. I am sure he is sad.", None),
        ("", "empty"),
        ("I'm sorry, but I cannot listen to audio.", "refusal"),
        ("As a text-based AI, I don't have the ability to hear.", "refusal"),
        ("As an AI language model, I hear nothing.", "refusal"),
        ("I'm just a language model.", "refusal"),
        (f"The audio is: {SEED}", "echo"),
        ("[00:00:00 - 00:00:02] A man speaks.", "echo"),
        ('He says: "Go." (Gender:Male, Emotion: neutral)', "echo"),
    ],
)
def test_rejects_refusals_and_echoes(text, reason):
    assert reason_to_reject(Completion(text, False), SEED) == reason


def test_rejects_truncated_answers():
    assert reason_to_reject(Completion("I can hear a", True), SEED) == "truncated"

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

"""Targets of a language model are asked for once; without one, words are extracted."""

import json

import httpx
import pytest
from omegaconf import OmegaConf

from nemo_speechllm.training import llm_targets
from nemo_speechllm.training.llm_targets import CachedTargets, EndpointLLM, LocalLLM, build_targets, extractive_target


@pytest.mark.parametrize(
    "skill, transcript, target",
    [
        ("summarise", "The call is for you, the call!", "call"),
        ("summarise", "Please hold the line.", "hold line"),
        ("summarise", "it is", "it is"),
        ("summarise", "", ""),
        ("keywords", "Please press one for technical support, technical staff or sales", "press, technical, support"),
        ("keywords", "three seven", "three, seven"),
    ],
)
def test_extracts_content_words_in_order(skill, transcript, target):
    assert extractive_target(skill, transcript) == target


def test_extraction_knows_no_other_skill():
    with pytest.raises(ValueError, match="'reverse' is not one of"):
        extractive_target("reverse", "one")


def test_a_model_is_asked_once_for_each_transcript_prompt_and_model(tmp_path):
    prompts = []

    def complete(prompt: str) -> str:
        prompts.append(prompt)
        return f" answer\n{len(prompts)} "

    targets = CachedTargets(complete, "m", tmp_path)
    assert [targets("summarise", "one {transcript} two") for _ in range(2)] == ["answer 1"] * 2
    assert prompts[0].endswith("\n\none {transcript} two")
    assert targets("keywords", "one {transcript} two") == "answer 2" and targets("summarise", "three") == "answer 3"
    assert CachedTargets(complete, "other", tmp_path)("summarise", "three") == "answer 4"
    assert CachedTargets(None, "m", tmp_path)("summarise", "three") == "answer 3", "a later run reads the cache"
    assert targets("summarise", " … ") == "" and len(prompts) == 4
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".json"]


def endpoint(answers: list[httpx.Response], requests: list[httpx.Request]) -> EndpointLLM:
    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return answers[len(requests) - 1]

    return EndpointLLM("http://llm/v1/", "m", httpx.Client(transport=httpx.MockTransport(answer)))


def test_an_endpoint_that_is_busy_is_asked_again(monkeypatch):
    monkeypatch.setattr(llm_targets.time, "sleep", lambda seconds: None)
    good = httpx.Response(200, json={"choices": [{"message": {"content": "a summary"}}]})
    requests = []
    assert endpoint([httpx.Response(429), httpx.Response(503), good], requests)("Say it.") == "a summary"
    assert str(requests[0].url) == "http://llm/v1/chat/completions" and len(requests) == 3
    body = json.loads(requests[0].content)
    assert body["model"] == "m" and body["temperature"] == 0
    assert body["messages"] == [{"role": "user", "content": "Say it."}]


@pytest.mark.parametrize(
    "response", [httpx.Response(401), httpx.Response(200, json={}), httpx.Response(200, text="hm")]
)
def test_an_endpoint_that_refuses_is_named(response):
    with pytest.raises(RuntimeError, match="http://llm/v1 gave no answer of m .*check targets.url"):
        endpoint([response], [])("Say it.")


def test_a_local_model_answers_the_same_each_time(tiny_llm_folder):
    model = LocalLLM(str(tiny_llm_folder))
    assert model("Say it.") == model("Say it.")


def test_recipes_name_where_targets_come_from(tmp_path):
    assert build_targets(OmegaConf.create({"kind": "extractive"})) is extractive_target
    cfg = {"kind": "endpoint", "url": "http://llm/v1", "model": "m", "cache": str(tmp_path)}
    assert build_targets(OmegaConf.create(cfg)).complete.url == "http://llm/v1"

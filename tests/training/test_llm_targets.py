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

from collections.abc import Iterator
from pathlib import Path

import pytest

from nemo_speechllm.engines.endpoint import EndpointError
from nemo_speechllm.engines.engine import Completion, Request
from nemo_speechllm.recipes import sections
from nemo_speechllm.training.llm_targets import CachedTargets, Targets, build_targets, extractive_target


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

    def engine(requests: list[Request]) -> Iterator[tuple[str, Completion]]:
        for request in requests:
            prompts.append(request.message)
            yield request.id, Completion(f" answer\n{len(prompts)} ", False)

    targets = CachedTargets(engine, "m", tmp_path)
    assert [targets("summarise", "one {transcript} two") for _ in range(2)] == ["answer 1"] * 2
    assert prompts[0].endswith("\n\none {transcript} two")
    assert targets("keywords", "one {transcript} two") == "answer 2" and targets("summarise", "three") == "answer 3"
    assert CachedTargets(engine, "other", tmp_path)("summarise", "three") == "answer 4"
    assert CachedTargets(None, "m", tmp_path)("summarise", "three") == "answer 3", "a later run reads the cache"
    assert targets("summarise", " … ") == "" and len(prompts) == 4
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".json"]


def targets_of(kind: str, model: str, cache: Path, **cfg: str) -> Targets:
    return build_targets(sections.Targets(kind=kind, model=model, cache=str(cache), **cfg))


def test_an_endpoint_writes_targets(endpoint, tmp_path):
    endpoint.reply = lambda message: f" {message.splitlines()[-1]},\nin short"
    target_of = targets_of("endpoint", "m", tmp_path, url=endpoint.url + "/")
    assert target_of("summarise", "one two") == "one two, in short"
    ((_, body, _),) = endpoint.requests
    assert body["model"] == "m" and body["temperature"] == 0


@pytest.mark.parametrize("answer", [(401, {}, {}), (200, {}, {"hello": "world"})])
def test_an_endpoint_that_refuses_is_named_and_nothing_is_kept(endpoint, answer, tmp_path):
    endpoint.script = [answer]
    with pytest.raises(EndpointError, match=f"{endpoint.url}.* for the target of keywords"):
        targets_of("endpoint", "m", tmp_path, url=endpoint.url)("keywords", "one two")
    assert not list(tmp_path.iterdir())


def test_a_local_model_answers_the_same_each_time(tiny_llm_folder, tmp_path):
    answers = {targets_of("local", str(tiny_llm_folder), tmp_path / name)("summarise", "Say it.") for name in "ab"}
    assert len(answers) == 1 and len(list(tmp_path.rglob("*.json"))) == 2


def test_without_a_model_targets_are_extracted():
    assert build_targets(sections.Targets()) is extractive_target

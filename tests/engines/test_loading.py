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

"""The LLM of a recipe is loaded into the engine that it names."""

import pytest
from omegaconf import OmegaConf

from nemo_speechllm.assets import AssetError
from nemo_speechllm.engines.endpoint import EndpointEngine
from nemo_speechllm.engines.engine import Request
from nemo_speechllm.engines.loading import ENGINES, check_engine, load_engine, load_transformers

REQUESTS = [Request(str(number), "Say it. " * (number + 1)) for number in range(3)]


def recipe(engine: str, llm: object = None, url: str | None = None):
    transformers = {"batch_size": 2, "dtype": "float32"}
    endpoint = {"url": url, "model": "a-model"}
    return OmegaConf.create(
        {"engine": engine, "llm": str(llm), "max_new_tokens": 5, "transformers": transformers, "endpoint": endpoint}
    )


def test_an_llm_in_this_process_is_that_of_the_folder(tiny_llm_folder):
    answers = dict(load_engine(recipe("transformers", tiny_llm_folder))(REQUESTS))
    assert answers == dict(load_transformers(str(tiny_llm_folder), max_new_tokens=5)(REQUESTS))
    assert set(answers) == {"0", "1", "2"}


def test_an_endpoint_is_asked_where_it_is(endpoint):
    engine = load_engine(recipe("endpoint", url=endpoint.url))
    assert isinstance(engine, EndpointEngine) and set(dict(engine(REQUESTS))) == {"0", "1", "2"}
    assert {(path, body["model"]) for path, body, _ in endpoint.requests} == {("/v1/chat/completions", "a-model")}


def test_an_unknown_engine_is_named_with_those_there_are():
    for name in ENGINES:
        check_engine(recipe(name))
    with pytest.raises(ValueError, match="engine=tgi: there are transformers, vllm, endpoint"):
        load_engine(recipe("tgi"))


def test_an_llm_that_is_not_there_is_named():
    with pytest.raises(AssetError, match="smollm9"):
        load_transformers("smollm9")

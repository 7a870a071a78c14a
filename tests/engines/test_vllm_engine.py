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

"""vLLM is an optional package."""

import importlib.util

import pytest

from nemo_speechllm.engines.engine import Request
from nemo_speechllm.engines.vllm_engine import VLLMEngine

SEED = '[00:00:00 - 00:00:02]: "Go." (Gender:Male, Emotion: neutral)'
REQUESTS = [Request(str(i), f"{SEED}\n" + "What can you hear? " * (1 + 3 * i)) for i in range(5)]


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_vllm_names_its_package_where_it_is_missing(tmp_path):
    with pytest.raises(ImportError, match="`pip install vllm`, or use engine=transformers"):
        VLLMEngine(str(tmp_path))

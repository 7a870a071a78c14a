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

"""The base of every model: its examples run as they are written."""

import doctest
from pathlib import Path

import pytest

from nemo_speechllm.models.speech_lm import SpeechLM


@pytest.mark.parametrize("name", ["transcribe", "generate", "train"])
def test_an_example_gives_what_it_says(name, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    (example,) = doctest.DocTestFinder(recurse=False).find(getattr(SpeechLM, name), name)
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0

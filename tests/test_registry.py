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

"""Parts by name: what is not there, and what is there twice, is named."""

import doctest

import pytest

from nemo_speechllm import registry
from nemo_speechllm.registry import Registry


def test_the_example_runs():
    results = doctest.testmod(registry)
    assert results.attempted and not results.failed


def test_unknown_and_taken_names_are_refused():
    shapes = Registry("model.shape")
    assert shapes.register("square")(4) == 4 and dict(shapes) == {"square": 4}
    with pytest.raises(ValueError, match=r"model.shape is 'circle'; known are \['square'\]"):
        shapes["circle"]
    with pytest.raises(ValueError, match="model.shape: 'square' is taken"):
        shapes.register("square")(5)
    assert "circle" not in shapes and len(shapes) == 1

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

"""Old names of modules lead to the new ones."""

import importlib
import importlib.util

import pytest

from nemo_speechllm.moved import MOVED, PACKAGE


@pytest.mark.parametrize(("old", "new"), MOVED.items())
def test_the_old_name_says_the_new_one(old, new):
    with pytest.raises(ModuleNotFoundError, match=f"^{PACKAGE}{old} has moved to {PACKAGE}{new}; import that$"):
        importlib.import_module(PACKAGE + old)
    assert importlib.util.find_spec(PACKAGE + new)


def test_other_missing_modules_are_missing_as_ever():
    with pytest.raises(ModuleNotFoundError, match="^No module named 'nemo_speechllm.nothing'$"):
        importlib.import_module("nemo_speechllm.nothing")

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

"""Tiny models for the tests of this folder."""

import shutil

import pytest

from tests.tiny_models import *  # noqa: F403  # fixtures


@pytest.fixture
def own_parts(tmp_path, tiny_llm_folder, tiny_whisper_folder) -> dict:
    """The LLM and the encoder in folders of this test's own, which it may delete; as a config change."""
    shutil.copytree(tiny_llm_folder, tmp_path / "llm")
    shutil.copytree(tiny_whisper_folder, tmp_path / "whisper")
    return {
        "llm": {"pretrained": str(tmp_path / "llm")},
        "perception": {"encoder": {"pretrained": str(tmp_path / "whisper")}},
    }

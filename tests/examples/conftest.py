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

"""A tiny model in a file, and the example scripts as functions."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from omegaconf import OmegaConf

from tests.tiny_desta2 import desta2_recipe, make_desta2, talkative_llm_folder, whole_whisper_folder  # noqa: F401
from tests.tiny_models import (  # noqa: F401
    ctc_prompted_config,
    ctc_tokenizer_folder,
    make_ctc_prompted,
    stage1_nemo,
    tiny_nemo,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def load_script() -> Callable[[str], ModuleType]:
    """``load_script("sweep")`` → the module of ``examples/sweep.py``."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def run_with_evaluate(load_script) -> Callable[[str, str], Callable[..., None]]:
    """``run_with_evaluate("evaluate_x", "EvaluateXArguments")`` → examples/evaluate_x.py as a function of its
    arguments."""

    def runner(name: str, schema: str) -> Callable[..., None]:
        script = load_script(name)
        defaults = OmegaConf.structured(getattr(script, schema))
        return lambda **arguments: script.main(OmegaConf.merge(defaults, arguments))

    return runner

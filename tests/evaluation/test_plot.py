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

"""Figures need matplotlib, and say so before any work."""

import importlib.util
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
DRAWING = (
    *("analyze_alignment", "evaluate_instructions", "evaluate_keywords", "evaluate_robustness"),
    *("plot_training", "report", "sweep"),
)


@pytest.mark.parametrize("name", DRAWING)
def test_a_script_that_draws_says_what_to_install_when_it_starts(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for module in ("plot", "html_report", "keywords"):
        monkeypatch.delitem(sys.modules, f"nemo_speechllm.evaluation.{module}", raising=False)
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    with pytest.raises(ModuleNotFoundError, match=r"^figures are drawn with matplotlib.*: pip install matplotlib$"):
        spec.loader.exec_module(importlib.util.module_from_spec(spec))

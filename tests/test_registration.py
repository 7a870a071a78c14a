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

"""Registration: NeMo's guard lets this package's classes through, whichever is imported first, and nothing else."""

import ast
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow  # each test starts Pythons that import NeMo

GUARD = "nemo.core.classes.common"
REPORT = f"import sys; guard = sys.modules['{GUARD}']; print(repr(guard.ALLOWED_TARGET_PREFIXES))"


def prefixes_after(*statements: str) -> list[str]:
    """NeMo's allowed prefixes in a fresh process that runs the statements."""
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([*statements, REPORT])], capture_output=True, text=True, check=True
    )
    return ast.literal_eval(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def nemo_prefixes() -> list[str]:
    return prefixes_after(f"import {GUARD}")


@pytest.mark.parametrize(
    "statements",
    [
        ["import nemo_speechllm", f"import {GUARD}"],
        [f"import {GUARD}", "import nemo_speechllm"],
        ["import nemo_speechllm", "nemo_speechllm.register_target_prefix()", "import nemo.core"]
        + ["nemo_speechllm.register_target_prefix()"],
    ],
    ids=["package first", "NeMo first", "registered again"],
)
def test_one_prefix_is_added_once(nemo_prefixes, statements):
    assert prefixes_after(*statements) == [*nemo_prefixes, "nemo_speechllm."]


def test_importing_the_data_side_imports_no_nemo_collection():
    code = (
        "import sys, nemo_speechllm.data.dataset, nemo_speechllm.prompts.chat_prompt\n"
        "import nemo_speechllm.manifests.manifest\n"
        "print([name for name in sys.modules if name.startswith('nemo.collections')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_import_hook_is_gone_after_its_work():
    code = (
        f"import sys, nemo_speechllm, {GUARD}\n"
        "names = [getattr(finder, 'name', None) for finder in sys.meta_path]\n"
        f"print([name for name in names if name in ('{GUARD}', 'nemo.core.classes.modelPT')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_guard_still_refuses_others():
    code = (
        f"import nemo_speechllm, {GUARD}\n"
        "from nemo.core.classes import Serialization\n"
        "Serialization.from_config_dict({'_target_': 'nemo_speechllm_evil.Thing'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode != 0 and "nemo_speechllm_evil" in done.stderr

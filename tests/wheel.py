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

"""Does what the description of the installed package says, for `make test-wheel`; run with ``python -I`` outside the
project's .venv."""

import ast
import os
import re
import shutil
import sys
import tempfile
from importlib.metadata import metadata
from pathlib import Path

import nemo_speechllm

ROOT = Path(__file__).resolve().parents[1]
SPOKEN = ROOT / "tests/recordings/digits_theo.flac"
EXPECTED = ["three one four one five"], ["five one four one three"]


def main() -> int:
    """Run the description's Python and compare what its expressions, calls of `transcribe`, give."""
    assert ROOT / "nemo_speechllm" not in Path(nemo_speechllm.__file__).parents, "this is the checkout, not the wheel"
    (code,) = re.findall(r"^```python\n(.*?)^```", metadata("nemo_speechllm").get_payload(), re.MULTILINE | re.DOTALL)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(SPOKEN, Path(folder) / "digits.flac")
        os.chdir(folder)
        scope, answers = {}, []
        for statement in ast.parse(code).body:
            if isinstance(statement, ast.Expr):
                answers.append(eval(ast.unparse(statement), scope))
            else:
                exec(ast.unparse(statement), scope)
    print(*answers, sep="\n")
    return int(answers != list(EXPECTED))


if __name__ == "__main__":
    sys.exit(main())

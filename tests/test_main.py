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

"""``python -m nemo_speechllm SCRIPT ARGS…``: a script that does not know the package runs with it registered."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
import neighbour
if __name__ == "__main__":
    print(sys.argv, sys.path[0], neighbour.NAME, "nemo_speechllm" in sys.modules, __file__)
    sys.exit(int(sys.argv[1]))
"""


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    root = Path(__file__).parents[1]
    return subprocess.run(
        [sys.executable, "-m", "nemo_speechllm", *arguments],
        cwd=cwd,
        env={"PYTHONPATH": str(root), "PATH": ""},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("script", ["scripts/client.py", "./scripts/../scripts/client.py"])
def test_a_script_runs_as_by_itself(script, tmp_path):
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/client.py").write_text(SCRIPT)
    (tmp_path / "scripts/neighbour.py").write_text("NAME = 'neighbour'")
    done = run(script, "3", "--name=x y", cwd=tmp_path)
    assert done.returncode == 3
    expected = f"{[script, '3', '--name=x y']} {tmp_path / 'scripts'} neighbour True {script}"
    assert done.stdout.strip() == expected, done.stderr


def test_its_error_is_the_last_line(tmp_path):
    (tmp_path / "client.py").write_text("raise ValueError('the cause')")
    done = run("client.py", cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == "ValueError: the cause"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["gone.py", "x=1"], 1, "no script gone.py"),
        (["."], 1, "no script ."),
        ([], 2, "usage: python -m nemo_speechllm SCRIPT ARGS"),
    ],
)
def test_what_is_no_script_is_named(arguments, status, message, tmp_path):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == status and message in done.stderr and done.stdout == ""


def test_help_is_a_result(tmp_path):
    done = run("--help", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("usage: python -m nemo_speechllm SCRIPT ARGS")

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

"""``nemo-speechllm`` and ``python -m nemo_speechllm``: commands, and scripts that do not know the package."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from nemo_speechllm.__main__ import _check_settings
from nemo_speechllm.commands.catalogue import commands

SCRIPT = """
import sys
import neighbour
if __name__ == "__main__":
    print(sys.argv, sys.path[0], neighbour.NAME, "nemo_speechllm" in sys.modules, __file__)
    sys.exit(int(sys.argv[1]))
"""


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    root = Path(__file__).parents[1]
    return subprocess.run(
        [sys.executable, "-m", "nemo_speechllm", *arguments],
        cwd=cwd,
        env={"PYTHONPATH": str(root), "PATH": ""} | environment,
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


@pytest.mark.parametrize("given, policy", [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_waiting_threads_leave_their_core_to_others(given, policy, tmp_path):
    """Which counts only where PyTorch has not been loaded before."""
    code = "import os, sys; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    (tmp_path / "client.py").write_text(code)
    assert run("client.py", cwd=tmp_path, **given).stdout.split() == [policy, "False"]


def test_its_error_is_the_last_line(tmp_path):
    (tmp_path / "client.py").write_text("raise ValueError('the cause')")
    done = run("client.py", cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == "ValueError: the cause"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["gone.py", "x=1"], 1, "no script gone.py"),
        (["."], 1, "no script ."),
        ([], 2, "usage: nemo-speechllm COMMAND ARGUMENTS"),
        (["data"], 2, "  data split-manifest "),
        (["trian"], 1, "error: there is no command 'trian'; did you mean 'train'?"),
        (["data", "chek-manifest"], 1, "no command 'data chek-manifest'; did you mean 'data check-manifest'?"),
    ],
)
def test_what_is_no_script_is_named(arguments, status, message, tmp_path):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == status and message in done.stderr and done.stdout == ""


@pytest.mark.parametrize("asked", [["--help"], ["-h"], ["data", "--help"]])
def test_help_is_a_result(asked, tmp_path):
    done = run(*asked, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("usage: nemo-speechllm COMMAND ARGUMENTS")


def test_the_version_is_a_result(tmp_path):
    assert re.fullmatch(r"nemo_speechllm \d+\.\d+\.\d+\S*\n", run("--version", cwd=tmp_path).stdout)


@pytest.mark.parametrize(
    ("command", "example"),
    [
        (["transcribe"], "nemo-speechllm transcribe model=salm_whisper_smollm2 audio=clip.wav"),
        (["train"], "nemo-speechllm train --config-name=salm/whisper_smollm2"),
        (["data", "split-manifest"], "nemo-speechllm data split-manifest all.jsonl"),
    ],
)
def test_help_of_a_command_has_its_usage_and_examples(command, example, tmp_path):
    done = run(*command, "--help", cwd=tmp_path)
    assert done.returncode == 0 and example in done.stdout, done.stderr
    assert done.stdout.startswith(f"usage: nemo-speechllm {' '.join(command)} ")


def test_a_command_runs_its_script_with_its_status(tmp_path):
    (tmp_path / "bad.jsonl").write_text("{}\n")
    done = run("data", "check-manifest", "bad.jsonl", cwd=tmp_path)
    assert done.returncode == 1 and "bad.jsonl:1" in done.stdout and done.stderr == ""
    assert run("data", "check-manifest", cwd=tmp_path).returncode == 2


def test_a_commands_error_is_one_line(tmp_path):
    done = run("transcribe", "model=gone.nemo", "audio=a=b.wav", cwd=tmp_path)
    last_line = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and last_line.startswith("error: ") and "Traceback" not in done.stderr
    assert "quote the value twice: \"audio='a=b.wav'\"" in last_line


MISSPELT = """
import sys
from nemo_speechllm.__main__ import main
from nemo_speechllm.commands.catalogue import commands
for name, command in commands().items():
    for setting in ("batch_sise=4", "+batch_sise=4", "batch_sise.x=4") if command.settings else ():
        try:
            main([*name.split(), "model=x", setting])
        except SystemExit as error:
            print(name, error, sorted({"nemo", "torch", "transformers"} & set(sys.modules)))
"""


def test_a_setting_that_no_command_has_is_refused_before_anything_is_imported(tmp_path):
    environment = {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", MISSPELT], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert {"transcribe", "evaluate", "serve", "chat", "export"} <= {line.split()[0] for line in lines}
    assert all(" error: there is no setting 'batch_sise'; " in line and line.endswith(" []") for line in lines), lines
    assert any("did you mean 'batch_size'?" in line for line in lines)


def test_what_a_command_has_and_what_hydra_reads_is_left_to_the_script():
    for command in commands().values():
        settings = [f"{mark}{key}=1" for key in command.keys() for mark in ("", "+", "++")]
        _check_settings(command, [*settings, "hydra.verbose=false", "hydra/job_logging=none", "~model", "--cfg=job"])


def test_a_recipe_of_ones_own_is_taken_and_may_build_on_one_of_the_package(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/small.yaml").write_text("defaults: [salm/whisper_smollm2@_here_, _self_]\nname: my_own\n")
    done = run("train", "--config-dir=mine", "--config-name=small", "--cfg", "job", cwd=tmp_path)
    assert done.returncode == 0 and "name: my_own" in done.stdout and "train_ds:" in done.stdout, done.stderr

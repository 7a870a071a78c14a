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


"""What a user of any script sees: results on stdout, the rest on stderr, and the cause of a failure as the last
line."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from nemo_speechllm.command_line import ProcessError, _how_to_write, run_apart

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted(path for path in (ROOT / "examples").rglob("*.py") if "__main__" in path.read_text(encoding="utf-8"))
HYDRA_SCRIPT = """
import sys
from dataclasses import dataclass
from hydra.core.config_store import ConfigStore
import hydra
from omegaconf import MISSING
from nemo_speechllm.command_line import check_settings, emit, run_command

@dataclass
class Arguments:
    model: str = MISSING
    batch_size: int = 8
    output_dir: str | None = None

ConfigStore.instance().store(name="arguments", node=Arguments)

@hydra.main(version_base=None, config_path=None, config_name="arguments")
def main(cfg):
    check_settings(cfg)
    emit(cfg.model)

run_command(main)
"""


def run(folder: Path, body: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    path = folder / "script.py"
    path.write_text(body, encoding="utf-8")
    clean = {key: value for key, value in os.environ.items() if "FULL_ERROR" not in key}
    environment |= {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(path), *arguments]
    return subprocess.run(command, cwd=folder, env=clean | environment, capture_output=True, text=True)


def script(*lines: str) -> str:
    imports = "import os, subprocess, sys\nfrom nemo_speechllm.command_line import emit, run_command\n"
    return imports + "def main():\n" + "".join(f"    {line}\n" for line in lines) + "run_command(main)\n"


def test_stdout_carries_results_alone(tmp_path):
    done = run(
        tmp_path,
        script(
            "print('a library')",
            "os.write(1, b'a library in C\\n')",
            "subprocess.run(['echo', 'a child'])",
            "emit('one', 'two')",
        ),
    )
    assert (done.returncode, done.stdout) == (0, "one\ntwo\n")
    assert all(text in done.stderr for text in ("a library", "a library in C", "a child"))


def test_a_closed_stdout_is_named(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(script("emit(1)"), encoding="utf-8")
    command = f"PYTHONPATH={ROOT} {sys.executable} {path} >&-"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "error: stdout is closed; give the results a place, >/dev/null say\n")


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    for folder in ("script.py", "script.py/below"):
        done = run(tmp_path, script(f"os.makedirs('{folder}')"))
        assert done.stderr.startswith("error: script.py: a file is where") or "script.py/below: a file" in done.stderr
        assert "give another path" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


def test_results_may_be_cut_short_by_their_reader(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(script("for number in range(100000): emit(number)"), encoding="utf-8")
    command = f"PYTHONPATH={ROOT} {sys.executable} {path} | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("0\n", "")


@pytest.mark.parametrize(
    ("error", "last_line", "has_traceback"),
    [
        ("ValueError('line one\\n  line two')", "error: line one line two", False),
        ("FileNotFoundError('a.wav does not exist; correct the path')",
         "error: a.wav does not exist; correct the path", False),
        ("KeyError('text')", "error: KeyError: 'text'", True),
        ("AssertionError()", "error: AssertionError", True),
        ("KeyboardInterrupt()", "error: interrupted", False),
    ],
)  # fmt: skip
def test_the_last_line_of_a_failure_is_its_cause(tmp_path, error, last_line, has_traceback):
    done = run(tmp_path, script(f"raise {error}"))
    assert done.returncode not in (0, None) and done.stdout == ""
    assert done.stderr.splitlines()[-1] == last_line
    assert ("Traceback" in done.stderr) == has_traceback


def test_the_cause_stands_below_a_progress_bar(tmp_path):
    done = run(
        tmp_path, script("from tqdm import tqdm", "for number in tqdm(range(3)):", "    raise ValueError('no')")
    )
    assert "0/3" in done.stderr and done.stderr.splitlines()[-1] == "error: no" and done.stderr.endswith("\n")


def test_a_traceback_is_shown_where_it_is_asked_for(tmp_path):
    done = run(tmp_path, script("raise ValueError('no')"), HYDRA_FULL_ERROR="1")
    assert "Traceback" in done.stderr and done.stderr.splitlines()[-1] == "error: no"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["modl=x"], "error: Could not override 'modl'. Key 'modl' not in 'Arguments'; did you mean 'model'?"),
        (["model=x", "+batch_sise=3"], "there is no setting 'batch_sise'; did you mean 'batch_size'?"),
        (["model=x", "++foo=3"], "there is no setting 'foo'; known are ['model', 'batch_size', 'output_dir']"),
        (["model=x", "output_dir=script.py"], "script.py: script.py is no folder; give another place"),
        (["model=x", "output_dir=script.py/a/b"], "script.py/a/b: script.py is no folder; give another place"),
        (["model=x", "output_dir=/proc/a"], "/proc/a: no file can be written in /proc"),
        (["model=x", "batch_size=many"], "Value 'many' of type 'str' could not be converted to Integer"),
        ([], "Missing mandatory value: model; give model=..."),
        (["model='x"], "model='x"),
        (["model=~/x.wav"], "model=~/x.wav; in 'model=~/x.wav', quote the value twice: \"model='~/x.wav'\""),
        (["model=a=b"], "in 'model=a=b', quote the value twice: \"model='a=b'\""),
        (["clip.wav"], "'clip.wav' is no setting: write key=value, without a space around ="),
    ],
)
def test_a_wrong_setting_is_named_in_the_last_line(tmp_path, arguments, said):
    done = run(tmp_path, HYDRA_SCRIPT, *arguments)
    last_line = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and last_line.startswith("error: ") and said in last_line
    assert "Traceback" not in done.stderr and "HYDRA_FULL_ERROR" not in done.stderr


@pytest.mark.parametrize(
    "value",
    ["a=b.wav", "What's said?", 'say "x"', 'it\'s "x"', "Größe.wav", "日本.wav", "C:\\x\\", "a\\'b", "$HOME `id`"]
    + ["What, exactly?", "[x", "{x", "(x)", "~/x", "", "'", '"', "\\\"'", "a  b=", "#1", "100%:"],
)
def test_what_is_said_of_quoting_can_be_pasted_into_a_shell(value):
    hint = _how_to_write(f"+prompt.text={value}").partition("quote the value twice: ")[2]
    (word,) = subprocess.check_output(["bash", "-c", f"printf '%s\\n' {hint}"], text=True).splitlines()
    override = OverridesParser.create().parse_override(word)
    assert (override.key_or_group, override.value()) == ("prompt.text", value)


def test_help_goes_to_stdout(tmp_path):
    assert "model: ???" in run(tmp_path, HYDRA_SCRIPT, "--cfg", "job").stdout


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_script_is_run_so_and_prints_results_alone(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.unparse(tree.body[-1].body) == "run_command(main)"
    printed = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "print"]
    assert all(any(keyword.arg == "file" for keyword in node.keywords) for node in printed)


@pytest.mark.parametrize("path", [path for path in SCRIPTS if "schema=" in path.read_text(encoding="utf-8")], ids=str)
def test_every_script_with_a_schema_checks_its_settings_before_any_work(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (main,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main")
    assert ast.unparse(main.body[1]) == "check_settings(cfg)"


def test_a_process_of_its_own_gives_its_result_its_output_or_its_cause(tmp_path):
    command, log = ["examples/evaluate.py", "model=x"], tmp_path / "log.txt"
    assert run_apart(command, sorted, [3, 1]) == [1, 3]
    run_apart(command, print, "from there", log=log)
    with pytest.raises(ProcessError, match=r"^evaluate.py failed: Expecting property name .*; see .*log.txt$"):
        run_apart(command, json.loads, "{", log=log)
    assert log.read_text().startswith("from there\n") and "\nerror: Expecting property name" in log.read_text()
    with pytest.raises(ProcessError, match="^evaluate.py was killed"):
        run_apart(command, os._exit, 9)

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

"""`make soak`: what fails, fails to run or was never tried is in the table and in the status."""

import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def soak():
    """``tests/soak/__main__.py``."""
    spec = spec_from_file_location("soak", ROOT / "tests/soak/__main__.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GOOD = {"name": "kills", "tried": 20, "lost": 0, "wrong": 0, "hung": 0}


@pytest.mark.parametrize(
    ("result", "sound"),
    [(GOOD, True)]
    + [(GOOD | {column: 1}, False) for column in ("lost", "wrong", "hung")]
    + [(GOOD | {"tried": 0}, False), ({"name": "kills", "error": "ImportError: no"}, False)],
)
def test_only_a_part_that_tried_and_lost_nothing_is_sound(soak, result, sound):
    assert soak.is_sound(result) == sound


def test_the_table_names_all_parts_and_what_failed(soak):
    failed = GOOD | {"name": "fuzzed rows", "wrong": 1, "failures": {"row 7": "came back as another"}}
    example = GOOD | {"name": "rows", "lost": 1, "examples": ["line 8 is gone"]}
    assert soak.table([example]).splitlines()[-1] == "rows: line 8 is gone"
    lines = soak.table([GOOD, failed, {"name": "hostile", "error": "ImportError: no"}]).splitlines()
    assert lines[0].split() == ["tried", "lost", "wrong", "hung"]
    assert lines[1].split() == ["kills", "20", "0", "0", "0"]
    assert lines[2].split() == ["fuzzed", "rows", "20", "0", "1", "0"]
    assert lines[3].split() == ["hostile", "did", "not", "run"]
    assert lines[4:] == ["fuzzed rows row 7: came back as another", "hostile: ImportError: no"]


def test_arguments_of_a_part(soak):
    assert soak.part("kills:kills=3,seed=1") == ("kills", {"kills": 3, "seed": 1})
    assert soak.part("kills") == ("kills", {})


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("kill", "there is no part 'kill'"),
        ("kills:wrong=1", "TypeError: run() got an unexpected keyword argument 'wrong'"),
    ],
)
def test_what_cannot_run_ends_with_a_status_and_its_cause(part, said):
    done = subprocess.run([sys.executable, "-m", "tests.soak", part], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert said in done.stdout + done.stderr

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

"""The files around the package agree with each other: set-up, constraints, Makefile, Dockerfile, CI and README."""

import ast
import os
import re
import runpy
import subprocess
import sys
from importlib.metadata import metadata, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
HEADER = "".join(Path(__file__).read_text(encoding="utf-8").partition("# limitations under the License.\n")[:2])
CODE_FOLDERS = ("nemo_speechllm", "examples", "tests")
SOURCES = sorted([ROOT / "setup.py", *(path for folder in CODE_FOLDERS for path in (ROOT / folder).rglob("*.py"))])
PYTHON_VERSIONS = ("3.11", "3.12")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def code_blocks(markdown: str) -> list[str]:
    return re.findall(r"^```[^\n]*\n(.*?)^```", markdown, flags=re.MULTILINE | re.DOTALL)


def pinned_versions() -> dict[str, str]:
    pins = [Requirement(line) for line in read("constraints.txt").splitlines() if not line.startswith("#")]
    assert all(len(pin.specifier) == 1 and str(pin.specifier).startswith("==") for pin in pins)
    return {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}


def dockerfile_instructions(name: str) -> list[str]:
    joined = read("Dockerfile").replace("\\\n", " ")
    return [line.split(maxsplit=1)[1] for line in joined.splitlines() if line.startswith(f"{name} ")]


def imported_modules(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


def test_every_requirement_is_pinned_to_a_version_it_allows():
    pins = pinned_versions()
    for requirement in map(Requirement, requires("nemo_speechllm")):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_constraints_install_from_any_index():
    local = {name: pin for name, pin in pinned_versions().items() if "+" in pin}
    assert not local, "a local version exists on one index only"


def test_version_and_extras():
    info = runpy.run_path(str(ROOT / "nemo_speechllm" / "package_info.py"))
    assert version("nemo_speechllm") == info["__version__"]
    assert set(metadata("nemo_speechllm").get_all("Provides-Extra")) == {"plots", "test", "dev", "synthesis"}


@pytest.mark.parametrize("source", [s for line in dockerfile_instructions("COPY") for s in line.split()[:-1]])
def test_what_the_dockerfile_copies_exists(source):
    assert (ROOT / source).exists()


def test_dockerfile_installs_by_the_makefile():
    """The image has no install line of its own, so it cannot drift from the Makefile's."""
    system_packages, install = dockerfile_instructions("RUN")
    assert "apt-get install" in system_packages and "pip" not in system_packages
    assert "make venv" in install and "pip install" not in install
    copied = {source for line in dockerfile_instructions("COPY") for source in line.split()[:-1]}
    prerequisites = re.search(r"^\$\(READY\): (.*)$", read("Makefile"), flags=re.MULTILINE).group(1).split()
    assert all(name in copied or name.split("/")[0] in copied for name in prerequisites)


def test_makefile_installs_the_pinned_torch_first():
    installs = re.findall(r"pip install (.*)", read("Makefile"))
    assert installs == [f"-c constraints.txt torch=={pinned_versions()['torch']}", "-c constraints.txt -e .[dev]"]


@pytest.mark.parametrize("python, accepted", [("3.10", False), *((v, True) for v in PYTHON_VERSIONS), ("3.13", False)])
def test_makefile_and_setup_accept_the_same_pythons(python, accepted, tmp_path):
    stand_in = tmp_path / "python"
    major_minor = tuple(map(int, python.split(".")))
    stand_in.write_text(
        f'#!/bin/sh\n[ "$1" = -c ] && exec {sys.executable} -c "import sys; sys.version_info = {major_minor}; $2"\n'
        f"echo would create the environment; exit 3\n"
    )
    stand_in.chmod(0o755)
    venv = f"VENV={tmp_path / 'venv'}"
    done = subprocess.run(["make", "venv", f"PYTHON={stand_in}", venv], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert ("would create the environment" in done.stdout) == accepted
    assert ("must be Python 3.11 or 3.12" in done.stderr) != accepted
    assert (python in Requirement(f"x{metadata('nemo_speechllm')['Requires-Python']}").specifier) == accepted


def test_ci_runs_the_readme_test_command():
    assert any("make test" in block for block in code_blocks(read("README.md")))
    assert read(".ci/run").rstrip().splitlines()[-1] == "make test"
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_readme_commands_are_makefile_targets():
    commands = {c for block in code_blocks(read("README.md")) for c in re.findall(r"^make (\w+)", block, re.MULTILINE)}
    targets = set(re.findall(r"^(\w+):", read("Makefile"), flags=re.MULTILINE))
    assert {"test", "demo"} <= commands <= targets


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_source_file_conventions(path):
    assert path.read_text(encoding="utf-8").startswith(HEADER), "the licence header is missing"
    roots = {name.split(".")[0] for name in imported_modules(path)}
    assert "pytorch_lightning" not in roots, "NeMo uses lightning.pytorch; the two do not mix in one process"


def test_data_side_loads_no_nemo_collection():
    """In a fresh interpreter: this one has imported whatever other tests needed."""
    code = "import sys, nemo_speechllm.data.manifest; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not [name for name in done.stdout.split() if name.startswith("nemo.collections")]

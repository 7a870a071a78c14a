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
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from email.message import Message
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
HEADER = "".join(Path(__file__).read_text(encoding="utf-8").partition("# limitations under the License.\n")[:2])
CODE_FOLDERS = ("nemo_speechllm", "examples", "tests")
SOURCES = sorted([ROOT / "setup.py", *(path for folder in CODE_FOLDERS for path in (ROOT / folder).rglob("*.py"))])
PYTHON_VERSIONS = {"3.10.14": False, "3.11.3": False, "3.11.4": True, "3.12.0": True, "3.13.0": False}
NAMED_FILE = re.compile(
    r"\b(?:examples|conf|docs|tests|nemo_speechllm)/[\w./-]*\w|\b\w+\.(?:py|md|yaml|txt)\b|\bmake \w+"
)


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


def imported_modules(path: Path, always: bool = False) -> set[str]:
    """What a file imports; with ``always`` not what a function imports when it is called, such as the engine of an
    extra."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if always else list(ast.walk(tree))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution of what lies here, built as pip builds them."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("nemo_speechllm", "conf", "docs", "examples", "tests", ".ci"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, source)
    build = f"from setuptools import build_meta as b; b.build_wheel({str(built)!r}); b.build_sdist({str(built)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, check=True)
    return built


@pytest.fixture(scope="session")
def wheel_files(distributions: Path) -> set[str]:
    return set(zipfile.ZipFile(*distributions.glob("*.whl")).namelist())


@pytest.fixture(scope="session")
def wheel_metadata(distributions: Path, wheel_files: set[str]) -> Message:
    (name,) = [name for name in wheel_files if name.endswith(".dist-info/METADATA")]
    return message_from_string(zipfile.ZipFile(*distributions.glob("*.whl")).read(name).decode())


@pytest.fixture(scope="session")
def requirements(wheel_metadata: Message) -> list[Requirement]:
    return [Requirement(line) for line in wheel_metadata.get_all("Requires-Dist")]


def test_the_wheel_holds_the_package_and_nothing_else(wheel_files):
    tracked = {str(path.relative_to(ROOT)) for path in (ROOT / "nemo_speechllm").rglob("*") if path.is_file()}
    launched = [
        *(ROOT / "conf").rglob("*.yaml"),
        *(ROOT / "examples").glob("*.py"),
        *(ROOT / "examples/data").glob("*.py"),
        *(ROOT / "examples/launch").glob("*.sh"),
    ]
    tracked |= {f"nemo_speechllm/{path.relative_to(ROOT)}" for path in launched}
    expected = {name for name in tracked if "__pycache__" not in name}
    assert {name for name in wheel_files if ".dist-info/" not in name} == expected


def test_the_wheel_has_the_console_command(distributions, wheel_files):
    (name,) = [name for name in wheel_files if name.endswith(".dist-info/entry_points.txt")]
    declared = zipfile.ZipFile(*distributions.glob("*.whl")).read(name).decode()
    assert declared == "[console_scripts]\nnemo-speechllm = nemo_speechllm.__main__:main\n"


def test_the_wheel_describes_what_it_holds(wheel_files, wheel_metadata):
    description = wheel_metadata.get_payload()
    assert NAMED_FILE.findall(read("README.md")), "what would be found if it were named"
    assert not [name for name in NAMED_FILE.findall(description) if name not in wheel_files]
    for path in re.findall(r"load_model\((.*)", description) + [description]:
        for name in re.findall(r'"(\w+)"', path):
            assert f"nemo_speechllm/checkpoints/{name}.nemo" in wheel_files


def test_the_source_distribution_holds_what_the_readme_names(distributions):
    names = {name.partition("/")[2] for name in tarfile.open(*distributions.glob("*.tar.gz")).getnames()}
    named = {name for name in re.findall(r"\b(?:examples|docs|conf|tests)/[\w./-]*\w\.\w+", read("README.md"))}
    assert len(named) > 5 and {name for name in named if (ROOT / name).exists()} <= names
    assert {"Makefile", "constraints.txt", "setup.py", "README.md", "LICENSE", "CHANGELOG.md"} <= names
    for folder in ("conf", "examples", "tests", "docs"):
        files = {str(p.relative_to(ROOT)) for p in (ROOT / folder).rglob("*") if p.is_file() and p.suffix != ".pyc"}
        assert files <= names


def test_every_requirement_is_pinned_to_a_version_it_allows(requirements):
    pins = pinned_versions()
    for requirement in requirements:
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_the_oldest_version_allowed_is_the_pinned_one_and_there_is_a_newest(requirements):
    """Other versions were not tested; what only tests and formats is no concern of a user's."""
    pins = pinned_versions()
    tools = {
        "mkdocs-material",
        "mypy",
        "ruff",
        *("hypothesis", "ipykernel", "papermill", "pytest"),
        *("pytest-timeout", "pytest-xdist"),
    }
    for requirement in requirements:
        if requirement.name in tools:
            continue
        bounds = {bound.operator: bound.version for bound in requirement.specifier}
        pin = pins[canonicalize_name(requirement.name)]
        assert "<" in bounds or "==" in bounds, f"{requirement}: there is no upper bound"
        assert Version(bounds.get(">=") or bounds["=="].removesuffix(".*")) == Version(pin), (
            f"{requirement}: tested was {pin}"
        )


def test_what_the_package_imports_is_required(requirements):
    """NeMo's own requirements (lightning, hydra, omegaconf …) come with it, but what may vanish from them may not be
    relied on."""
    required = {canonicalize_name(requirement.name) for requirement in requirements}
    homes = packages_distributions()
    for path in (path for path in SOURCES if ROOT / "tests" not in path.parents and path.name != "setup.py"):
        roots = {name.partition(".")[0] for name in imported_modules(path, always=True)} - sys.stdlib_module_names
        beside = {neighbour.stem for neighbour in path.parent.glob("*.py")}  # of a script
        for root in roots - beside - {"nemo_speechllm", "hydra"}:
            assert {canonicalize_name(home) for home in homes.get(root, [root])} & required, f"{path}: {root}"


def test_constraints_install_from_any_index():
    local = {name: pin for name, pin in pinned_versions().items() if "+" in pin}
    assert not local, "a local version exists on one index only"


def test_version_and_extras(wheel_metadata):
    info = runpy.run_path(str(ROOT / "nemo_speechllm" / "package_info.py"))
    assert wheel_metadata["Version"] == info["__version__"]
    assert set(wheel_metadata.get_all("Provides-Extra")) == {"serve", "test", "dev", "synthesis"}


@pytest.mark.parametrize("source", [s for line in dockerfile_instructions("COPY") for s in line.split()[:-1]])
def test_what_the_dockerfile_copies_exists(source):
    assert (ROOT / source).exists()


def test_dockerfile_installs_by_the_makefile():
    """The image has no install line of its own, so it cannot drift from the Makefile's."""
    system_packages, install, *_ = dockerfile_instructions("RUN")
    assert "apt-get install" in system_packages and "pip" not in system_packages
    assert "make venv" in install and "pip install" not in install
    copied = {source for line in dockerfile_instructions("COPY") for source in line.split()[:-1]}
    prerequisites = re.search(r"^\$\(READY\): (.*)$", read("Makefile"), flags=re.MULTILINE).group(1).split()
    assert all(name in copied or name.split("/")[0] in copied for name in prerequisites)


def test_makefile_installs_the_pinned_torch_first():
    makefile = read("Makefile")
    assert re.search(r"^TORCH := (.*)$", makefile, re.MULTILINE).group(1) == f"torch=={pinned_versions()['torch']}"
    recipes = [recipe for recipe in re.split(r"\n(?=\S)", makefile) if not recipe.startswith("test-page:")]  # adds one
    installs = [found for recipe in recipes if (found := re.findall(r"pip install (.*)", recipe))]
    assert len(installs) == 3
    assert all(first.endswith("$(TORCH)") for first, _ in installs)
    assert installs[0] == ["-c constraints.txt $(TORCH)", "-c constraints.txt -e .[dev]"]


@pytest.mark.parametrize("target", ["venv", "test-latest", "test-wheel"])
@pytest.mark.parametrize(("python", "accepted"), PYTHON_VERSIONS.items())
def test_makefile_and_setup_accept_the_same_pythons(target, python, accepted, wheel_metadata, tmp_path):
    stand_in = tmp_path / "python"
    numbers = tuple(map(int, python.split(".")))
    stand_in.write_text(
        f'#!/bin/sh\n[ "$1" = -c ] && exec {sys.executable} -c "import sys; sys.version_info = {numbers}; $2"\n'
        f"echo would create the environment; exit 3\n"
    )
    stand_in.chmod(0o755)
    folders = [f"{name}={tmp_path / name}" for name in ("VENV", "LATEST", "WHEEL")]
    make = ["make", f"--makefile={ROOT / 'Makefile'}", target, f"PYTHON={stand_in}", *folders]
    for name in re.search(r"^\$\(READY\): (.*)$", read("Makefile"), flags=re.MULTILINE).group(1).split():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    done = subprocess.run(make, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert ("would create the environment" in done.stdout) == accepted
    assert ("must be Python 3.11 (from 3.11.4 on) or 3.12" in done.stderr) != accepted
    assert (python in Requirement(f"x{wheel_metadata['Requires-Python']}").specifier) == accepted


def test_ci_runs_the_readme_test_command():
    assert any("make test" in block for block in code_blocks(read("README.md")))
    assert read(".ci/run").rstrip().splitlines()[-1] == "make test"
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_readme_commands_are_makefile_targets():
    commands = {
        c for block in code_blocks(read("README.md")) for c in re.findall(r"^make ([\w-]+)", block, re.MULTILINE)
    }
    targets = set(re.findall(r"^([\w-]+):", read("Makefile"), flags=re.MULTILINE))
    assert {"test", "demo"} <= commands <= targets


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_source_file_conventions(path):
    assert path.read_text(encoding="utf-8").startswith(HEADER), "the licence header is missing"
    roots = {name.split(".")[0] for name in imported_modules(path)}
    assert "pytorch_lightning" not in roots, "NeMo uses lightning.pytorch; the two do not mix in one process"


def test_data_side_loads_no_nemo_collection():
    """In a fresh interpreter: this one has imported whatever other tests needed."""
    code = "import sys, nemo_speechllm.manifests.manifest; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not [name for name in done.stdout.split() if name.startswith("nemo.collections")]


def test_without_matplotlib_what_draws_says_what_to_install():
    """Before any work; the last line is the remedy. Nothing else imports it, so this is so of every script that
    draws."""
    importers = {path for path in SOURCES if "matplotlib" in {n.partition(".")[0] for n in imported_modules(path)}}
    assert {path for path in importers if ROOT / "tests" not in path.parents} == {
        ROOT / "nemo_speechllm/evaluation/plot.py"
    }
    code = "import sys; sys.modules['matplotlib'] = None; import runpy; runpy.run_path('examples/report.py')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install matplotlib" in done.stderr.splitlines()[-1]

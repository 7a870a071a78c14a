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


"""The documentation names nothing that is not there: tests, files, scripts."""

import ast
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PROMISES = [ROOT / "docs" / "reliability.md", ROOT / "SECURITY.md"]
TEST = re.compile(r"`(?P<path>tests/[\w/]+\.py)?(?P<names>(?:::\w+)*)`")
LOOSE = re.compile(r"`(…[^`]*|Test[A-Z][^`]*|test_\w+_[^`]*)`")
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


@cache
def names_in(path: Path) -> set[str]:
    """Functions and classes of a file, and ``Class::method``."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{item.name}" for item in node.body if isinstance(item, ast.FunctionDef)}
    return found


def missing_tests(page: str) -> list[str]:
    """The tests that a page names and that are not there; ``::name`` stands in the file that was named last."""
    missing, path = [], None
    for match in TEST.finditer(page):
        if match["path"]:
            path = ROOT / match["path"]
        name = match["names"].removeprefix("::")
        if path is None or (not match["path"] and not name):
            continue
        if not path.is_file() or (name and name not in names_in(path)):
            missing.append(f"{path.relative_to(ROOT)}::{name}")
    return missing


def test_a_test_that_is_not_there_would_be_found():
    page = "`tests/test_docs.py::names_in`, `::nothing`, `tests/test_docs.py`, `tests/gone.py`"
    assert missing_tests(page) == ["tests/test_docs.py::nothing", "tests/gone.py::"]
    assert LOOSE.findall("`test_ds`, `::test_a_b`, `…::test_a`, `TestTest::test_a`, `test_a_b`") == [
        *("…::test_a", "TestTest::test_a", "test_a_b")
    ]


@pytest.mark.parametrize("page", PROMISES, ids=lambda path: path.name)
def test_every_promise_has_its_test(page):
    text = page.read_text(encoding="utf-8")
    assert missing_tests(text) == []
    assert LOOSE.findall(text) == [], "a test is named by its file, or as ::name behind another of that file"
    promises = [item for item in re.split(r"^- ", text, flags=re.MULTILINE)[1:] if page.name == "reliability.md"]
    assert not [item for item in promises if "`tests/" not in item and "make " not in item]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    targets = [target.strip() for target in LINK.findall(page.read_text(encoding="utf-8"))]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_readme_is_read_in_two_minutes():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120 and max(map(len, lines)) <= 120


def test_every_script_is_described():
    page = (ROOT / "docs" / "scripts.md").read_text(encoding="utf-8") + (ROOT / "docs" / "analysis.md").read_text(
        encoding="utf-8"
    )
    scripts = {
        str(path.relative_to(ROOT)) for path in (ROOT / "examples").rglob("*.py") if "benchmark" not in path.parts
    }
    assert set(re.findall(r"examples/[\w/]+\.py", page)) == scripts


def commands_of(text: str) -> list[list[str]]:
    """The commands in a page's ``bash`` blocks, each as its words; comments and output are none."""
    found = []
    for block in re.findall(r"^```(?:bash|sh|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        pending = ""
        for line in block.replace("\\\n", " ").splitlines():
            if not pending and line.startswith("{"):
                continue
            try:
                words = shlex.split(pending + line, comments=True)
            except ValueError:  # a quotation goes on
                pending += f"{line}\n"
                continue
            found, pending = found + ([words] if words else []), ""
        assert not pending, pending
    return found


COMMANDS = [
    pytest.param(words, id=f"{page.relative_to(ROOT)}: {' '.join(words)[:60]}")
    for page in PAGES
    for words in commands_of(page.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("words", COMMANDS)
def test_commands_are_those_there_are(words):
    """Targets of the Makefile; scripts with arguments that they or their recipes know; ``+key=`` is a new one."""
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert {word for word in words[1:] if "=" not in word} <= set(targets)
    script = next((ROOT / word for word in words if word.startswith("examples/")), None)
    if script is None:
        return
    assert script.is_file()
    arguments = words[words.index(str(script.relative_to(ROOT))) + 1 :]
    recipe = next((word.partition("=")[2] for word in arguments if word.startswith("--config-name=")), None)
    known = script.read_text(encoding="utf-8") + (ROOT / "nemo_speechllm/evaluation/asking.py").read_text()
    named = re.findall(r'config_name="([\w/]+)"', known) + ([recipe] if recipe else [])
    recipes = [path for name in named if (path := ROOT / "conf" / f"{name}.yaml").is_file()]
    assert recipe is None or recipes
    known += "".join(path.read_text(encoding="utf-8") for path in (recipes or [*(ROOT / "conf").rglob("*.yaml")]))
    for argument in arguments:
        name = re.match(r"(?:--([\w-]+)|([\w.]+)=)", argument)
        if name and not argument.startswith("--config-"):
            last = (name[1] or name[2].rpartition(".")[2]).strip()
            assert re.search(rf"\b{re.escape(last)}\b|\b{last.replace('-', '_')}\b", known), argument

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

"""docs/architecture.md is what the code is: its rooms, the one way that imports run, the size of a file, its test."""

import ast
import importlib
import inspect
import re
import textwrap
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "nemo_speechllm"
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / PACKAGE).rglob("*.py"))
}
MAX_LINES, MAX_LINES_OF_DATA = 400, 2000
MAX_LINES_WITHOUT_TEST = 40  # with the licence's 14: an error's class, a protocol, the version
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def imports_of(name: str) -> set[str]:
    """The modules of the package that a module imports, wherever in it; not those that only its types need."""
    tree = ast.parse(SOURCES[name].read_text(encoding="utf-8"))
    of_types = [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    ]
    skipped = {id(node) for guarded in of_types for node in ast.walk(guarded)}
    found = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {module if module in SOURCES else node.module for module in below}
    return found & set(SOURCES)


def room_of(name: str) -> str:
    return name.removeprefix(f"{PACKAGE}.").partition(".")[0]


def rooms() -> list[str]:
    (table,) = re.findall(r"^## The rooms\n(.*?)^## ", PAGE, re.MULTILINE | re.DOTALL)
    return [name.removesuffix(".py").strip("/") for name in re.findall(r"^\| `([\w./]+)` \|", table, re.MULTILINE)]


def test_every_room_is_in_the_table():
    assert sorted(rooms()) == sorted({room_of(name) for name in SOURCES if name != PACKAGE})


def test_no_imports_run_in_a_circle():
    TopologicalSorter({name: imports_of(name) - {name} for name in SOURCES}).prepare()  # CycleError names the circle


@pytest.mark.parametrize("name", [name for name in SOURCES if name != PACKAGE])
def test_imports_run_one_way(name):
    below = rooms()[: rooms().index(room_of(name)) + 1]
    assert {room_of(imported) for imported in imports_of(name)} <= set(below)


def test_files_are_short():
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in SOURCES.items()}
    assert {name: count for name, count in lines.items() if count > MAX_LINES} == {}
    assert sum(count for name, count in lines.items() if room_of(name) == "data") <= MAX_LINES_OF_DATA


def shared_bases() -> list[tuple[str, str]]:
    """Classes of the package, with their modules, that another class inherits beside a further one."""
    definitions = {
        node.name: (name, node)
        for name, path in SOURCES.items()
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    }
    bases = {
        base.id
        for _, node in definitions.values()
        if len(node.bases) > 1
        for base in node.bases
        if isinstance(base, ast.Name) and base.id in definitions
    }
    return sorted((definitions[name][0], name) for name in bases)


def tree_of(cls: type) -> ast.AST:
    return ast.parse(textwrap.dedent(inspect.getsource(cls)))


def attributes(tree: ast.AST, context: type[ast.expr_context]) -> set[str]:
    """Attributes of ``self`` that a class reads (`ast.Load`) or sets (`ast.Store`)."""
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, context)
        if isinstance(node.value, ast.Name) and node.value.id == "self"
    }


def undeclared(cls: type) -> set[str]:
    """What a class reads of ``self`` that neither it nor a class that it derives from has, annotates or sets."""
    ancestors = [ancestor for ancestor in cls.__mro__ if ancestor.__module__ != "builtins"]
    annotated = {name for ancestor in ancestors for name in inspect.get_annotations(ancestor)}
    known = set(dir(cls)).union(annotated, *(attributes(tree_of(ancestor), ast.Store) for ancestor in ancestors))
    return attributes(tree_of(cls), ast.Load) - known


class Needy:
    """Relies on a class beside it for ``given``."""

    declared: int

    def total(self) -> int:
        self.own = 1
        return self.own + self.declared + self.given


@pytest.mark.parametrize(("module", "name"), shared_bases())
def test_what_is_inherited_beside_another_declares_what_it_reads(module, name):
    assert undeclared(getattr(importlib.import_module(module), name)) == set()


def test_what_another_class_would_have_to_bring_is_seen():
    assert undeclared(Needy) == {"given"}
    assert {"ReferencedModel", "ResumableModel", "NeMoInterface"} <= {name for _, name in shared_bases()}


@pytest.mark.parametrize("path", re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.(?:py|md))`", PAGE))
def test_the_page_names_files_that_are_there(path):
    assert (ROOT / path).is_file() or (ROOT / PACKAGE / path).is_file()


def test_every_module_has_its_test_file():
    """``tests`` mirrors the package, but for modules of a few lines, which those that use them test."""
    missing = []
    for path in SOURCES.values():
        place = path.relative_to(ROOT / PACKAGE)
        test = ROOT / "tests" / place.with_name(f"test_{place.stem.strip('_')}.py")
        is_long = len(path.read_text(encoding="utf-8").splitlines()) > MAX_LINES_WITHOUT_TEST
        if is_long and place.name != "__init__.py" and not test.is_file():
            missing.append(str(test.relative_to(ROOT)))
    assert missing == []

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

"""Which commands there are, and what their source says of them: nothing is imported, so that help comes at once."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml

PACKAGE = Path(__file__).resolve().parents[1]
# an installed package has them inside; in a checkout they lie beside it
HOME = PACKAGE if (PACKAGE / "examples").is_dir() else PACKAGE.parent
EXAMPLES, RECIPES = HOME / "examples", HOME / "conf"
CHOICES = ("trainer",)  # folders of recipes' parts, which are chosen by `trainer=NAME`
GROUPS = ("", "data")  # folders of scripts; the commands of one begin with its name
FIRST = ("train", "transcribe", "evaluate", "report", "chat", "export", "serve")
NOT_COMMANDS = ("demo",)  # it works in a checkout


@dataclass(frozen=True)
class Command:
    """A script of ``examples/`` as a command.

    Attributes:
        name: as it is typed, ``data check-manifest``.
        script: the file.
    """

    name: str
    script: Path

    @cached_property
    def source(self) -> ast.Module:
        """The script, parsed."""
        return ast.parse(self.script.read_text(encoding="utf-8"))

    @property
    def summary(self) -> str:
        """The first line of what the script says of itself."""
        return self.description.partition("\n")[0]

    @property
    def description(self) -> str:
        """What the script says of itself, with examples as commands."""
        return self.as_typed(ast.get_docstring(self.source) or "")

    @property
    def uses_hydra(self) -> bool:
        """Tell whether its settings are Hydra's ``key=value`` (else they are options)."""
        return self._runner is not None

    @property
    def recipe(self) -> str | None:
        """The recipe that it takes where none is named; None: it takes none."""
        given = self._runner or {}
        return given.get("config_name") if "config_path" in given else None

    @property
    def settings(self) -> list[str]:
        """Lines ``name: type = default  # meaning`` of its arguments' dataclass; empty where it takes a recipe."""
        schema = (self._runner or {}).get("schema")
        return list(_fields(self.source, self.script, schema)) if schema else []

    def keys(self, recipe: str | None = None) -> list[str]:
        """Return the names of its settings: options, arguments, or every key of a recipe."""
        if not self.uses_hydra:
            return list(_options(self.source))
        if self.recipe is not None:
            return list(dict.fromkeys(_recipe_keys(RECIPES / f"{recipe or self.recipe}.yaml")))
        return [line.partition(":")[0] for line in self.settings]

    def as_typed(self, text: str) -> str:
        """Return a text with the scripts that it names as commands."""
        text = re.sub(r"(?:python )?examples/((?:data/)?\w+)\.py", lambda found: _typed(found[1]), text)
        return re.sub(rf"\b{self.script.name}\b", f"nemo-speechllm {self.name}", text)

    @cached_property
    def _runner(self) -> dict[str, Any] | None:
        """The arguments of NeMo's ``hydra_runner``; a class by its name."""
        for node in self.source.body:
            for call in getattr(node, "decorator_list", []):
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "hydra_runner":
                    return {str(given.arg): _plain(given.value) for given in call.keywords}
        return None


@cache
def commands() -> dict[str, Command]:
    """Return the commands by name, those of the main job first."""
    scripts = [path for group in GROUPS for path in sorted((EXAMPLES / group).glob("*.py"))]
    found = [
        Command(_name(str(path.relative_to(EXAMPLES).with_suffix(""))), path)
        for path in scripts
        if path.stem not in (*NOT_COMMANDS, "__init__")
    ]
    found.sort(key=lambda command: FIRST.index(command.name) if command.name in FIRST else len(FIRST))
    return {command.name: command for command in found}


def recipes(folder: str | Path = RECIPES) -> list[str]:
    """Return the names of the recipes in a folder, as ``--config-name`` takes them."""
    paths = (path.relative_to(folder) for path in Path(folder).rglob("*.yaml"))
    return sorted(str(path.with_suffix("")) for path in paths if path.parts[0] not in CHOICES)


def _name(path: str | Path) -> str:
    """Return how a script is typed, of its path in ``examples/`` without a suffix."""
    return str(path).replace("/", " ").replace("_", "-")


def _typed(path: str) -> str:
    name = _name(path)
    return f"nemo-speechllm {name}" if name in commands() else f"python examples/{path}.py"


def _plain(node: ast.expr) -> Any:
    return node.value if isinstance(node, ast.Constant) else ast.unparse(node)


def _fields(source: ast.Module, file: Path, name: str) -> Iterator[str]:
    """Yield the fields of a dataclass that a file defines or imports, those of its bases first."""
    found = next((node for node in source.body if isinstance(node, ast.ClassDef) and node.name == name), None)
    if found is None:
        file = next(PACKAGE.parent / f"{module.replace('.', '/')}.py" for module in _homes(source, name))
        yield from _fields(ast.parse(file.read_text(encoding="utf-8")), file, name)
        return
    for base in found.bases:
        yield from _fields(source, file, ast.unparse(base))
    lines = file.read_text(encoding="utf-8").splitlines()
    for field in (node for node in found.body if isinstance(node, ast.AnnAssign)):
        yield "\n".join(line.strip() for line in lines[field.lineno - 1 : field.end_lineno])


def _homes(source: ast.Module, name: str) -> Iterator[str]:
    for node in source.body:
        if isinstance(node, ast.ImportFrom) and name in {alias.name for alias in node.names}:
            yield str(node.module)


def _options(source: ast.Module) -> Iterator[str]:
    """Yield the options that a script gives to ``argparse``."""
    for node in ast.walk(source):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".add_argument"):
            names = [_plain(given) for given in node.args]
            yield from (name for name in names if str(name).startswith("--"))


def _recipe_keys(file: Path) -> Iterator[str]:
    """Yield the settings of a recipe, first those of what it builds on."""
    settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    for name in (str(entry).partition("@")[0] for entry in settings.pop("defaults", []) if isinstance(entry, str)):
        if name != "_self_":
            yield from _recipe_keys(file.with_name(f"{name}.yaml"))
    yield from _leaves(settings)


def _leaves(settings: Any, above: str = "") -> Iterator[str]:
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield f"{above}{key}"

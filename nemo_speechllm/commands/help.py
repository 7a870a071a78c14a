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

"""What ``nemo-speechllm --help`` and ``nemo-speechllm COMMAND --help`` print."""

import textwrap
from collections.abc import Iterable

from nemo_speechllm.commands.catalogue import Command, commands, recipes

USAGE = """usage: nemo-speechllm COMMAND ARGUMENTS…
       nemo-speechllm COMMAND --help
       nemo-speechllm SCRIPT ARGUMENTS…
       nemo-speechllm --version"""
EPILOGUE = """A SCRIPT is a Python file that knows nothing of this package, NeMo's own above all: it runs as by
`python SCRIPT ARGUMENTS…`, with nemo_speechllm registered with NeMo.

`python -m nemo_speechllm` does the same. Completion by the Tab key, in bash and zsh:
    eval "$(register-python-argcomplete nemo-speechllm)\""""
QUOTING = """A value with =, commas, brackets, quotes or letters beyond ASCII needs quotes inside the shell's:
    "prompt='What, exactly, is said?'"
HYDRA_FULL_ERROR=1 shows the traceback of an error."""
RECIPE = """Recipes, by --config-name=NAME (default {default}); --cfg job prints one with all its settings:
{names}
--config-dir=FOLDER adds a folder of your own recipes. A setting is key=value, a new key +key=value."""


def overview(group: str = "") -> str:
    """Return what there is to be typed, all of it or the commands of a group."""
    chosen = [command for command in commands().values() if command.name.startswith(f"{group} ".lstrip())]
    width = max(len(command.name) for command in chosen)
    lines = [
        textwrap.fill(command.summary, 110, initial_indent=f"  {command.name:{width}}  ", subsequent_indent=" " * 8)
        for command in chosen
    ]
    return "\n".join([USAGE, "", *lines, "", EPILOGUE])


def of_command(command: Command) -> str:
    """Return what a command with settings ``key=value`` does, with examples, and its settings."""
    usage = f"usage: nemo-speechllm {command.name} {'--config-name=RECIPE ' if command.recipe else ''}key=value …"
    return "\n\n".join([usage, command.description, _settings(command), QUOTING])


def _settings(command: Command) -> str:
    if command.recipe is not None:
        return RECIPE.format(default=command.recipe, names=_indented(recipes()))
    return f"Settings, key: type = default (??? must be given)\n{_indented(map(_shown, command.settings))}"


def _shown(setting: str) -> str:
    return setting.replace("= MISSING", "= ???")


def _indented(lines: Iterable[str]) -> str:
    return textwrap.indent("\n".join(lines), "    ")

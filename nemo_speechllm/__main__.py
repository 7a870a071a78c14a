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

"""The console command: the scripts of ``examples/`` by name, and scripts that know nothing of this package.

    nemo-speechllm COMMAND ARGUMENTS…
    nemo-speechllm SCRIPT ARGUMENTS…

``python -m nemo_speechllm`` does the same. A SCRIPT, NeMo's above all, runs with the package registered; it sees its
own ``sys.argv`` and folder, as with ``python SCRIPT ARGUMENTS…``; see docs/nemo_clients.md.
"""

import contextlib
import io
import os
import re
import runpy
import sys
from pathlib import Path

from nemo_speechllm.command_line import nearest_of
from nemo_speechllm.commands import help as texts
from nemo_speechllm.commands.catalogue import GROUPS, Command, commands
from nemo_speechllm.package_info import __version__

HELP = ("-h", "--help")
SETTING = re.compile(r"\+{0,2}(\w+)[\w.]*=")


def main(arguments: list[str] | None = None) -> None:
    """Run the command or the script that the first arguments name.

    Args:
        arguments: of the command line; None: those of this process.

    Raises:
        SystemExit: with the status of what was run, or there is nothing of that name.
    """
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what could be typed
        from nemo_speechllm.commands.completion import complete

        complete()
    arguments = sys.argv[1:] if arguments is None else arguments
    name, *rest = arguments or [""]
    if name in HELP or not name:
        _say(texts.overview(), asked=bool(name))
    if name in ("-V", "--version"):
        _say(f"nemo_speechllm {__version__}")
    if name in GROUPS:
        if not rest or rest[0] in HELP:
            _say(texts.overview(name), asked=bool(rest))
        name, rest = f"{name} {rest[0]}", rest[1:]
    if command := commands().get(name):
        _run_command(command, rest)
    else:
        _run_script(name, rest)


def _say(text: str, asked: bool = True) -> None:
    print(text, file=sys.stdout if asked else sys.stderr)
    sys.exit(0 if asked else 2)


def _run_command(command: Command, arguments: list[str]) -> None:
    if not set(HELP) & set(arguments):
        _check_settings(command, arguments)
        _run(command.script, [str(command.script), *arguments])
    elif command.uses_hydra:
        _say(texts.of_command(command))
    else:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            _run(command.script, [str(command.script), *HELP[:1]])
        _say(command.as_typed(printed.getvalue()).rstrip())


def _check_settings(command: Command, arguments: list[str]) -> None:
    """Refuse a setting that the command does not have, before its script's imports, which take many seconds.

    What a recipe has, and how a setting is to be written, Hydra says.
    """
    known = command.keys() if command.uses_hydra and command.recipe is None else []
    for found in filter(None, map(SETTING.match, arguments)):
        if known and found[1] not in (*known, "hydra"):
            sys.exit(f"error: there is no setting {found[1]!r}; {nearest_of(found[1], known)}")


def _run_script(name: str, arguments: list[str]) -> None:
    if Path(name).is_file():
        return _run(Path(name), [name, *arguments])
    if re.fullmatch(r"[\w -]+", name):
        sys.exit(f"error: there is no command {name!r}; {nearest_of(name, list(commands()))}")
    sys.exit(f"error: there is no script {name}; the path counts from {Path.cwd()}. A script is a Python file")


def _run(script: Path, arguments: list[str]) -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read by PyTorch's threads: one that waits leaves its core
    sys.argv = arguments
    sys.path[0] = str(script.resolve().parent)  # `python -m` has the current folder there, a console script its own
    runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()

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

"""Completion by the Tab key: commands, their settings and options, recipes, and files behind ``key=``."""

import argparse

import argcomplete
from argcomplete.completers import DirectoriesCompleter, FilesCompleter

from nemo_speechllm.commands.catalogue import Command, commands, recipes


def complete() -> None:
    """Answer the shell and end the process; do nothing where no shell asks."""
    argcomplete.autocomplete(parser())


def parser() -> argparse.ArgumentParser:
    """Return a parser that knows every command, for completion alone: the scripts read their own arguments."""
    root = argparse.ArgumentParser("nemo-speechllm")
    names = root.add_subparsers()
    groups = {"": names}
    for name, command in commands().items():
        group, _, last = name.rpartition(" ")
        if group not in groups:
            groups[group] = names.add_parser(group).add_subparsers()
        _add_arguments(groups[group].add_parser(last), command)
    return root


def _add_arguments(subparser: argparse.ArgumentParser, command: Command) -> None:
    if not command.uses_hydra:
        for option in command.keys():
            subparser.add_argument(option)
        return
    if command.recipe is not None:
        _completed(subparser.add_argument("--config-name"), lambda **_: recipes())
        _completed(subparser.add_argument("--config-dir"), DirectoriesCompleter())
    _completed(subparser.add_argument("settings", nargs="*"), _Settings(command))


def _completed(action: argparse.Action, completer: object) -> None:
    action.completer = completer  # type: ignore[attr-defined]  # where argcomplete looks for it


class _Settings:
    """Completes ``key=value``: keys of a command or its recipe, then names of files."""

    def __init__(self, command: Command):
        self.command = command
        self.files = FilesCompleter()

    def __call__(self, prefix: str, parsed_args: argparse.Namespace, **_: object) -> list[str]:
        key, chosen, value = prefix.partition("=")
        if chosen:
            return [f"{key}={file}" for file in self.files(value)]
        recipe = getattr(parsed_args, "config_name", None)
        return [f"{name}=" for name in self.command.keys(recipe if recipe in recipes() else None)]

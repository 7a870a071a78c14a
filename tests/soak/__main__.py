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

"""The long forms of what the tests try in short, each in a process of its own: one table of all.

    python -m tests.soak                            # all; hours
    python -m tests.soak kills:kills=3,seed=1       # one part, shorter: its arguments are those of the part's `run`

A part is a module beside this one with a function ``run(**arguments)``, which returns ``name``, how many were
``tried`` and how many of those ended with something ``lost``, ``wrong`` or ``hung``, and if it likes ``failures``,
from what was tried to what happened, or ``examples``, a list of the same. The status is 1 unless every part has run
and the last three are 0.
"""

import argparse
import importlib
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, set_start_method
from typing import Any

import yaml
from tqdm import tqdm

PARTS = ("fuzzed_rows", "hostile_checkpoints", "kills")
BAD = ("lost", "wrong", "hung")


def part(text: str) -> tuple[str, dict[str, Any]]:
    """Return name and arguments of ``kills:kills=3,seed=1``."""
    name, _, settings = text.partition(":")
    if name not in PARTS:
        raise argparse.ArgumentTypeError(f"there is no part {name!r}; there are {', '.join(PARTS)}")
    pairs = [setting.partition("=") for setting in settings.split(",") if setting]
    return name, {key: yaml.safe_load(value) for key, _, value in pairs}


def run_part(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return what a part found; of one that is missing or fails, its ``error``."""
    with ProcessPoolExecutor(
        1, mp_context=get_context("spawn")
    ) as pool:  # parts fork, which threads of another would break
        try:
            # a child process knows a package's `__main__` by its full name alone
            call = importlib.import_module(f"{__package__}.__main__")._call
            return pool.submit(call, name, arguments).result()
        except Exception as error:  # the other parts shall run all the same; it is in the table and in the status
            return {"name": name, "error": f"{type(error).__name__}: {error}"}


def _call(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    # spawned itself, this process would spawn its own as well, as the workers of data: they would import all again
    set_start_method("fork", force=True)
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}  # threads do not survive a fork
    return importlib.import_module(f"{__package__}.{name}").run(**arguments)


def table(results: list[dict[str, Any]]) -> str:
    """Return a line for each part, and below what failed."""
    width = max(len(result["name"]) for result in results)
    lines = [f"{'':{width}} {'tried':>7} {'lost':>7} {'wrong':>7} {'hung':>7}"]
    for result in results:
        figures = (
            " ".join(f"{result[column]:7}" for column in ("tried", *BAD))
            if "error" not in result
            else "   did not run"
        )
        lines.append(f"{result['name']:{width}} {figures}")
    for result in results:
        failures = result.get("failures", {}) | ({"": result["error"]} if "error" in result else {})
        lines += [f"{result['name']} {case}: {what}".replace(" :", ":") for case, what in failures.items()]
        lines += [f"{result['name']}: {what}" for what in result.get("examples", [])]
    return "\n".join(lines)


def is_sound(result: dict[str, Any]) -> bool:
    """Return whether a part has tried something and nothing was lost, wrong or hung."""
    return "error" not in result and result["tried"] > 0 and not any(result[column] for column in BAD)


def main(arguments: list[str] | None = None) -> int:
    """Run the parts that are asked for, print the table, and return the status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", type=part, metavar="PART[:KEY=VALUE,…]", help=f"of {', '.join(PARTS)}")
    asked = parser.parse_args(arguments).parts or [(name, {}) for name in PARTS]
    progress = tqdm(asked, unit="part")
    results = []
    for name, settings in progress:
        progress.set_description(name)
        results.append(run_part(name, settings))
        progress.write(table(results[-1:]), file=sys.stderr)  # of a run that is interrupted the parts that ended
    print(table(results))
    return int(not all(map(is_sound, results)))


if __name__ == "__main__":
    sys.exit(main())

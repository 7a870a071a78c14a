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

"""Runs a script that knows nothing of this package, NeMo's above all, with the package registered.

    python -m nemo_speechllm SCRIPT ARGS…

The script sees its own ``sys.argv`` and folder, as with ``python SCRIPT ARGS…``; see docs/nemo_clients.md.
"""

import runpy
import sys
from pathlib import Path

USAGE = """usage: python -m nemo_speechllm SCRIPT ARGS…
Registers nemo_speechllm with NeMo, then runs SCRIPT as `python SCRIPT ARGS…` does:
NeMo's own scripts find this package's models."""


def main(arguments: list[str]) -> None:
    """Run the script that the first argument names.

    Raises:
        SystemExit: there is no such script.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, file=sys.stdout if arguments else sys.stderr)
        sys.exit(0 if arguments else 2)
    script = Path(arguments[0])
    if not script.is_file():
        sys.exit(
            f"there is no script {script}; the path counts from {Path.cwd()}. The first argument is a Python file"
        )
    sys.argv = arguments
    sys.path[0] = str(script.resolve().parent)  # there `python -m` has the current folder
    runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])

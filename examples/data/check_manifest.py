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

"""Report every bad line of NeMo manifests, and write the clean rest. The manifests themselves are never changed.

    python examples/data/check_manifest.py train.jsonl --sample-rate 16000 --write-clean train_clean.jsonl

The exit status is 1 when there are issues, 2 when a manifest cannot be read.
"""

import argparse
import os
from collections import Counter
from pathlib import Path

from nemo_speechllm.command_line import emit, run_command
from nemo_speechllm.manifests.check import check_manifest
from nemo_speechllm.manifests.manifest import relocate, write_manifest
from nemo_speechllm.manifests.rows import answer_of


def channel(value: str) -> int | str:
    """Return the ``channel_selector`` that a word of the command line means."""
    return value if value == "average" else int(value)


def parse_arguments() -> argparse.Namespace:
    """Return the settings of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifests", nargs="+", type=Path, help="NeMo manifests")
    parser.add_argument("--write-clean", type=Path, metavar="OUT", help="new manifest for the lines without issues")
    parser.add_argument("--sample-rate", type=int, help="expected sample rate in Hz (default: any)")
    parser.add_argument("--min-duration", type=float, help="shortest duration accepted, in seconds")
    parser.add_argument("--max-duration", type=float, help="longest duration accepted, in seconds")
    parser.add_argument(
        "--channel-selector",
        type=channel,
        help="what will be read of several channels: a number or average (default: they are an issue)",
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="decoding threads (default: one a core)")
    arguments = parser.parse_args()
    if arguments.write_clean and arguments.write_clean.resolve() in [path.resolve() for path in arguments.manifests]:
        parser.error(f"--write-clean {arguments.write_clean} is a manifest to be checked; give another name")
    return arguments


def main() -> int:
    """Check the manifests, name and count what is wrong with them, and return the exit status."""
    arguments = parse_arguments()
    names = ("sample_rate", "min_duration", "max_duration", "channel_selector", "workers")
    limits = {name: getattr(arguments, name) for name in names}
    clean, kinds, silent, left_out = [], Counter(), 0, 0
    for manifest in arguments.manifests:
        rows, issues = check_manifest(manifest, **limits)
        emit(*issues)
        kinds.update(issue.kind for issue in issues)
        left_out += sum(bool(row.get("_skipme")) for row in rows)
        silent += sum(answer_of(row) == "" and not row.get("_skipme") for row in rows)
        clean += (
            rows if arguments.write_clean is None else (relocate(row, manifest, arguments.write_clean) for row in rows)
        )
    for kind, count in kinds.most_common():
        emit(f"{count:6d}  {kind}")
    for count, told in ((silent, "answered with nothing (empty text)"), (left_out, "left out by their _skipme")):
        if count:
            emit(f"{count:6d}  of the clean lines are {told}")
    emit(f"{len(clean)} clean lines, {kinds.total()} issues")
    if arguments.write_clean:
        write_manifest(arguments.write_clean, clean)
        emit(f"clean lines written to {arguments.write_clean}")
    return 1 if kinds else 0


if __name__ == "__main__":
    run_command(main)

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

"""Split a NeMo manifest into train, dev and test so that no text, or no speaker, is in two of them.

    python examples/data/split_manifest.py all.jsonl --out data --dev 0.05 --test 0.1
    python examples/data/split_manifest.py all.jsonl --out data --dev 0.1 --test 0.2 --by speaker

Lines that say the same words (case and punctuation aside) stay together, whoever speaks them; with ``--by speaker``,
all lines of a speaker do. The split depends on the texts, or the speakers, only: the same manifest in another order is
split alike.
"""

import argparse
import hashlib
import math
from pathlib import Path

from nemo_speechllm.command_line import emit, run_command
from nemo_speechllm.manifests.manifest import read_manifest, relocate, write_manifest
from nemo_speechllm.metrics.error_rate import normalizer


def split_rows(rows: list[dict], dev: float, test: float, by: str = "text") -> dict[str, list[dict]]:
    """Rows by split; `dev` and `test` are fractions of the distinct texts or speakers, rounded up.

    Raises:
        ValueError: a row has no text or speaker, or nothing is left to train on.
    """
    for row in rows:
        if not isinstance(row.get(by), str):
            raise ValueError(f"{row['audio_filepath']}: its line has no '{by}'; see examples/data/check_manifest.py")
    clean = normalizer("basic")
    groups = [clean(row[by]).strip() for row in rows] if by == "text" else [row[by] for row in rows]
    ordered = sorted(set(groups), key=lambda group: hashlib.sha256(group.encode()).digest())
    n_test, n_dev = math.ceil(test * len(ordered)), math.ceil(dev * len(ordered))
    if n_test + n_dev >= len(ordered):
        raise ValueError(
            f"{len(ordered)} distinct {by}s are too few for {n_dev} in dev, {n_test} in test and any in train"
        )
    names = ["test"] * n_test + ["dev"] * n_dev + ["train"] * (len(ordered) - n_test - n_dev)
    split_of = dict(zip(ordered, names, strict=True))
    splits = {"train": [], "dev": [], "test": []}
    for row, group in zip(rows, groups, strict=True):
        splits[split_of[group]].append(row)
    return splits


def parse_arguments() -> argparse.Namespace:
    """Return the settings of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path, help="NeMo manifest")
    parser.add_argument("--out", type=Path, required=True, help="folder for train.jsonl, dev.jsonl and test.jsonl")
    parser.add_argument(
        "--by", choices=("text", "speaker"), default="text", help="what no two splits share (default: text)"
    )
    parser.add_argument(
        "--dev", type=float, default=0.05, help="fraction of the texts or speakers for dev (default: 0.05)"
    )
    parser.add_argument(
        "--test", type=float, default=0.1, help="fraction of the texts or speakers for test (default: 0.1)"
    )
    arguments = parser.parse_args()
    if not (arguments.dev >= 0 and arguments.test >= 0 and arguments.dev + arguments.test < 1):
        parser.error("--dev and --test are fractions whose sum is below 1")
    outputs = [(arguments.out / f"{name}.jsonl").resolve() for name in ("train", "dev", "test")]
    if arguments.manifest.resolve() in outputs:
        parser.error(f"{arguments.manifest} would be overwritten; give another --out")
    return arguments


def main() -> None:
    """Split the manifest, and tell lines and hours of each part."""
    arguments = parse_arguments()
    read_manifest(arguments.manifest, locate_audio=True)
    splits = split_rows(read_manifest(arguments.manifest), arguments.dev, arguments.test, arguments.by)
    for name, rows in splits.items():
        target = arguments.out / f"{name}.jsonl"
        write_manifest(target, (relocate(row, arguments.manifest, target) for row in rows))
        hours = sum(row.get("duration", 0.0) for row in rows) / 3600
        emit(f"{target}: {len(rows)} lines, {hours:.2f} h")


if __name__ == "__main__":
    run_command(main)

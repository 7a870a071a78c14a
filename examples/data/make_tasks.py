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

"""Questions about recordings whose answers a manifest's labels tell, for examples/evaluate_tasks.py.

    python examples/data/make_tasks.py test.jsonl noisy/manifest.jsonl --out tasks.jsonl
    python examples/data/make_tasks.py test.jsonl --tasks my_tasks.yaml --out tasks.jsonl --limit 100

A task in the YAML (default: nemo_speechllm/corpora/label_questions.yaml) names its ``category``, the ``key`` of the
manifest that holds the label, how a value is called in an answer (``labels``), and ``instructions``, of which each
line gets one, drawn by (seed, task, line). Lines without the key, or with a value that has no name, are not asked
about; how many are, is printed by task.
"""

import argparse
from collections import Counter
from itertools import zip_longest
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

import nemo_speechllm.corpora
from nemo_speechllm.command_line import emit, run_command
from nemo_speechllm.manifests.manifest import read_manifest, relocate, write_manifest
from nemo_speechllm.randomness import named_random

TASKS = Path(nemo_speechllm.corpora.__file__).with_name("label_questions.yaml")


def questions_of(task: str, spec: DictConfig, rows: list[dict], limit: int | None, seed: int) -> list[dict]:
    """Return the rows that a task can be asked about, each with its question.

    Of more than ``limit``, as many of each label as can be.

    Raises:
        ValueError: the task's section lacks a key.
    """
    missing = [key for key in ("category", "key", "labels", "instructions") if key not in spec]
    if missing:
        raise ValueError(f"{task}: {missing} must be given")
    labels = {str(value): label for value, label in spec["labels"].items()}
    known = [row for row in rows if str(row.get(spec["key"])) in labels]
    of_label: dict[str, list[int]] = {}
    for place in named_random((seed, task)).permutation(len(known)).tolist():
        of_label.setdefault(labels[str(known[place][spec["key"]])], []).append(place)
    turns = [place for turn in zip_longest(*of_label.values()) for place in turn if place is not None]
    chosen = [known[place] for place in sorted(turns[:limit])]
    return [
        {key: row[key] for key in ("audio_filepath", "offset", "duration") if key in row}
        | {"task": task, "category": spec["category"], "labels": list(dict.fromkeys(labels.values()))}
        | {"label": labels[str(row[spec["key"]])]}
        | {"instruction": str(named_random((seed, task, index)).choice(list(spec["instructions"])))}
        for index, row in enumerate(chosen)
    ]


def values_of(rows: list[dict], specs: list[DictConfig]) -> dict[str, list[str]]:
    """Return what the manifests hold under the keys that the tasks ask for, up to five values of each."""
    found = {spec["key"]: {str(row[spec["key"]]): None for row in rows if spec["key"] in row} for spec in specs}
    return {key: list(values)[:5] for key, values in found.items() if values}


def parse_arguments() -> argparse.Namespace:
    """Return the settings of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifests", type=Path, nargs="+", help="NeMo manifests with labels")
    parser.add_argument("--out", type=Path, required=True, help="manifest to write")
    parser.add_argument(
        "--tasks",
        type=Path,
        default=TASKS,
        help="YAML of the tasks (default: nemo_speechllm/corpora/label_questions.yaml)",
    )
    parser.add_argument("--only", nargs="+", help="names of tasks (default: all)")
    parser.add_argument("--limit", type=int, help="lines of a task, at most (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Write the questions of the tasks about the recordings of the manifests."""
    arguments = parse_arguments()
    rows = [
        relocate(row, manifest, arguments.out) for manifest in arguments.manifests for row in read_manifest(manifest)
    ]
    specs = OmegaConf.load(arguments.tasks)
    unknown = set(arguments.only or []) - set(specs)
    if unknown:
        raise ValueError(f"{arguments.tasks}: there is no task {sorted(unknown)}; there are {list(specs)}")
    asked = [
        question
        for task in arguments.only or specs
        for question in questions_of(task, specs[task], rows, arguments.limit, arguments.seed)
    ]
    if not asked:
        found = values_of(rows, [specs[task] for task in arguments.only or specs])
        raise ValueError(
            f"no line has a label that {arguments.tasks} names; there are {found}: give the values names in a copy "
            "for --tasks"
        )
    write_manifest(arguments.out, asked)
    counts: dict[str, Counter] = {}
    for question in asked:
        counts.setdefault(question["task"], Counter())[question["label"]] += 1
    for task, labels in counts.items():
        found = ", ".join(f"{label} {count}" for label, count in labels.items())
        emit(f"{arguments.out}: {task} {labels.total()} ({found})")


if __name__ == "__main__":
    run_command(main)

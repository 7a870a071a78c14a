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

"""Error rates of two systems on the same utterances, and whether they differ.

    python examples/compare.py runs/a/predictions.jsonl runs/b/predictions.jsonl

The files are those of evaluate.py on one manifest with one normaliser. The interval and p come from a paired bootstrap over
utterances. Where both evaluations had ``lm_loss=true``, the difference of the losses follows.
"""

import argparse
import json
import sys
from pathlib import Path

from nemo_speechllm.metrics.significance import compare_paired

SHARED = ("text", "words")


def read_predictions(path: Path) -> dict[int, dict]:
    """Predictions by the index of their utterance."""
    predictions = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n")[:-1], 1):
        try:
            prediction = json.loads(line)
            predictions[prediction["index"]] = {key: prediction[key] for key in ("errors", *SHARED)} | {
                "lm_loss": prediction.get("lm_loss")
            }
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{path}:{number}: not a prediction of evaluate.py ({type(error).__name__}: {error}); give the "
                "predictions.jsonl of an evaluation"
            ) from error
    return predictions


def check_same_utterances(paths: list[Path], a: dict[int, dict], b: dict[int, dict]) -> None:
    """Raises ValueError where the files are not of the same references."""
    if a.keys() != b.keys():
        raise ValueError(
            f"{paths[0]} has {len(a)} utterances, {paths[1]} {len(b)}, {len(a.keys() & b.keys())} of them in both; "
            "finish both evaluations, on the same manifest"
        )
    for index, (first, second) in ((index, (a[index], b[index])) for index in sorted(a)):
        for key in SHARED:
            if first[key] != second[key]:
                raise ValueError(
                    f"utterance {index} has {key} {first[key]!r} in {paths[0]} and {second[key]!r} in {paths[1]}; evaluate "
                    "both on the same manifest with the same normalizer"
                )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("predictions", type=Path, nargs=2, metavar="predictions.jsonl")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    try:
        a, b = map(read_predictions, arguments.predictions)
        check_same_utterances(arguments.predictions, a, b)
        errors = [[table[index]["errors"] for index in sorted(a)] for table in (a, b)]
        found = compare_paired(*errors, [a[index]["words"] for index in sorted(a)], seed=arguments.seed)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for path, rate in zip(arguments.predictions, found.rates):
        print(f"{100 * rate:7.2f} % WER  {path}")
    low, high = (100 * bound for bound in found.interval)
    print(
        f"{100 * found.difference:+7.2f} points (second − first), 95 % interval {low:+.2f} to {high:+.2f}, p = {found.p:.4f}, "
        f"{len(a)} utterances"
    )
    losses = [[table[index]["lm_loss"] for index in sorted(a)] for table in (a, b)]
    if None not in losses[0] + losses[1]:
        found = compare_paired(*losses, [1] * len(a), seed=arguments.seed)
        print(
            f"{found.difference:+7.3f} nats per token ({found.rates[0]:.3f}, {found.rates[1]:.3f}), 95 % interval "
            f"{found.interval[0]:+.3f} to {found.interval[1]:+.3f}, p = {found.p:.4f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

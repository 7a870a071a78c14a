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

"""Error rates and translation scores of two systems on the same utterances, and whether they differ.

    python examples/compare.py runs/a/predictions.jsonl runs/b/predictions.jsonl

The files are those of evaluate.py on one manifest with one normaliser. The interval and p of error rates come from a
paired bootstrap over utterances, and so do those of the losses where both evaluations had ``lm_loss=true``; the p of
BLEU and chrF, for each direction, comes from sacrebleu's approximate randomization.
"""

import argparse
import json
from pathlib import Path

from nemo_speechllm.command_line import emit, run_command
from nemo_speechllm.metrics.significance import compare_paired
from nemo_speechllm.metrics.translation import by_direction, is_translation, score_translations

Table = dict[int, dict]  # predictions by the index of their utterance
TRANSCRIPT, TRANSLATION = ("errors", "text", "words"), ("index", "text", "pred_text", "lang", "target_lang")
SHARED = ("text", "words", "lang", "target_lang", "normalizer")  # what two systems were given alike


def read_predictions(path: Path) -> Table:
    """Read predictions by the index of their utterance."""
    run = path.with_name("run.json")  # which names the normaliser where older predictions do not
    recorded = json.loads(run.read_text(encoding="utf-8")).get("normalizer") if run.is_file() else None
    predictions = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n")[:-1], 1):
        try:
            prediction = json.loads(line)
            keys = TRANSLATION if is_translation(prediction) else TRANSCRIPT
            normalizer = None if is_translation(prediction) else prediction.get("normalizer", recorded)
            predictions[prediction["index"]] = {key: prediction[key] for key in keys} | {
                "lm_loss": prediction.get("lm_loss"),
                "normalizer": normalizer,
            }
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{path}:{number}: not a prediction of evaluate.py ({type(error).__name__}: {error}); give the "
                "predictions.jsonl of an evaluation"
            ) from error
    return predictions


def check_same_utterances(paths: list[Path], a: Table, b: Table) -> None:
    """Raise ValueError where the files are not of the same references, or their words were counted differently."""
    if a.keys() != b.keys():
        raise ValueError(
            f"{paths[0]} has {len(a)} utterances, {paths[1]} {len(b)}, {len(a.keys() & b.keys())} of them in both; "
            "finish both evaluations, on the same manifest"
        )
    for index, (first, second) in ((index, (a[index], b[index])) for index in sorted(a)):
        for key in SHARED:
            if first.get(key) != second.get(key):
                raise ValueError(
                    f"utterance {index} has {key} {first.get(key)!r} in {paths[0]} and {second.get(key)!r} "
                    f"in {paths[1]}; evaluate both on the same manifest with the same normalizer"
                )


def compare_transcripts(paths: list[Path], tables: list[Table], indices: list[int], seed: int) -> None:
    """Print WER of both and their difference."""
    errors = [[table[index]["errors"] for index in indices] for table in tables]
    found = compare_paired(*errors, [tables[0][index]["words"] for index in indices], seed=seed)
    for path, rate in zip(paths, found.rates, strict=True):
        emit(f"{100 * rate:7.2f} % WER  {path}")
    low, high = (100 * bound for bound in found.interval)
    emit(
        f"{100 * found.difference:+7.2f} points (second − first), 95 % interval {low:+.2f} to {high:+.2f}, "
        f"p = {found.p:.4f}, {len(indices)} utterances"
    )


def compare_losses(tables: list[Table], seed: int) -> None:
    """Print the difference of the losses, where both have them."""
    losses = [[table[index]["lm_loss"] for index in sorted(table)] for table in tables]
    if None in losses[0] + losses[1]:
        return
    found = compare_paired(*losses, [1] * len(losses[0]), seed=seed)
    emit(
        f"{found.difference:+7.3f} nats per token ({found.rates[0]:.3f}, {found.rates[1]:.3f}), 95 % interval "
        f"{found.interval[0]:+.3f} to {found.interval[1]:+.3f}, p = {found.p:.4f}"
    )


def compare_translations(paths: list[Path], tables: list[Table], indices: list[int]) -> None:
    """Print BLEU and chrF of both and their difference, direction by direction."""
    for direction, predictions in by_direction([tables[0][index] for index in indices]).items():
        texts = [[table[prediction["index"]]["pred_text"] for prediction in predictions] for table in tables]
        references = [prediction["text"] for prediction in predictions]
        for score in score_translations(texts, references, predictions[0]["target_lang"]):
            first, second = score.results
            for path, result in zip(paths, score.results, strict=True):
                emit(f"{result.score:7.2f} {score.name} {direction}  {path}")
            emit(
                f"{second.score - first.score:+7.2f} points (second − first), p = {second.p_value:.4f}, "
                f"{len(references)} utterances, {score.signature}"
            )


def parse_arguments() -> argparse.Namespace:
    """Return the two files, and the seed of the bootstrap."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("predictions", type=Path, nargs=2, metavar="predictions.jsonl")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap of error rates")
    return parser.parse_args()


def main() -> None:
    """Print how the second file differs from the first."""
    arguments = parse_arguments()
    tables = [read_predictions(path) for path in arguments.predictions]
    check_same_utterances(arguments.predictions, *tables)
    translated = [index for index in sorted(tables[0]) if is_translation(tables[0][index])]
    transcribed = sorted(tables[0].keys() - set(translated))
    if transcribed or not translated:
        compare_transcripts(arguments.predictions, tables, transcribed, arguments.seed)
    compare_translations(arguments.predictions, tables, translated)
    compare_losses(tables, arguments.seed)


if __name__ == "__main__":
    run_command(main)

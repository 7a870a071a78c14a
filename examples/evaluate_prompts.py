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

"""How much error rates depend on the prompt: on the instruction's wording, and on order and number of the keywords.

    python examples/evaluate_prompts.py model=salm_whisper_smollm2 manifest=test.jsonl output_dir=runs/prompts
    python examples/evaluate_prompts.py model=x.nemo manifest=runs/keywords/mixed_50/manifest.jsonl \\
        output_dir=runs/prompts orders=10 'lengths=[5,20]' \\
        'instructions=["Write it down.","What is said?"]' 'evaluate=["batch_size=4"]'

The manifest is evaluated as it is, with each of ``instructions`` in the place of its own (by default the 20 wordings
of "transcribe" that training never sees), and, where lines have ``keywords``, with these shuffled ``orders`` times and
cut to each of ``lengths``. The spread of a kind is that of its error rates. An order depends on ``seed`` and the
utterance alone.

Each condition has a folder with its ``manifest.jsonl`` and the ``evaluation`` that examples/evaluate.py writes there;
the same command takes up a run that was killed. ``results.csv`` has all conditions, ``results.md`` and
``results.json`` their spread.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from nemo.core.config import hydra_runner
from nemo.utils import logging
from omegaconf import MISSING

from nemo_speechllm.command_line import check_settings, emit, run_command
from nemo_speechllm.data.keywords import keyword_list
from nemo_speechllm.evaluation.run import evaluate_in_folder
from nemo_speechllm.evaluation.tables import markdown_table, percent
from nemo_speechllm.files import FolderLock, claim_record, file_digest, write_csv, write_json, write_text
from nemo_speechllm.manifests.manifest import read_manifest, relocate, write_manifest
from nemo_speechllm.prompts.instruction_pools import load_pools
from nemo_speechllm.randomness import named_random


@dataclass
class EvaluatePromptsArguments:
    """Which model, wordings and orders are evaluated, and where the results go."""

    model: str = MISSING
    manifest: str = MISSING
    output_dir: str = MISSING
    instructions: list[str] | None = None  # None: unseen wordings of transcribe
    orders: int = 5  # of the keywords
    lengths: list[int] = field(default_factory=lambda: [0, 8, 64])  # keywords that are kept
    seed: int = 0
    evaluate: list[str] = field(default_factory=list)  # further arguments of evaluate.py


@dataclass
class Condition:
    """A ``kind`` of change to prompts, its ``prompt`` in words, and what it makes of a row and its keywords."""

    kind: str
    prompt: str
    change: Callable[[int, dict, list[str]], dict]


def conditions_of(cfg: EvaluatePromptsArguments, has_keywords: bool) -> list[Condition]:
    """Return all conditions, the unchanged manifest first."""

    def reworded(text: str) -> Callable[[int, dict, list[str]], dict]:
        return lambda index, row, keywords: row | {"instruction": text}

    def shuffled(number: int) -> Callable[[int, dict, list[str]], dict]:
        def change(index: int, row: dict, keywords: list[str]) -> dict:
            order = named_random(("order", cfg.seed, number, index)).permutation(len(keywords))
            return row | {"keywords": [keywords[place] for place in order]}

        return change

    def cut(length: int) -> Callable[[int, dict, list[str]], dict]:
        return lambda index, row, keywords: row | {"keywords": keywords[:length]}

    instructions = cfg.instructions if cfg.instructions is not None else load_pools()["transcribe"].unseen
    conditions = [Condition("as_is", "", lambda index, row, keywords: row)]
    conditions += [Condition("wording", text, reworded(text)) for text in instructions]
    if has_keywords:
        conditions += [Condition("order", f"order {number}", shuffled(number)) for number in range(cfg.orders)]
        conditions += [Condition("length", f"{length} keywords", cut(length)) for length in cfg.lengths]
    return conditions


def spread_of(rates: list[float]) -> dict[str, Any]:
    """Return the spread of error rates.

    It is ``conditions`` (how many), ``lowest``, ``mean``, ``highest`` and ``deviation`` (standard, of a sample).
    """
    deviation = float(np.std(rates, ddof=1)) if len(rates) > 1 else None
    figures = {"lowest": min(rates), "mean": float(np.mean(rates)), "highest": max(rates), "deviation": deviation}
    return {"conditions": len(rates)} | figures


def write_results(rows: list[dict[str, Any]], output: Path) -> None:
    """Write all conditions as CSV, the spread of each kind as JSON and Markdown."""
    write_csv(output / "results.csv", rows)
    kinds = dict.fromkeys(row["kind"] for row in rows)
    spread = {kind: spread_of([row["wer"] for row in rows if row["kind"] == kind]) for kind in kinds}
    write_json(output / "results.json", spread)
    table = markdown_table(
        ["prompts", "conditions", "lowest WER, %", "mean", "highest", "standard deviation"],
        [
            [kind, str(figures["conditions"]), *map(percent, list(figures.values())[1:])]
            for kind, figures in spread.items()
        ],
    )
    write_text(output / "results.md", table + "\n")
    emit(table)


@hydra_runner(config_name="EvaluatePromptsArguments", schema=EvaluatePromptsArguments)
def main(cfg: EvaluatePromptsArguments) -> None:
    """Evaluate every condition and write their table and spread."""
    check_settings(cfg)
    output, rows = Path(cfg.output_dir), read_manifest(cfg.manifest, locate_audio=True)
    lock = FolderLock(output, "evaluation")
    keywords = [keyword_list(row.get("keywords")) for row in rows]
    conditions, results = conditions_of(cfg, any(keywords)), []
    for number, condition in enumerate(conditions):
        logging.info(f"[{number + 1}/{len(conditions)}] {condition.kind}: {condition.prompt}")
        folder = output / f"{number:03d}_{condition.kind}"
        folder.mkdir(parents=True, exist_ok=True)
        record = {"manifest": file_digest(cfg.manifest), "prompt": condition.prompt, "seed": cfg.seed}
        claim_record(folder / "condition.json", record, "prompts made of something else")
        manifest = folder / "manifest.jsonl"
        changed = (condition.change(i, row, words) for i, (row, words) in enumerate(zip(rows, keywords, strict=True)))
        write_manifest(manifest, (relocate(row, Path("rows"), manifest) for row in changed))
        report = evaluate_in_folder(cfg.model, manifest, cfg.evaluate)
        if report.wer is None:
            raise ValueError(
                f"{cfg.manifest} has no transcript to count errors in; give lines with `text`, to be transcribed"
            )
        low, high = report.wer_ci
        row = {
            "kind": condition.kind,
            "prompt": condition.prompt,
            "wer": report.wer,
            "wer_low": low,
            "wer_high": high,
        }
        results.append(row | {"keyword_f": report.keywords.f if report.keywords else None})
    write_results(results, output)
    lock.release()
    logging.info(f"results.csv, .md and .json are in {output}")


if __name__ == "__main__":
    run_command(main)

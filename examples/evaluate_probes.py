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

"""Does a model answer in the form that is asked for, and does it compute step by step what it hears (2409.20007)?

    python examples/evaluate_probes.py model=x.nemo manifest=test.jsonl output_dir=runs/probes
    python examples/evaluate_probes.py model=cascade:whisper:whisper-base+smollm2-135m-instruct manifest=test.jsonl \\
        output_dir=runs/probes_cascade

Every recording of a manifest (``audio_filepath``, ``duration``, ``text``) is asked every probe of
``nemo_speechllm/metrics/probes.yaml``, or of ``probes=FILE``: capital letters only, a JSON object, a numbered list, …;
words per second, computed step by step. ``nemo_speechllm/metrics/probes.py`` says what passes; no LLM judges.

``predictions.jsonl`` grows batch by batch: the same command takes up a run that was killed. ``metrics.json`` and
``results.md`` are written at the end.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo.core.config import hydra_runner
from nemo.utils import logging

from nemo_speechllm.command_line import check_settings, run_command
from nemo_speechllm.data.conversation import Audio, Conversation
from nemo_speechllm.evaluation.asking import AskingArguments, ask, asking_record, question_about, write_report
from nemo_speechllm.evaluation.predictions import PredictionLog
from nemo_speechllm.evaluation.tables import format_probe_table
from nemo_speechllm.files import file_digest
from nemo_speechllm.manifests.manifest import raise_for, read_lines, read_manifest
from nemo_speechllm.metrics.probes import PROBES, passes, probe_report, read_probes
from nemo_speechllm.models import load_system
from nemo_speechllm.models.answers import Answer
from nemo_speechllm.models.loading import only_answer

Item = tuple[dict[str, Any], dict[str, Any]]  # a row of the manifest, and a probe


@dataclass
class EvaluateProbesArguments(AskingArguments):
    """Which model is asked which probes about which recordings."""

    probes: str = str(PROBES)


def read_rows(manifest: str) -> list[dict]:
    """Read the rows of a manifest, each with a ``text`` and a ``duration``."""
    raise_for(manifest, read_lines(manifest))
    rows = read_manifest(manifest, locate_audio=True)
    for number, row in enumerate(rows, 1):
        if "text" not in row:
            raise ValueError(f"{manifest}:{number}: text: the key is missing → add what is said")
    return rows


def prediction(item: Item, answer: Answer) -> dict[str, Any]:
    """Return a line of ``predictions.jsonl``."""
    row, probe = item
    shown = {key: row[key] for key in ("audio_filepath", "duration", "text")}
    asked = {"probe": probe["name"], "category": probe["category"], "instruction": probe["instruction"]}
    return shown | asked | {"pred_text": answer.text, "passed": passes(answer.text, probe, row)}


@hydra_runner(config_name="EvaluateProbesArguments", schema=EvaluateProbesArguments)
def main(cfg: EvaluateProbesArguments) -> None:
    """Write predictions and figures, and print the table."""
    check_settings(cfg)
    probes, rows = read_probes(cfg.probes), read_rows(cfg.manifest)
    model, output = load_system(cfg.model), Path(cfg.output_dir)
    record = asking_record(cfg, model, file_digest(cfg.manifest)) | {"probes": file_digest(cfg.probes)}
    log = PredictionLog(output, record)
    only_answer(model)

    def question(item: Item) -> Conversation:
        row, probe = item
        return question_about(
            [Audio.from_row(row, cfg.channel_selector)], row | {"instruction": probe["instruction"]}, model
        )

    ask(cfg, model, [(row, probe) for row in rows for probe in probes], question, prediction, log)
    report = probe_report(log.predictions)
    table = format_probe_table(report)
    write_report(cfg, report, table)
    logging.info(f"predictions.jsonl, metrics.json and results.md are in {output}")


if __name__ == "__main__":
    run_command(main)

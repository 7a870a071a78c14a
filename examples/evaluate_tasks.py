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

"""Accuracy on classification tasks that are asked as questions (Dynamic-SUPERB, 2309.09510), by category.

    python examples/evaluate_tasks.py model=x.nemo manifest=tasks.jsonl output_dir=runs/tasks
    python examples/evaluate_tasks.py model=cascade:whisper:whisper-base+smollm2-135m-instruct manifest=tasks.jsonl \\
        output_dir=runs/cascade

A line of the manifest has ``audio_filepath`` (and ``offset``, ``duration``), ``instruction`` and ``label``; ``task`` and
``category`` (content, semantic, paralinguistic, degradation, speaker, …) group the figures; ``labels`` is what there was
to choose from, without it every label of the task. ``cascade:ASR+LLM`` lets an LLM read the transcription of a model or of ``whisper:NAME``.
``nemo_speechllm/metrics/classification.py`` says how an answer is matched with the labels. ``predictions.jsonl`` grows
batch by batch: the same command takes up a run that was killed. ``metrics.json`` and ``results.md`` are written at the
end.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo.core.config import hydra_runner
from nemo.utils import logging
from omegaconf import MISSING, OmegaConf
from tqdm import tqdm

from nemo_speechllm.data.conversation import Audio, Conversation
from nemo_speechllm.data.dataset import in_batches
from nemo_speechllm.data.manifest import read_manifest
from nemo_speechllm.metrics.classification import choose_label, classification_report, format_classification_table
from nemo_speechllm.metrics.predictions import PredictionLog
from nemo_speechllm.metrics.report import file_digest, write_json, write_text
from nemo_speechllm.models import load_system
from nemo_speechllm.models.answers import generation_options
from nemo_speechllm.models.baseline import Baseline
from nemo_speechllm.models.speech_lm import SpeechLM
from nemo_speechllm.modules.fingerprint import state_digest


@dataclass
class EvaluateTasksArguments:
    model: str = MISSING
    manifest: str = MISSING
    output_dir: str = MISSING
    batch_size: int = 8
    max_new_tokens: int | None = None  # None: the recipe's
    beam_size: int | None = None
    channel_selector: Any = None  # of files with several channels: a number or average


def read_tasks(manifest: str) -> list[dict]:
    """The rows of a manifest, each with ``task``, ``category`` and ``labels``."""
    rows = read_manifest(manifest, locate_audio=True)
    of_task: dict[str, dict[str, None]] = {}
    for number, row in enumerate(rows, 1):
        missing = [
            key for key in ("instruction", "label") if not isinstance(row.get(key), str) or not row[key].strip()
        ]
        if missing:
            raise ValueError(f"{manifest}:{number}: {missing} must be texts; give them or remove the line")
        row["task"], row["category"] = (str(row.get(key) or key) for key in ("task", "category"))
        of_task.setdefault(row["task"], {})[row["label"]] = None
    for number, row in enumerate(rows, 1):
        row["labels"] = list(row.get("labels") or of_task[row["task"]])
        if row["label"] not in row["labels"] or len(row["labels"]) < 2:
            raise ValueError(
                f"{manifest}:{number}: labels: {row['labels']} must be two at least, `label` {row['label']!r} among "
                "them"
            )
        try:
            choose_label("", row["labels"])
        except ValueError as error:
            raise ValueError(f"{manifest}:{number}: {error}") from error
    return rows


def run_record(cfg: EvaluateTasksArguments, model: SpeechLM | Baseline) -> dict[str, Any]:
    """What the predictions depend on."""
    return {
        "model": state_digest(model),
        "manifest": file_digest(cfg.manifest),
        "channel_selector": cfg.channel_selector,
        "prompt": OmegaConf.to_container(model.cfg.prompt),
        "generation": OmegaConf.to_container(model.cfg.generation)
        | generation_options(model.cfg.generation, cfg.max_new_tokens, cfg.beam_size),
    }


def question(row: dict, cfg: EvaluateTasksArguments, model: SpeechLM | Baseline) -> Conversation:
    """What the model is asked about a row."""
    audio = Audio.from_file(row["audio_filepath"], row.get("offset"), row.get("duration"), cfg.channel_selector)
    metadata = {key: row[key] for key in ("instruction", "lang", "transcription") if row.get(key) is not None}
    return Conversation(audio.name, [model.builder.question(audio, metadata, audio.name)], metadata)


@hydra_runner(config_name="EvaluateTasksArguments", schema=EvaluateTasksArguments)
def main(cfg: EvaluateTasksArguments) -> None:
    rows, model, output = read_tasks(cfg.manifest), load_system(cfg.model), Path(cfg.output_dir)
    log = PredictionLog(output, run_record(cfg, model))
    with tqdm(total=len(rows), initial=len(log.predictions), unit="answer", desc=Path(cfg.manifest).name) as progress:
        for batch in in_batches(rows[len(log.predictions) :], cfg.batch_size):
            conversations = [question(row, cfg, model) for row in batch]
            answers = model.generate(conversations, cfg.batch_size, cfg.max_new_tokens, cfg.beam_size)
            shown = ("audio_filepath", "task", "category", "instruction", "labels", "label")
            log.append(
                [
                    {key: row[key] for key in shown}
                    | {"pred_text": answer.text, "choice": choose_label(answer.text, row["labels"])}
                    for row, answer in zip(batch, answers)
                ]
            )
            progress.update(len(batch))

    report = classification_report(log.predictions)
    table = format_classification_table(report)
    write_json(output / "metrics.json", {"model": cfg.model, "manifest": cfg.manifest, **report})
    write_text(output / "results.md", f"```\n{table}\n```\n")
    print(table)
    logging.info(f"predictions.jsonl, metrics.json and results.md are in {output}")


if __name__ == "__main__":
    main()

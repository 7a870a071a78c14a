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
    python examples/evaluate_tasks.py model=x.nemo manifest=dynamic_superb output_dir=runs/dynamic_superb
    python examples/evaluate_tasks.py model=x.nemo manifest=tasks.jsonl output_dir=runs/likelihood scoring=likelihood

A line of the manifest has ``audio_filepath`` (and ``offset``, ``duration``), ``instruction`` and ``label``; ``task``
and ``category`` (content, semantic, paralinguistic, degradation, speaker, …) group the figures; ``labels`` is what
there was to choose from, without it every label of the task. A folder in the place of the manifest holds a task, or a
folder for each task, as Dynamic-SUPERB publishes them: ``.parquet`` files, or ``metadata.jsonl`` or ``metadata.csv``
beside audio files (``nemo_speechllm/corpora/tasks.py``); the folders' names are the tasks.

``cascade:ASR+LLM`` lets an LLM read the transcription of a model or of ``whisper:NAME``.

``scoring=text`` takes the label that the written answer names. ``scoring=likelihood`` has the model write nothing and
takes the label that it finds the likeliest answer, which tells what a model hears from how it talks; then each line of
the predictions has the labels' log-likelihoods, and the table also AUC and calibration. ``whisper:NAME`` and models
that were trained by CTC alone are text only. ``nemo_speechllm/metrics/classification.py`` says how an answer is
matched with the labels, and how labels are scored. ``predictions.jsonl`` grows batch by batch: the same command takes
up a run that was killed. ``metrics.json`` and ``results.md`` are written at the end.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nemo.core.config import hydra_runner
from nemo.utils import logging

from nemo_speechllm.command_line import check_settings, run_command
from nemo_speechllm.corpora.tasks import TaskItem, read_task_items, task_tables
from nemo_speechllm.data.conversation import Conversation
from nemo_speechllm.decoding.rescoring import AnswerScore
from nemo_speechllm.evaluation.asking import (
    AskingArguments,
    ask,
    asking_record,
    predict_missing,
    question_about,
    write_report,
)
from nemo_speechllm.evaluation.predictions import PredictionLog
from nemo_speechllm.evaluation.tables import format_classification_table
from nemo_speechllm.files import file_digest
from nemo_speechllm.manifests.manifest import require_texts
from nemo_speechllm.metrics.classification import choose_label, choose_likeliest, classification_report
from nemo_speechllm.models import load_system
from nemo_speechllm.models.answer_scores import ScoresAnswers, require_answer_scores
from nemo_speechllm.models.answers import Answer
from nemo_speechllm.models.loading import only_answer

SCORINGS = ("text", "likelihood")
SHOWN = ("audio_filepath", "task", "category", "instruction", "labels", "label")


@dataclass
class EvaluateTasksArguments(AskingArguments):
    """``manifest`` may be a folder; ``scoring`` is ``text`` or ``likelihood``."""

    scoring: str = "text"


def check_scoring(cfg: EvaluateTasksArguments) -> None:
    """Raise ValueError where ``scoring`` is unknown, or something is set that it does not read."""
    if cfg.scoring not in SCORINGS:
        raise ValueError(f"scoring is {cfg.scoring!r}; it must be one of {', '.join(SCORINGS)}")
    unread = [name for name in ("max_new_tokens", "beam_size") if cfg[name] is not None]
    if cfg.scoring == "likelihood" and unread:
        raise ValueError(f"scoring=likelihood writes no answers, so it has no {' or '.join(unread)}; leave it unset")


def read_tasks(source: str) -> list[TaskItem]:
    """Read the rows of a manifest or of folders, each with ``task``, ``category`` and ``labels``."""
    items = read_task_items(source)
    of_task: dict[str, dict[str, None]] = {}
    for item in items:
        row = item.row
        require_texts(row, ("instruction", "label"), item.place)
        row["task"], row["category"] = (str(row.get(key) or key) for key in ("task", "category"))
        of_task.setdefault(row["task"], {})[row["label"]] = None
    for item in items:
        row = item.row
        row["labels"] = list(row.get("labels") or of_task[row["task"]])
        are_texts = all(isinstance(label, str) for label in row["labels"])
        if row["label"] not in row["labels"] or len(row["labels"]) < 2 or not are_texts:
            raise ValueError(
                f"{item.place}: labels: {row['labels']} must be two texts at least, "
                f"`label` {row['label']!r} among them"
            )
        try:
            choose_label("", row["labels"])
        except ValueError as error:
            raise ValueError(f"{item.place}: {error}") from error
    return items


def source_digest(source: str) -> str | dict[str, str]:
    """Return the digest of a manifest, or of each table in a folder."""
    if not Path(source).is_dir():
        return file_digest(source)
    return {str(table.relative_to(source)): file_digest(table) for table in task_tables(source)}


def written_prediction(item: TaskItem, answer: Answer) -> dict[str, Any]:
    """Return a line of ``predictions.jsonl``: what was answered."""
    return {key: item.row[key] for key in SHOWN} | {
        "pred_text": answer.text,
        "choice": choose_label(answer.text, item.row["labels"]),
    }


def scored_predictions(
    scorer: ScoresAnswers, question: Callable[[TaskItem], Conversation], items: list[TaskItem]
) -> list[dict[str, Any]]:
    """Return lines of ``predictions.jsonl``: how likely each label was."""
    scores = scorer.score_answers(list(map(question, items)), [item.row["labels"] for item in items])
    return [scored_prediction(*pair) for pair in zip(items, scores, strict=True)]


def scored_prediction(item: TaskItem, scores: list[AnswerScore]) -> dict[str, Any]:
    """Return a line of ``predictions.jsonl``: how likely each label was."""
    of_labels = dict(zip(item.row["labels"], scores, strict=True))
    log_probs = {label: score.log_prob for label, score in of_labels.items()}
    tokens = {label: score.tokens for label, score in of_labels.items()}
    return {key: item.row[key] for key in SHOWN} | {
        "label_log_probs": log_probs,
        "label_tokens": tokens,
        "choice": choose_likeliest(log_probs, tokens),
    }


@hydra_runner(config_name="EvaluateTasksArguments", schema=EvaluateTasksArguments)
def main(cfg: EvaluateTasksArguments) -> None:
    """Write predictions and accuracies, and print the table."""
    check_settings(cfg)
    check_scoring(cfg)
    items, model, output = read_tasks(cfg.manifest), load_system(cfg.model), Path(cfg.output_dir)
    record = asking_record(cfg, model, source_digest(cfg.manifest))
    only_answer(model)

    def question(item: TaskItem) -> Conversation:
        return question_about(item.open_audios(cfg.channel_selector), item.row, model)

    if cfg.scoring == "likelihood":
        predict = partial(scored_predictions, require_answer_scores(model), question)
        log = PredictionLog(output, record | {"scoring": cfg.scoring})  # that of text has no such entry
        predict_missing(cfg.batch_size, items, predict, log)
    else:
        log = PredictionLog(output, record)
        ask(cfg, model, items, question, written_prediction, log)
    report = classification_report(log.predictions)
    table = format_classification_table(report)
    write_report(cfg, report, table)
    logging.info(f"predictions.jsonl, metrics.json and results.md are in {output}")


if __name__ == "__main__":
    run_command(main)

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

"""Free answers to questions about recordings, rated by an LLM beside a reference (AIR-Bench-Chat, 2402.07729).

    python examples/evaluate_judge.py model=x.nemo manifest=questions.jsonl output_dir=runs/judge \\
        judge.engine=endpoint judge.endpoint.url=http://localhost:8000/v1 judge.endpoint.model=llama
    python examples/evaluate_judge.py model=cascade:whisper:whisper-base+smollm2-135m-instruct \\
        manifest=questions.jsonl output_dir=runs/judge_cascade judge.llm=meta-llama/Meta-Llama-3-8B-Instruct

A line of the manifest has ``audio_filepath`` (and ``offset``, ``duration``), ``instruction`` (the question),
``answer`` (the reference) and, if known, ``description``, what there is to be heard: the judge does not hear it;
``category`` groups the figures. ``judge.engine`` is transformers, vllm or endpoint (OpenAI-compatible, the key in
``$OPENAI_API_KEY``); ``judge.prompt`` is a file with another wording. ``nemo_speechllm/metrics/judge.py`` says how the
judge is asked and read.

``predictions.jsonl`` (the model's answers) and ``judgements.jsonl`` grow as work is done: the same command takes up a
run that was killed. ``metrics.json`` and ``results.md`` are written at the end.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemo.core.config import hydra_runner
from nemo.utils import logging
from omegaconf import OmegaConf
from tqdm import tqdm

from nemo_speechllm.command_line import check_settings, run_command
from nemo_speechllm.data.conversation import Audio, Conversation
from nemo_speechllm.engines.engine import Request
from nemo_speechllm.engines.loading import check_engine, load_engine
from nemo_speechllm.evaluation.asking import AskingArguments, ask, asking_record, question_about, write_report
from nemo_speechllm.evaluation.predictions import PredictionLog
from nemo_speechllm.evaluation.tables import format_judge_table
from nemo_speechllm.files import Journal, claim_record, file_digest
from nemo_speechllm.manifests.manifest import read_manifest, require_texts
from nemo_speechllm.metrics.judge import ORDERS, PROMPT, judge_message, judge_report, read_prompt, read_scores
from nemo_speechllm.models import load_system
from nemo_speechllm.models.answers import Answer
from nemo_speechllm.models.loading import only_answer


@dataclass
class JudgeArguments:
    """Which LLM judges, and how it is asked."""

    engine: str = "transformers"  # transformers, vllm or endpoint
    llm: str = "smollm2-135m-instruct"  # of transformers and vllm; take one of several billion parameters
    prompt: str = str(PROMPT)
    max_new_tokens: int = 256
    transformers: dict[str, Any] = field(default_factory=lambda: {"batch_size": 8, "dtype": "float32"})
    endpoint: dict[str, Any] = field(
        default_factory=lambda: {
            "url": "http://localhost:8000/v1",
            "model": "${judge.llm}",
            "concurrency": 16,
            "attempts": 6,
            "timeout": 120.0,
        }
    )


@dataclass
class EvaluateJudgeArguments(AskingArguments):
    """Which model answers which questions, and who judges the answers."""

    judge: JudgeArguments = field(default_factory=JudgeArguments)


def read_rows(manifest: str) -> list[dict]:
    """Read the rows of a manifest, each with a ``category``."""
    rows = read_manifest(manifest, locate_audio=True)
    for number, row in enumerate(rows, 1):
        require_texts(row, ("instruction", "answer"), f"{manifest}:{number}")
        row["category"] = str(row.get("category") or "category")
    return rows


def prediction(row: dict, given: Answer) -> dict[str, Any]:
    """Return a line of ``predictions.jsonl``."""
    shown = ("audio_filepath", "category", "instruction", "answer", "description")
    return {key: row[key] for key in shown if key in row} | {"pred_text": given.text}


def answer(cfg: EvaluateJudgeArguments, rows: list[dict], output: Path) -> list[dict[str, Any]]:
    """Return the model's answers; those on disk are not made again."""
    model = load_system(cfg.model)
    log = PredictionLog(output, asking_record(cfg, model, file_digest(cfg.manifest)))
    only_answer(model)

    def question(row: dict) -> Conversation:
        return question_about([Audio.from_row(row, cfg.channel_selector)], row, model)

    ask(cfg, model, rows, question, prediction, log)
    return log.predictions


def judge(cfg: JudgeArguments, predictions: list[dict[str, Any]], output: Path) -> list[dict[str, Any]]:
    """Return the judgements of all predictions, in both orders; those on disk are not made again."""
    record = {"llm": cfg.endpoint["model"] if cfg.engine == "endpoint" else cfg.llm, "engine": cfg.engine}
    record |= {"prompt": file_digest(cfg.prompt), "max_new_tokens": cfg.max_new_tokens}
    claim_record(output / "judge.json", record, "judgements of another judge")
    journal, prompt = Journal(output / "judgements.jsonl", "a judgement"), read_prompt(cfg.prompt)
    done = {(judgement["index"], judgement["order"]) for judgement in journal.rows}
    asked = {
        f"{index} {order}": (index, order)
        for index in range(len(predictions))
        for order in ORDERS
        if (index, order) not in done
    }
    requests = [Request(id, judge_message(prompt, predictions[index], order)) for id, (index, order) in asked.items()]
    if requests:
        with tqdm(total=len(predictions) * len(ORDERS), initial=len(done), unit="judgement") as progress:
            for id, completion in load_engine(cfg)(requests):
                index, order = asked[id]
                scores = read_scores(completion.text, order)
                place = {"index": index, "category": predictions[index]["category"], "order": order}
                journal.append([place | {"scores": scores, "text": completion.text}])
                progress.update()
    return journal.rows


@hydra_runner(config_name="EvaluateJudgeArguments", schema=EvaluateJudgeArguments)
def main(cfg: EvaluateJudgeArguments) -> None:
    """Write answers, judgements and figures, and print the table."""
    check_settings(cfg)
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    check_engine(cfg.judge)
    read_prompt(cfg.judge.prompt)  # not after hours of answering
    rows, output = read_rows(cfg.manifest), Path(cfg.output_dir)
    report = judge_report(judge(cfg.judge, answer(cfg, rows, output), output))
    table = format_judge_table(report)
    write_report(cfg, report, table)
    if report.all.parse_failures:
        logging.warning(
            f"{100 * report.all.parse_failures:.1f} % of the judgements have no two scores on a line of "
            f"their own, and their questions are left out; read some in {output / 'judgements.jsonl'}, and take "
            "a larger judge"
        )
    logging.info(f"predictions.jsonl, judgements.jsonl, metrics.json and results.md are in {output}")


if __name__ == "__main__":
    run_command(main)

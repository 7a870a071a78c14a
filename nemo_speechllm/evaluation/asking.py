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

"""What scripts that ask questions about recordings have in common: arguments, record, questions in batches, report."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from nemo.utils import logging
from omegaconf import MISSING
from tqdm import tqdm

from nemo_speechllm.command_line import emit
from nemo_speechllm.data.conversation import Audio, Conversation
from nemo_speechllm.data.dataset import in_batches
from nemo_speechllm.evaluation.predictions import PredictionLog
from nemo_speechllm.files import as_object, write_json, write_text
from nemo_speechllm.models.answers import Answer, answering_record
from nemo_speechllm.models.baseline import Baseline
from nemo_speechllm.models.speech_lm import SpeechLM

T = TypeVar("T")


@dataclass
class AskingArguments:
    """Of a script that asks a ``model`` about the recordings of a ``manifest``."""

    model: str = MISSING
    manifest: str = MISSING
    output_dir: str = MISSING
    batch_size: int = 8
    max_new_tokens: int | None = None  # None: the recipe's
    beam_size: int | None = None
    channel_selector: Any = None  # of files with several channels: a number or average


def asking_record(cfg: AskingArguments, model: SpeechLM | Baseline, digest: Any) -> dict[str, Any]:
    """Return what the answers depend on.

    Args:
        digest: of the manifest.
    """
    asked = {"manifest": digest, "channel_selector": cfg.channel_selector}
    return answering_record(model, cfg.max_new_tokens, cfg.beam_size) | asked


def question_about(audios: list[Audio], row: dict[str, Any], model: SpeechLM | Baseline) -> Conversation:
    """Return a question: the recordings, then the instruction of a manifest's row."""
    name = row["audio_filepath"]
    metadata = {key: row[key] for key in ("instruction", "lang", "transcription") if row.get(key) is not None}
    return model.builder.conversation(audios, metadata, name)


def ask(
    cfg: AskingArguments,
    model: SpeechLM | Baseline,
    items: Sequence[T],
    question: Callable[[T], Conversation],
    prediction: Callable[[T, Answer], dict[str, Any]],
    log: PredictionLog,
) -> None:
    """Ask what is not answered in the log yet, and add a ``prediction`` of each item, and whether it was cut.

    Answers that were cut are counted; see `tell_of_cut_answers`.
    """

    def predict(batch: list[T]) -> list[dict[str, Any]]:
        conversations = [question(item) for item in batch]
        answers = model.generate(conversations, cfg.batch_size, cfg.max_new_tokens, cfg.beam_size)
        pairs = zip(batch, answers, strict=True)
        return [prediction(item, answer) | {"truncated": answer.truncated} for item, answer in pairs]

    predict_missing(cfg.batch_size, items, predict, log)
    tell_of_cut_answers(log, cfg.max_new_tokens or model.cfg.generation.max_new_tokens)


def tell_of_cut_answers(log: PredictionLog, max_new_tokens: int) -> None:
    """Count answers that were cut in a warning: what is scored of them may not be what they were about to say."""
    if cut := sum(row.get("truncated", False) for row in log.predictions):  # logs of before do not say
        logging.warning(
            f"{cut} of {len(log.predictions)} answers were cut at max_new_tokens={max_new_tokens}, and are scored as "
            "far as they go; a higher limit lets them end"
        )


def predict_missing(
    batch_size: int,
    items: Sequence[T],
    predict: Callable[[list[T]], list[dict[str, Any]]],
    log: PredictionLog,
) -> None:
    """Add to the log, batch by batch, what ``predict`` makes of the items that are not in it yet."""
    with tqdm(total=len(items), initial=len(log.predictions), unit="answer") as progress:
        for batch in in_batches(items[len(log.predictions) :], batch_size):
            log.append(predict(batch))
            progress.update(len(batch))


def write_report(cfg: AskingArguments, report: Any, table: str) -> None:
    """Write ``metrics.json``, a dataclass of figures, and ``results.md``, and print the table."""
    output = Path(cfg.output_dir)
    write_json(output / "metrics.json", {"model": cfg.model, "manifest": cfg.manifest, **as_object(report)})
    write_text(output / "results.md", f"```\n{table}\n```\n")
    emit(table)

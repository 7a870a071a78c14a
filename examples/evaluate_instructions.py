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

"""Does a model do what it is told? Accuracy of instructions on a manifest of plain transcripts.

    python examples/evaluate_instructions.py model=instruct_las.nemo manifest=test.jsonl output_dir=runs/instructions
    python examples/evaluate_instructions.py model=salm_whisper_smollm2 manifest=test.jsonl \\
        output_dir=runs/salm per_cell=50

Each skill is asked for in ``per_cell`` wordings of each split: seen in training, withheld from it (``held_out``), and
with verbs that it has not met (``unseen``). Traps and pairs of speakers come on top.
Every speech is also transcribed plainly, for the word error rate and for the accuracy given what the model itself
hears. The test set depends on the manifest and the seed alone. ``predictions.jsonl`` grows batch by batch: the same
command takes up a run that was killed. ``metrics.json``, ``results.csv``, ``results.md``, ``results.png`` and
``answers.jsonl`` (each answer with its target and scores) are written at the end.
"""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from nemo.core.config import hydra_runner
from nemo.utils import logging
from omegaconf import MISSING, OmegaConf
from tqdm import tqdm

from nemo_speechllm.command_line import check_settings, emit, run_command
from nemo_speechllm.data.conversation import Audio, Conversation
from nemo_speechllm.data.dataset import in_batches
from nemo_speechllm.evaluation.asking import tell_of_cut_answers
from nemo_speechllm.evaluation.instruction_cases import Case, CaseBuilder, CaseSizes, Speech
from nemo_speechllm.evaluation.plot import plot_instructions
from nemo_speechllm.evaluation.predictions import PredictionLog
from nemo_speechllm.evaluation.tables import format_conventions, format_instruction_table
from nemo_speechllm.files import as_object, file_digest, write_csv, write_json, write_text
from nemo_speechllm.manifests.manifest import read_manifest, require_words, write_manifest
from nemo_speechllm.metrics.error_rate import normalizer_for
from nemo_speechllm.metrics.instructions import instruction_report, instruction_rows, score
from nemo_speechllm.metrics.report import error_report
from nemo_speechllm.metrics.translation import check_metrics
from nemo_speechllm.models import load_model
from nemo_speechllm.models.answers import answering_record
from nemo_speechllm.models.loading import only_answer
from nemo_speechllm.models.speech_lm import SpeechLM
from nemo_speechllm.prompts.skills import RULES, SKILLS
from nemo_speechllm.training.llm_targets import Targets, build_targets

Item = tuple[Speech, Case | None]  # without a case: to be transcribed


@dataclass
class EvaluateInstructionsArguments:
    """Which model and cases are evaluated, and where the results go."""

    model: str = MISSING
    manifest: str = MISSING
    output_dir: str = MISSING
    skills: list[str] = field(default_factory=lambda: list(SKILLS))
    per_cell: int = 20  # instructions for each skill and split
    per_trap: int = 2  # recordings for each adversarial instruction
    pairs: int = 28  # of recordings to concatenate, and as many to overlap
    seed: int = 0
    wer_threshold: float = 0.1  # up to which an answer counts as "within WER"
    normalizer: str = "basic"  # of any language; english, none, or auto: english for English alone
    targets: dict[str, Any] = field(default_factory=lambda: {"kind": "extractive"})  # of summaries and keywords
    batch_size: int = 8
    max_new_tokens: int | None = None  # None: the recipe's
    beam_size: int | None = None


def read_rows(manifest: str) -> list[dict]:
    """Read the rows of a manifest, with a transcript each."""
    rows = read_manifest(manifest, locate_audio=True)
    require_words(manifest, rows)
    return rows


def all_items(cfg: EvaluateInstructionsArguments, rows: list[dict]) -> list[Item]:
    """Return every speech to be transcribed, then every case."""
    unknown = set(cfg.skills) - set(SKILLS)
    if unknown:
        raise ValueError(f"skills={sorted(unknown)}: no such skill; there are {list(SKILLS)}")
    if min(cfg.per_cell, cfg.per_trap, cfg.pairs) < 0 or cfg.per_cell + cfg.per_trap == 0:
        raise ValueError("per_cell, per_trap and pairs must not be negative, and per_cell or per_trap must be above 0")
    cases = CaseBuilder(rows, cfg.seed, list(cfg.skills)).build(CaseSizes(cfg.per_cell, cfg.per_trap, cfg.pairs))
    return [
        *((speech, None) for speech in dict.fromkeys(case.speech for case in cases)),
        *((c.speech, c) for c in cases),
    ]


def run_record(cfg: EvaluateInstructionsArguments, model: SpeechLM, items: list[Item]) -> dict[str, Any]:
    """Return what the predictions depend on."""
    return answering_record(model, cfg.max_new_tokens, cfg.beam_size) | {
        "manifest": file_digest(cfg.manifest),
        "items": hashlib.sha256(repr(items).encode()).hexdigest(),
    }


def question(item: Item, rows: list[dict], model: SpeechLM) -> Conversation:
    """Return what the model is asked."""
    speech, case = item
    chosen = [rows[index] for index in speech.rows]
    audios = [Audio.from_row(row) for row in chosen]
    if speech.mix is not None:
        audios = [Audio(torch.from_numpy(speech.samples([audio.load().numpy() for audio in audios])))]
    metadata = {"lang": chosen[0]["lang"]} if chosen[0].get("lang") else {}
    if case is not None:
        metadata["instruction"] = case.instruction
    name = f"{speech.mix or 'row'} {speech.rows}"
    return model.builder.conversation(audios, metadata, name)


def scored_answers(
    cfg: EvaluateInstructionsArguments, items: list[Item], rows: list[dict], outputs: list[str], target_of: Targets
) -> Iterator[dict[str, Any]]:
    """Yield each case with its answer, targets and scores."""
    heard = {speech: output for (speech, case), output in zip(items, outputs, strict=True) if case is None}
    for (speech, case), output in zip(items, outputs, strict=True):
        if case is None:
            continue
        transcripts = speech.transcripts(rows)
        item = {
            "transcript": transcripts[-1],
            "own_transcript": heard[speech],
            "targets": case.targets(transcripts, target_of),
            "own_targets": case.targets([heard[speech]], target_of),
            "candidates": case.candidates(transcripts[-1], target_of),
        }
        what = {key: getattr(case, key) for key in ("group", "name", "split", "complexity", "instruction")}
        normalizer = normalizer_for(rows[speech.rows[-1]].get("lang"), transcripts[-1], cfg.normalizer)
        scores = score(item, output, cfg.wer_threshold, normalizer)
        item.pop("candidates")
        rule = all(skill in RULES for skill, _ in case.expected)
        yield {"rows": speech.rows, **what, "rule": rule, **item, "pred_text": output, **as_object(scores)}


@hydra_runner(config_name="EvaluateInstructionsArguments", schema=EvaluateInstructionsArguments)
def main(cfg: EvaluateInstructionsArguments) -> None:
    """Write predictions and figures, and print the table."""
    check_settings(cfg)
    rows = read_rows(cfg.manifest)
    check_metrics(cfg.normalizer)
    items, target_of = all_items(cfg, rows), build_targets(cfg.targets)
    model, output = load_model(cfg.model), Path(cfg.output_dir)
    if model.cur_decoder == "ctc":
        raise ValueError(
            f"{cfg.model} answers by CTC (model.generation.decoder), which reads no instruction; give a model whose "
            "text decoder is trained, and not its encoder's stage"
        )
    log = PredictionLog(output, run_record(cfg, model, items))
    only_answer(model)

    with tqdm(total=len(items), initial=len(log.predictions), unit="answer", desc=Path(cfg.manifest).name) as progress:
        for batch in in_batches(items[len(log.predictions) :], cfg.batch_size):
            started = time.perf_counter()
            conversations = [question(item, rows, model) for item in batch]
            answers = model.generate(conversations, cfg.batch_size, cfg.max_new_tokens, cfg.beam_size)
            seconds = (time.perf_counter() - started) / len(batch)
            log.append(
                [
                    {
                        "pred_text": answer.text,
                        "truncated": answer.truncated,
                        "seconds": seconds,
                        "duration": asked.audios[0].duration,
                    }
                    for answer, asked in zip(answers, conversations, strict=True)
                ]
            )
            progress.update(len(batch))
    tell_of_cut_answers(log, cfg.max_new_tokens or model.cfg.generation.max_new_tokens)

    single = [
        prediction | {"text": rows[speech.rows[0]]["text"], "lang": rows[speech.rows[0]].get("lang")}
        for (speech, case), prediction in zip(items, log.predictions, strict=True)
        if case is None and speech.mix is None
    ]
    outputs = [prediction["pred_text"] for prediction in log.predictions]
    scored = list(scored_answers(cfg, items, rows, outputs, target_of))
    report = instruction_report(scored)
    settings = {key: cfg[key] for key in ("model", "manifest", "seed", "wer_threshold", "normalizer")}
    settings["targets"] = OmegaConf.to_container(cfg.targets)
    write_manifest(output / "answers.jsonl", scored)
    write_csv(output / "results.csv", instruction_rows(report))
    table = format_instruction_table(report)
    write_text(output / "results.md", table + "\n")
    plot_instructions(output / "results.png", report)
    transcription = error_report(single, cfg.normalizer)
    write_json(output / "metrics.json", settings | {"transcription": transcription} | as_object(report))
    emit(table)
    wer = "no words" if transcription.wer is None else f"{100 * transcription.wer:.2f} % WER"
    emit(f"transcription: {wer} on {transcription.utterances} recordings", format_conventions(transcription))
    logging.info(f"metrics.json, answers.jsonl and results.csv, .md and .png are in {output}")


if __name__ == "__main__":
    run_command(main)

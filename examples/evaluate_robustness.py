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

"""Error rates of a model in noise and on minutes of speech at a stretch.

    python examples/evaluate_robustness.py model=salm_whisper_smollm2 manifest=test.jsonl output_dir=runs/robustness
    python examples/evaluate_robustness.py model=x.nemo manifest=test.jsonl output_dir=runs/robustness \\
        noises=[white,recorded] noise_manifest=noise.jsonl 'snrs=[20,10]' lengths=[30] \\
        'evaluate=["batch_size=4","normalizer=basic"]'

Noise is mixed in at a ratio that is exact over each utterance's own power, the same noise at every ratio. Utterances
of one language and task are joined, in the manifest's order and with pauses, to about the given seconds; none is left
out, so every condition has the same words. Each condition has a folder with its ``manifest.jsonl``, ``audio`` and the
``evaluation`` that examples/evaluate.py writes there; the same command takes up a run that was killed.
``results.csv``, ``results.md``, ``results.json`` and ``results.png`` hold all conditions.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from nemo.core.config import hydra_runner
from nemo.utils import logging
from omegaconf import MISSING
from tqdm import tqdm

from nemo_speechllm.command_line import check_settings, emit, run_command
from nemo_speechllm.corpora.conditions import (
    NOISES,
    group_by_length,
    join_recordings,
    join_rows,
    mix_at_snr,
    noise_from_recordings,
)
from nemo_speechllm.data.conversation import SAMPLE_RATE, Audio
from nemo_speechllm.data.dataset import task_of
from nemo_speechllm.evaluation.plot import plot_error_rates
from nemo_speechllm.evaluation.report import EvaluationReport
from nemo_speechllm.evaluation.run import evaluate_in_folder
from nemo_speechllm.evaluation.tables import decimal, format_interval, markdown_table, percent
from nemo_speechllm.files import FolderLock, claim_record, file_digest, write_csv, write_json, write_text
from nemo_speechllm.manifests.manifest import read_manifest, relocate, write_manifest
from nemo_speechllm.metrics.report import figure_rows
from nemo_speechllm.metrics.translation import TranslationFigures

RECORDED = "recorded"


@dataclass
class EvaluateRobustnessArguments:
    """Which model, noises and lengths are evaluated, and where the results go."""

    model: str = MISSING
    manifest: str = MISSING
    output_dir: str = MISSING
    noises: list[str] = field(default_factory=lambda: ["white", "pink"])  # and recorded: parts of noise_manifest's
    noise_manifest: str | None = None
    snrs: list[float] = field(default_factory=lambda: [20.0, 10.0, 5.0, 0.0])  # dB
    lengths: list[float] = field(default_factory=lambda: [30.0, 60.0, 120.0])  # seconds
    pause: float = 0.5  # seconds between joined utterances
    seed: int = 0  # of the noise; each utterance has its own
    evaluate: list[str] = field(default_factory=list)  # further arguments of evaluate.py


@dataclass
class Condition:
    """What is done to a manifest: nothing, ``noise`` at ``snr`` dB, or joining to ``seconds``."""

    noise: str | None = None
    snr: float | None = None
    seconds: float | None = None

    @property
    def name(self) -> str:
        """Name the condition as its folder is named: noise and ratio, or length."""
        if self.noise is not None:
            return f"{self.noise}_{self.snr:g}dB"
        return f"joined_{self.seconds:g}s" if self.seconds is not None else "as_is"


def conditions_of(cfg: EvaluateRobustnessArguments) -> list[Condition]:
    """Return all conditions, the unchanged manifest first.

    Raises:
        ValueError: a noise is unknown, or recorded noise is asked for without recordings or the other way round.
    """
    unknown = set(cfg.noises) - {*NOISES, RECORDED}
    if unknown:
        raise ValueError(f"noises={sorted(unknown)}: no such noise; there are {[*NOISES, RECORDED]}")
    if (RECORDED in cfg.noises) != (cfg.noise_manifest is not None):
        raise ValueError(f"noises=[…,{RECORDED}] and noise_manifest= go together: give both or none")
    noisy = [Condition(noise=noise, snr=snr) for noise in cfg.noises for snr in cfg.snrs]
    return [Condition(), *noisy, *(Condition(seconds=seconds) for seconds in cfg.lengths)]


def samples_of(row: dict) -> np.ndarray:
    """Return a row's samples at 16 kHz, (T,)."""
    return Audio.from_row(row).load().numpy()


def changed(condition: Condition, rows: list[dict], noise: list[np.ndarray], cfg) -> Iterator[tuple[dict, np.ndarray]]:
    """Yield the rows under a condition, each with its new samples; paths and durations are still missing."""
    if condition.noise is not None:
        for index, row in enumerate(rows):
            random, speech = np.random.default_rng([cfg.seed, index]), samples_of(row)
            if condition.noise == RECORDED:
                added = noise_from_recordings(noise, len(speech), random)
            else:
                added = NOISES[condition.noise](len(speech), random)
            try:
                yield join_rows([row]) | {"snr": condition.snr}, mix_at_snr(speech, added, condition.snr)
            except ValueError as error:
                raise ValueError(f"{cfg.manifest}:{index + 1}: {row['audio_filepath']}: {error}") from error
        return
    asked = [(task_of(row), row.get("lang"), row.get("target_lang"), "answer" in row) for row in rows]
    for alike in dict.fromkeys(asked):
        spoken = [row for row, what in zip(rows, asked, strict=True) if what == alike]
        for group in group_by_length([row["duration"] for row in spoken], condition.seconds, cfg.pause):
            members = [spoken[index] for index in group]
            yield join_rows(members), join_recordings([samples_of(row) for row in members], cfg.pause)


def make(condition: Condition, rows: list[dict], noise: list[np.ndarray], folder: Path, cfg) -> Path:
    """Write the audio and, at the end, the manifest of a condition; what is whole is not made again."""
    manifest = folder / "manifest.jsonl"
    if manifest.exists():
        return manifest
    if condition == Condition():
        write_manifest(manifest, (relocate(row, Path("rows"), manifest) for row in rows))
        return manifest
    (folder / "audio").mkdir(exist_ok=True)
    lines = []
    for index, (row, samples) in enumerate(
        tqdm(changed(condition, rows, noise, cfg), desc=condition.name, unit="utt")
    ):
        name = f"audio/{index:06d}.flac"
        soundfile.write(folder / name, samples, SAMPLE_RATE)
        lines.append({"audio_filepath": name, "duration": len(samples) / SAMPLE_RATE} | row)
    write_manifest(manifest, lines)
    return manifest


def write_results(reports: list[tuple[Condition, EvaluationReport]], output: Path) -> None:
    """Write a table of all conditions as CSV, Markdown and JSON, and a plot: a panel per noise and one for lengths."""
    tables = {condition.name: figure_rows(report) for condition, report in reports}
    write_csv(output / "results.csv", [{"condition": name} | row for name, rows in tables.items() for row in rows])
    write_json(output / "results.json", {condition.name: report for condition, report in reports})

    languages = [row["language"] for row in tables[reports[0][0].name]]
    rates = [[name, *map(_cell, rows)] for name, rows in tables.items()]
    written = [markdown_table(["WER, % (95 % interval)", *languages], rates)]
    if directions := list(reports[0][1].translation or {}):
        scores = [
            [condition.name, *(_score(report.translation[direction]) for direction in directions)]
            for condition, report in reports
        ]
        written.append(markdown_table(["BLEU (95 % interval)", *directions], scores))
    write_text(output / "results.md", "\n\n".join(written) + "\n")
    emit("\n\n".join(written))

    clean = [row | {"value": "as is"} for row in tables[reports[0][0].name]]
    panels: dict[str, list[dict[str, Any]]] = {}
    for condition, _ in reports[1:]:
        title = "joined to seconds" if condition.noise is None else f"{condition.noise} noise, SNR in dB"
        value = f"{condition.seconds if condition.noise is None else condition.snr:g}"
        panels.setdefault(title, list(clean)).extend(row | {"value": value} for row in tables[condition.name])
    if panels:
        plot_error_rates(output / "results.png", panels)


def _cell(row: dict[str, Any]) -> str:
    if row["wer"] is None:
        return percent(None)
    return f"{percent(row['wer'])} ({format_interval([row['wer_low'], row['wer_high']])})"


def _score(figures: TranslationFigures) -> str:
    return f"{decimal(figures.bleu, 1)} ({'–'.join(decimal(bound, 1) for bound in figures.bleu_ci)})"


@hydra_runner(config_name="EvaluateRobustnessArguments", schema=EvaluateRobustnessArguments)
def main(cfg: EvaluateRobustnessArguments) -> None:
    """Evaluate every condition and write their table."""
    check_settings(cfg)
    conditions, output = conditions_of(cfg), Path(cfg.output_dir)
    lock = FolderLock(output, "evaluation")
    rows = read_manifest(cfg.manifest, locate_audio=True)
    noise = (
        [samples_of(row) for row in read_manifest(cfg.noise_manifest, locate_audio=True)] if cfg.noise_manifest else []
    )
    record = {"manifest": file_digest(cfg.manifest), "pause": cfg.pause, "seed": cfg.seed}
    record |= {"noise_manifest": file_digest(cfg.noise_manifest) if cfg.noise_manifest else None}
    reports = []
    for number, condition in enumerate(conditions, 1):
        logging.info(f"[{number}/{len(conditions)}] {condition.name}")
        folder = output / condition.name
        folder.mkdir(parents=True, exist_ok=True)
        claim_record(folder / "condition.json", record, "audio made of something else")
        manifest = make(condition, rows, noise, folder, cfg)
        reports.append((condition, evaluate_in_folder(cfg.model, manifest, cfg.evaluate)))
    write_results(reports, output)
    lock.release()
    logging.info(f"results.csv, .md, .json and .png are in {output}")


if __name__ == "__main__":
    run_command(main)

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

"""Is a word as often right as its confidence says, and do wrong words have less of it? Also: makes it so.

    python examples/evaluate_confidence.py model=ctc_prompted_smollm2 manifest=test.jsonl output_dir=runs/confidence
    python examples/evaluate_confidence.py model=x.nemo manifest=test.jsonl calibration_manifest=dev.jsonl \\
        output_dir=runs/confidence save_to=x_calibrated.nemo

The table has AUC (of "a wrong word has less confidence than a right one"), ECE (the expected calibration error) and
the cross-entropy of the text decoder's own probability, and of the confidence that the model gives
(``transcribe(confidence=True)``); the gain is in AUC, its interval a paired bootstrap over recordings. With
``calibration_manifest``, recordings that are in no other manifest, what the evidence is worth is fitted on these (and
the decoder's probability alone, to compare with), and ``save_to`` saves a model that goes by it; the settings are
printed as well.

``predictions.jsonl`` and ``calibration/predictions.jsonl`` grow batch by batch: the same command takes up a run that
was killed. ``metrics.json``, ``results.md`` and ``reliability.png`` are written at the end.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from nemo.core.config import hydra_runner
from nemo.utils import logging
from omegaconf import MISSING, open_dict

from nemo_speechllm.command_line import check_output_file, check_settings, emit, run_command
from nemo_speechllm.data.conversation import Audio, Conversation
from nemo_speechllm.decoding.word_confidence import Calibration, WordEvidence
from nemo_speechllm.evaluation.asking import predict_missing
from nemo_speechllm.evaluation.confidence import (
    figures_table,
    fit_calibration,
    judged_words,
    of_decoder_alone,
    recordings_of_words,
)
from nemo_speechllm.evaluation.plot import plot_reliability
from nemo_speechllm.evaluation.predictions import PredictionLog
from nemo_speechllm.files import file_digest, write_json, write_text
from nemo_speechllm.manifests.manifest import read_manifest, require_texts
from nemo_speechllm.metrics.confidence import auc_gain, confidence_figures, reliability
from nemo_speechllm.models import load_model
from nemo_speechllm.models.answers import answering_record, generation_options
from nemo_speechllm.models.speech_lm import SpeechLM


@dataclass
class EvaluateConfidenceArguments:
    """Which model is judged on which manifest, and where the figures go."""

    model: str = MISSING
    manifest: str = MISSING
    output_dir: str = MISSING
    calibration_manifest: str | None = None
    save_to: str | None = None  # the model with what was fitted
    batch_size: int = 8
    decoder: str | None = None  # llm or ctc; None: the recipe's


def answered(model: SpeechLM, manifest: str, folder: Path, cfg: EvaluateConfidenceArguments) -> list[dict[str, Any]]:
    """Return a manifest's rows with the model's transcript and the evidence for its words; those on disk are kept."""
    rows = read_manifest(manifest, locate_audio=True)
    for number, row in enumerate(rows, 1):
        require_texts(row, ("text",), f"{manifest}, line {number}")
    options = generation_options(model.cfg.generation, decoder=cfg.decoder)
    log = PredictionLog(folder, answering_record(model, decoder=cfg.decoder) | {"manifest": file_digest(manifest)})

    def predict(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        asked = [question(row, model) for row in batch]
        answers = model.answering.answer(asked, cfg.batch_size, confidence=True, **options)
        return [
            {
                "audio_filepath": row["audio_filepath"],
                "text": row["text"],
                "pred_text": answer.text,
                "word_confidence": answer.word_confidence,
                "evidence": [asdict(of_word) for of_word in answer.word_evidence or ()],
            }
            for row, answer in zip(batch, answers, strict=True)
        ]

    predict_missing(cfg.batch_size, rows, predict, log)
    return log.predictions


def question(row: dict[str, Any], model: SpeechLM) -> Conversation:
    """Return what asks for the transcript of a row's recording."""
    metadata = {key: row[key] for key in ("lang", "keywords") if row.get(key) is not None}
    return model.builder.conversation(Audio.from_row(row), metadata, row["audio_filepath"])


def confidences(
    evidence: list[WordEvidence], own: Calibration, fitted: tuple[Calibration, Calibration] | None
) -> dict[str, list[float]]:
    """Return the confidences of words that are compared, by their names in the table."""
    compared = {"the text decoder's probability": of_decoder_alone(evidence), "the model's": list(map(own, evidence))}
    if fitted is not None:
        alone, whole = fitted
        compared["the decoder's, calibrated"] = [alone(only_decoder(of_word)) for of_word in evidence]
        compared["calibrated"] = list(map(whole, evidence))
    return compared


def only_decoder(evidence: WordEvidence) -> WordEvidence:
    """Return the evidence of the text decoder and nothing else."""
    return replace(evidence, ctc=0.0, hypotheses=0.0, letters=0.0, recogniser=0.0)


def calibrate(predictions: list[dict[str, Any]]) -> tuple[Calibration, Calibration]:
    """Return what the text decoder's evidence alone is worth, and what all of it is."""
    evidence, right = judged_words(predictions)
    return fit_calibration([*map(only_decoder, evidence)], right), fit_calibration(evidence, right)


def write_results(output: Path, compared: dict[str, list[float]], right: list[bool], recordings: list[int]) -> None:
    """Write and print the figures of the confidences that are compared, and draw their reliability."""
    figures = {name: confidence_figures(given, right) for name, given in compared.items()}
    (_, alone), *others = compared.items()
    found = {name: auc_gain(given, alone, right, recordings) for name, given in others}
    gains = {name: gain for name, gain in found.items() if gain is not None}
    of_gains = {name: {"auc_gain": gain, "auc_gain_interval": interval} for name, (gain, interval) in gains.items()}
    rows = {name: asdict(of_one) | of_gains.get(name, {}) for name, of_one in figures.items()}
    write_json(output / "metrics.json", rows)
    table = figures_table(figures, gains)
    write_text(output / "results.md", table + "\n")
    emit(table)
    curves = {
        name: [(part.confidence, part.right) for part in reliability(given, right)] for name, given in compared.items()
    }
    plot_reliability(output / "reliability.png", curves)


def save_calibrated(model: SpeechLM, calibration: Calibration, path: str) -> None:
    """Save a model whose confidence goes by a calibration."""
    with open_dict(model.cfg):
        model.cfg.generation.confidence = asdict(calibration)
    model.save_to(path)
    logging.info(f"{path} gives the calibrated confidence")


@hydra_runner(config_name="EvaluateConfidenceArguments", schema=EvaluateConfidenceArguments)
def main(cfg: EvaluateConfidenceArguments) -> None:
    """Judge the confidence of the words of a manifest's transcripts, and calibrate it where that is asked for."""
    check_settings(cfg)
    if cfg.save_to is not None:
        if cfg.calibration_manifest is None:
            raise ValueError("save_to= saves a calibrated model: give calibration_manifest=, or leave it out")
        check_output_file(cfg.save_to, [cfg.model, cfg.manifest])
    output, model = Path(cfg.output_dir), load_model(cfg.model)
    predictions = answered(model, cfg.manifest, output, cfg)
    evidence, right = judged_words(predictions)
    fitted = None
    if cfg.calibration_manifest is not None:
        fitted = calibrate(answered(model, cfg.calibration_manifest, output / "calibration", cfg))
    compared = confidences(evidence, Calibration(**model.cfg.generation.confidence), fitted)
    write_results(output, compared, right, recordings_of_words(predictions))
    if fitted is not None:
        settings = ",".join(f"{name}:{value:.3f}" for name, value in asdict(fitted[1]).items())
        emit(f"model.generation.confidence={{{settings}}}")
        if cfg.save_to is not None:
            save_calibrated(model, fitted[1], cfg.save_to)


if __name__ == "__main__":
    run_command(main)

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

"""The figures of an evaluation: error rates over all utterances, by language and their mean, truncation, speed."""

from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from nemo_speechllm.metrics.error_rate import (
    AUTO,
    ErrorCounts,
    count_errors_each,
    is_unspaced,
    macro_rate,
    normalizer_for,
)
from nemo_speechllm.metrics.significance import percentile_interval, resampled_rates

# what utterances are grouped by: a prediction's key → unit and bounds of the groups
BUCKETS = {"duration": ("s", (2, 5, 10, 20, 30)), "snr": ("dB", (0, 5, 10, 15, 20))}

Scored = tuple[dict[str, Any], ErrorCounts, ErrorCounts]  # a prediction with its word and its character errors


@dataclass(frozen=True, kw_only=True)
class Conventions:
    """How words were counted; None in evaluations of old.

    Attributes:
        normalizers: the languages by the normaliser that was applied.
        unspaced: languages whose words are characters, see `words_of`.
    """

    normalizer: str
    normalizers: dict[str, list[str]] | None = None
    unspaced: list[str] | None = None


@dataclass(frozen=True, kw_only=True)
class ErrorFigures:
    """Error rates of utterances, and what they were counted from.

    Attributes:
        utterances: how many.
        wer, cer: fractions; None where there is no reference word.
        wer_ci: 95 % bootstrap interval over utterances, [low, high].
        words, characters: edit operations and reference length.
        truncated: how many answers end early.
        audio_seconds, wall_seconds: of audio, and of computing.
        rtfx: seconds of audio per second of computing.
        lm_loss: of the references, nats per token, mean over utterances, with ``lm_loss_ci``; None where unknown.
    """

    utterances: int
    wer: float | None
    wer_ci: list[float] | None
    cer: float | None
    words: ErrorCounts
    characters: ErrorCounts
    truncated: int
    audio_seconds: float
    wall_seconds: float
    rtfx: float | None
    lm_loss: float | None = None
    lm_loss_ci: list[float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MacroFigures:
    """Means of the languages' figures, with intervals for utterances drawn language by language."""

    wer: float | None
    wer_ci: list[float] | None
    cer: float | None
    lm_loss: float | None = None
    lm_loss_ci: list[float] | None = None


@dataclass(frozen=True, kw_only=True)
class ErrorReport(ErrorFigures, Conventions):
    """Figures of all utterances, and by language.

    Attributes:
        language: where there is one.
        languages, macro: where there are several: the figures of each, and their means.
    """

    language: str | None = None
    languages: dict[str, ErrorFigures] | None = None
    macro: MacroFigures | None = None


def error_report(predictions: list[dict[str, Any]], normalize: str = AUTO) -> ErrorReport:
    """Return error rates, by language where there are several, and what they were counted from.

    Args:
        predictions: each with ``text`` (reference), ``pred_text``, ``truncated``, ``duration`` (seconds of audio),
            ``seconds`` (of computing) and, if known, ``lang`` and ``lm_loss`` (of the reference, nats per token; of
            all or none).
        normalize: the text `normalizer` applied to both sides; ``auto`` is that of each prediction's language.
    """
    hypotheses = [prediction["pred_text"] for prediction in predictions]
    references = [prediction["text"] for prediction in predictions]
    names = [normalizer_for(prediction.get("lang"), prediction["text"], normalize) for prediction in predictions]
    scored = list(
        zip(
            predictions,
            *(count_errors_each(hypotheses, references, unit, names) for unit in ("word", "char")),
            strict=True,
        )
    )
    by_language: dict[str, list[Scored]] = {}
    for item in scored:
        by_language.setdefault(str(item[0].get("lang")), []).append(item)
    several = sorted(by_language) if len(by_language) > 1 else []
    return ErrorReport(
        **vars(_conventions(predictions, normalize, names)),
        **vars(_figures(scored)),
        language=next(iter(by_language)) if len(by_language) == 1 else None,
        languages={language: _figures(by_language[language]) for language in several} or None,
        macro=_macro_figures([by_language[language] for language in several]) if several else None,
    )


def _conventions(predictions: list[dict[str, Any]], normalize: str, names: list[str]) -> Conventions:
    """Return how the words of each language were counted, each prediction's by the normaliser of ``names``."""
    languages = [str(prediction.get("lang")) for prediction in predictions]
    unspaced = {language for p, language in zip(predictions, languages, strict=True) if is_unspaced(p["text"])}
    pairs = set(zip(names, languages, strict=True))
    normalizers = {name: sorted(language for used, language in pairs if used == name) for name in sorted(set(names))}
    return Conventions(normalizer=normalize, normalizers=normalizers, unspaced=sorted(unspaced))


def _figures(scored: list[Scored]) -> ErrorFigures:
    words = sum((words for _, words, _ in scored), ErrorCounts())
    characters = sum((characters for _, _, characters in scored), ErrorCounts())
    audio_seconds = sum(prediction["duration"] for prediction, _, _ in scored)
    wall_seconds = sum(prediction["seconds"] for prediction, _, _ in scored)
    lm_loss, lm_loss_ci = _mean_loss([scored])
    return ErrorFigures(
        utterances=len(scored),
        wer=_rate(words),
        wer_ci=percentile_interval(_resampled_wer(scored)),
        cer=_rate(characters),
        words=words,
        characters=characters,
        truncated=sum(prediction["truncated"] for prediction, _, _ in scored),
        audio_seconds=round(audio_seconds, 3),
        wall_seconds=round(wall_seconds, 3),
        rtfx=round(audio_seconds / wall_seconds, 2) if scored else None,
        lm_loss=lm_loss,
        lm_loss_ci=lm_loss_ci,
    )


def _macro_figures(languages: list[list[Scored]]) -> MacroFigures:
    """Return means over languages; one without a reference word has no error rate and is left out."""
    words = [sum((words for _, words, _ in scored), ErrorCounts()) for scored in languages]
    characters = [sum((characters for _, _, characters in scored), ErrorCounts()) for scored in languages]
    spoken = [scored for scored, counts in zip(languages, words, strict=True) if counts.reference]
    resampled = [_resampled_wer(scored, index) for index, scored in enumerate(spoken)]
    lm_loss, lm_loss_ci = _mean_loss(languages)
    return MacroFigures(
        wer=macro_rate(words),
        wer_ci=percentile_interval(np.mean(resampled, axis=0)) if resampled else None,
        cer=macro_rate(characters),
        lm_loss=lm_loss,
        lm_loss_ci=lm_loss_ci,
    )


def _mean_loss(groups: list[list[Scored]]) -> tuple[float | None, list[float] | None]:
    """Return ``lm_loss``, the mean of the groups' means, and its interval; None where it is not known."""
    losses = [[item[0]["lm_loss"] for item in scored if "lm_loss" in item[0]] for scored in groups]
    if not all(losses):
        return None, None
    resampled = [resampled_rates(group, np.ones(len(group)), index) for index, group in enumerate(losses)]
    return float(np.mean([np.mean(group) for group in losses])), percentile_interval(np.mean(resampled, axis=0))


def _resampled_wer(scored: list[Scored], seed: int = 0) -> np.ndarray:
    return resampled_rates([words.errors for _, words, _ in scored], [words.reference for _, words, _ in scored], seed)


def _rate(counts: ErrorCounts) -> float | None:
    return counts.rate if counts.reference else None  # JSON has no infinity


def bucketed_reports(predictions: list[dict[str, Any]], normalize: str = AUTO) -> dict[str, dict[str, ErrorReport]]:
    """Return an `error_report` by ``duration`` and by ``snr`` (dB), of the predictions that have one.

    Returns:
        For each key that a prediction has its groups in order, e.g. ``{"duration": {"< 2 s": …, "2–5 s": …}}``.
    """
    reports = {}
    for key, (unit, bounds) in BUCKETS.items():
        names = [f"< {bounds[0]}", *(f"{low}–{high}" for low, high in pairwise(bounds)), f"≥ {bounds[-1]}"]
        groups: dict[int, list[dict[str, Any]]] = {}
        for prediction in predictions:
            if prediction.get(key) is not None:
                groups.setdefault(bisect_right(bounds, prediction[key]), []).append(prediction)
        if groups:
            reports[key] = {f"{names[i]} {unit}": error_report(groups[i], normalize) for i in sorted(groups)}
    return reports


def report_rows(report: ErrorReport) -> list[tuple[str, ErrorFigures | MacroFigures]]:
    """Return a report's figures by name: each language, ``macro`` where there are several, and ``all``."""
    languages = report.languages or {}
    return [*languages.items(), *([("macro", report.macro)] if report.macro else []), ("all", report)]


def figure_rows(report: ErrorReport) -> list[dict[str, Any]]:
    """Return a report as rows of a table: ``language`` (or ``macro`` or ``all``), counts, error rates, interval."""
    rows = []
    for name, figures in report_rows(report):
        counted = figures if isinstance(figures, ErrorFigures) else None  # a mean of rates has no counts
        low, high = figures.wer_ci or (None, None)
        loss_low, loss_high = figures.lm_loss_ci or (None, None)
        rows.append(
            {
                "language": report.language or name,
                "utterances": counted.utterances if counted else None,
                "words": counted.words.reference if counted else None,
                "wer": figures.wer,
                "wer_low": low,
                "wer_high": high,
                "cer": figures.cer,
                "lm_loss": figures.lm_loss,
                "lm_loss_low": loss_low,
                "lm_loss_high": loss_high,
            }
        )
    return rows

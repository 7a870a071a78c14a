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


def error_report(predictions: list[dict[str, Any]], normalize: str = AUTO) -> dict[str, Any]:
    """Return error rates, by language where there are several, and what they were counted from.

    Args:
        predictions: each with ``text`` (reference), ``pred_text``, ``truncated``, ``duration`` (seconds of audio),
            ``seconds`` (of computing) and, if known, ``lang`` and ``lm_loss`` (of the reference, nats per token; of
            all or none).
        normalize: the text `normalizer` applied to both sides; ``auto`` is that of each prediction's language.

    Returns:
        ``utterances``, ``wer`` and ``cer`` (fractions; None where there is no reference word), ``wer_ci`` (95 %
        bootstrap interval over utterances, [low, high]), ``words`` and ``characters`` (substitutions, deletions,
        insertions, reference length), ``truncated``, ``audio_seconds``, ``wall_seconds``, ``rtfx`` (seconds of audio
        per second of computing), ``normalizer``, ``normalizers`` (the languages by the normaliser that was applied),
        ``unspaced`` (languages whose words are characters, see `words_of`), ``lm_loss`` (mean over utterances) with
        ``lm_loss_ci`` where it is known, and ``language`` where there is one. Where there are several, also
        ``languages`` (the same by language) and ``macro``: the mean of the languages' ``wer``, ``cer`` and
        ``lm_loss``, with intervals for utterances drawn language by language.
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
    report = {"normalizer": normalize, **_conventions(predictions, names), **_figures(scored)}
    if len(by_language) == 1:
        (report["language"],) = by_language
    if len(by_language) > 1:
        report["languages"] = {language: _figures(by_language[language]) for language in sorted(by_language)}
        report["macro"] = _macro_figures([by_language[language] for language in sorted(by_language)])
    return report


def _conventions(predictions: list[dict[str, Any]], names: list[str]) -> dict[str, Any]:
    """Return how the words of each language were counted."""
    languages = [str(prediction.get("lang")) for prediction in predictions]
    unspaced = {language for p, language in zip(predictions, languages, strict=True) if is_unspaced(p["text"])}
    return {
        "normalizers": {
            name: sorted({language for language, own in zip(languages, names, strict=True) if own == name})
            for name in sorted(set(names))
        },
        "unspaced": sorted(unspaced),
    }


def _figures(scored: list[Scored]) -> dict[str, Any]:
    words = sum((words for _, words, _ in scored), ErrorCounts())
    characters = sum((characters for _, _, characters in scored), ErrorCounts())
    audio_seconds = sum(prediction["duration"] for prediction, _, _ in scored)
    wall_seconds = sum(prediction["seconds"] for prediction, _, _ in scored)
    return {
        "utterances": len(scored),
        "wer": _rate(words),
        "wer_ci": percentile_interval(_resampled_wer(scored)),
        "cer": _rate(characters),
        "words": _named(words),
        "characters": _named(characters),
        "truncated": sum(prediction["truncated"] for prediction, _, _ in scored),
        "audio_seconds": round(audio_seconds, 3),
        "wall_seconds": round(wall_seconds, 3),
        "rtfx": round(audio_seconds / wall_seconds, 2) if scored else None,
        **_loss_figures([scored]),
    }


def _macro_figures(languages: list[list[Scored]]) -> dict[str, Any]:
    """Return means over languages; one without a reference word has no error rate and is left out."""
    words = [sum((words for _, words, _ in scored), ErrorCounts()) for scored in languages]
    characters = [sum((characters for _, _, characters in scored), ErrorCounts()) for scored in languages]
    spoken = [scored for scored, counts in zip(languages, words, strict=True) if counts.reference]
    resampled = [_resampled_wer(scored, index) for index, scored in enumerate(spoken)]
    return {
        "wer": macro_rate(words),
        "wer_ci": percentile_interval(np.mean(resampled, axis=0)) if resampled else None,
        "cer": macro_rate(characters),
        **_loss_figures(languages),
    }


def _loss_figures(groups: list[list[Scored]]) -> dict[str, Any]:
    """Return ``lm_loss`` and its interval, the mean of the groups' means; nothing where it is not known."""
    losses = [[item[0]["lm_loss"] for item in scored if "lm_loss" in item[0]] for scored in groups]
    if not all(losses):
        return {}
    resampled = [resampled_rates(group, np.ones(len(group)), index) for index, group in enumerate(losses)]
    return {
        "lm_loss": float(np.mean([np.mean(group) for group in losses])),
        "lm_loss_ci": percentile_interval(np.mean(resampled, axis=0)),
    }


def _resampled_wer(scored: list[Scored], seed: int = 0) -> np.ndarray:
    return resampled_rates([words.errors for _, words, _ in scored], [words.reference for _, words, _ in scored], seed)


def _rate(counts: ErrorCounts) -> float | None:
    return counts.rate if counts.reference else None  # JSON has no infinity


def _named(counts: ErrorCounts) -> dict[str, int]:
    return dict(zip(("substitutions", "deletions", "insertions", "reference"), counts.counts, strict=True))


def bucketed_reports(predictions: list[dict[str, Any]], normalize: str = AUTO) -> dict[str, dict[str, Any]]:
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


def report_rows(report: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return an `error_report`'s figures by name: each language, ``macro`` where there are several, and ``all``."""
    macro = [("macro", report["macro"])] if "macro" in report else []
    return [*report.get("languages", {}).items(), *macro, ("all", report)]


def figure_rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return an `error_report` as flat rows: ``language`` (or ``macro`` or ``all``), counts, error rates, interval."""
    rows = []
    for name, figures in report_rows(report):
        low, high = figures["wer_ci"] or (None, None)
        loss_low, loss_high = figures.get("lm_loss_ci") or (None, None)
        rows.append(
            {
                "language": report.get("language", name),
                "utterances": figures.get("utterances"),
                "words": figures["words"]["reference"] if "words" in figures else None,
                "wer": figures["wer"],
                "wer_low": low,
                "wer_high": high,
                "cer": figures["cer"],
                "lm_loss": figures.get("lm_loss"),
                "lm_loss_low": loss_low,
                "lm_loss_high": loss_high,
            }
        )
    return rows

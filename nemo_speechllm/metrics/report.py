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

"""The figures of an evaluation: error rates over all utterances and by language, truncation, speed."""

import json
import os
from pathlib import Path
from typing import Any

from nemo_speechllm.metrics.error_rate import ErrorCounts, count_errors


def error_report(predictions: list[dict[str, Any]], normalize: str = "english") -> dict[str, Any]:
    """
    Args:
        predictions: each with ``text`` (reference), ``pred_text``, ``truncated``, ``duration`` (seconds of audio),
            ``seconds`` (of computing) and, if known, ``lang``.
        normalize: name of the text `normalizer` applied to both sides.

    Returns:
        ``utterances``, ``wer`` and ``cer`` (fractions; None where there is no reference word), ``words`` and
        ``characters`` (substitutions, deletions, insertions, reference length), ``truncated``, ``audio_seconds``,
        ``wall_seconds``, ``rtfx`` (seconds of audio per second of computing), ``normalizer``, and ``languages``
        (the same by language, where there are several).
    """
    report = {"normalizer": normalize, **_figures(predictions, normalize)}
    languages = sorted({str(prediction.get("lang")) for prediction in predictions})
    if len(languages) > 1:
        report["languages"] = {
            language: _figures([p for p in predictions if str(p.get("lang")) == language], normalize)
            for language in languages
        }
    return report


def _figures(predictions: list[dict[str, Any]], normalize: str) -> dict[str, Any]:
    hypotheses = [prediction["pred_text"] for prediction in predictions]
    references = [prediction["text"] for prediction in predictions]
    words = count_errors(hypotheses, references, "word", normalize)
    characters = count_errors(hypotheses, references, "char", normalize)
    audio_seconds = sum(prediction["duration"] for prediction in predictions)
    wall_seconds = sum(prediction["seconds"] for prediction in predictions)
    return {
        "utterances": len(predictions),
        "wer": _rate(words),
        "cer": _rate(characters),
        "words": _named(words),
        "characters": _named(characters),
        "truncated": sum(prediction["truncated"] for prediction in predictions),
        "audio_seconds": round(audio_seconds, 3),
        "wall_seconds": round(wall_seconds, 3),
        "rtfx": round(audio_seconds / wall_seconds, 2),
    }


def _rate(counts: ErrorCounts) -> float | None:
    return counts.rate if counts.reference else None  # JSON has no infinity


def _named(counts: ErrorCounts) -> dict[str, int]:
    return dict(zip(("substitutions", "deletions", "insertions", "reference"), counts.counts))


def format_table(report: dict[str, Any]) -> str:
    """An `error_report` as a text table, one row per language and one for all."""
    rows = [*report.get("languages", {}).items(), ("all", report)]
    lines = [
        f"{'':8}{'utts':>7}{'words':>8}{'WER %':>8}{'sub':>7}{'del':>7}{'ins':>7}{'CER %':>8}{'cut':>6}{'RTFx':>8}"
    ]
    for name, figures in rows:
        words = figures["words"]
        lines.append(
            f"{name:8}{figures['utterances']:7d}{words['reference']:8d}{_percent(figures['wer'])}"
            f"{words['substitutions']:7d}{words['deletions']:7d}{words['insertions']:7d}"
            f"{_percent(figures['cer'])}{figures['truncated']:6d}{figures['rtfx']:8.2f}"
        )
    return "\n".join(lines)


def _percent(rate: float | None) -> str:
    return f"{'-':>8}" if rate is None else f"{100 * rate:8.2f}"


def write_json(path: str | Path, content: dict[str, Any]) -> None:
    """Writes an object as indented JSON. The file appears whole or not at all."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)

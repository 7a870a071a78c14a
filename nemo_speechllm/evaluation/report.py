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

"""The figures of an evaluation: as ``metrics.json`` has them, as text, read again from there."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from nemo_speechllm.evaluation.tables import format_conventions, format_shares, format_table, format_translations
from nemo_speechllm.metrics.error_rate import normalizer_for
from nemo_speechllm.metrics.hallucination import HallucinationReport, hallucination_report
from nemo_speechllm.metrics.keywords import KeywordReport, count_keywords, keyword_report
from nemo_speechllm.metrics.report import ErrorReport, bucketed_reports, error_report
from nemo_speechllm.metrics.translation import TranslationFigures, is_translation, translation_report, written_language


@dataclass(frozen=True, kw_only=True)
class EvaluationReport(ErrorReport):
    """Error rates of transcripts, and what else predictions show.

    Attributes:
        buckets: the transcripts' error rates by group of ``duration`` and ``snr``.
        translation: by direction, where there are translations.
        hallucination: of transcripts and translations.
        keywords: of the predictions that have any.
    """

    buckets: dict[str, dict[str, ErrorReport]]
    translation: dict[str, TranslationFigures] | None = None
    hallucination: HallucinationReport
    keywords: KeywordReport | None = None


def evaluation_report(predictions: Sequence[dict[str, Any]], normalizer: str) -> EvaluationReport:
    """Return the figures of predictions, lines of ``predictions.jsonl``."""
    transcripts = [p for p in predictions if not is_translation(p)]
    translations = [p for p in predictions if is_translation(p)]
    counts = [
        count_keywords(
            p["pred_text"], p["text"], p["keywords"], normalizer_for(written_language(p), p["text"], normalizer)
        )
        for p in predictions
        if p.get("keywords")
    ]
    return EvaluationReport(
        **vars(error_report(transcripts, normalizer)),
        buckets=bucketed_reports(transcripts, normalizer),
        translation=translation_report(translations) if translations else None,
        hallucination=hallucination_report(predictions, normalizer),
        keywords=keyword_report(counts) if counts else None,
    )


def read_report(path: str | Path) -> EvaluationReport:
    """Read the report in a ``metrics.json``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is none of evaluate.py; the message names what is missing.
    """
    try:
        return TypeAdapter(EvaluationReport).validate_json(Path(path).read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path} is no metrics.json of evaluate.py: {place}: {first['msg']}") from error


def format_evaluation(report: EvaluationReport) -> str:
    """Return the figures of a report as tables."""
    parts = [format_table(report), format_conventions(report)] if report.utterances else []
    if report.translation is not None:
        parts.append(format_translations(report.translation))
    return "\n".join([*parts, format_shares(report.hallucination, report.keywords)])

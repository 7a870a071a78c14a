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

"""An evaluation as one HTML page: its tables, a figure, and the utterances that went worst with their recordings."""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from sacrebleu.metrics import CHRF

from nemo_speechllm.evaluation.plot import plot_error_rates
from nemo_speechllm.evaluation.report import EvaluationReport
from nemo_speechllm.evaluation.tables import format_conventions, format_interval, percent
from nemo_speechllm.metrics.error_rate import normalizer_for, word_differences
from nemo_speechllm.metrics.report import ErrorFigures, ErrorReport, MacroFigures, figure_rows, report_rows
from nemo_speechllm.metrics.translation import TranslationFigures, is_translation

Prediction = dict[str, Any]
TITLES = {"duration": "Duration", "snr": "Signal-to-noise ratio"}  # of metrics.report.BUCKETS
ERROR_HEAD = ("utterances", "words", "WER, %", "95 % interval", "sub", "del", "ins", "CER, %", "cut")


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the page."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Utterance:
    """What the page shows of a prediction."""

    audio: str
    score: str
    name: str
    interventions: Sequence[str]
    differences: list[tuple[str, str, str]]
    text: str
    pred_text: str


@dataclass(frozen=True, slots=True)
class Section:
    """Utterances under a title."""

    title: str
    utterances: list[Utterance]


def html_report(
    report: EvaluationReport,
    facts: dict[str, str],
    predictions: Sequence[Prediction],
    audio: Callable[[Prediction], str],
    worst: int,
) -> str:
    """Return one HTML page of an evaluation.

    Args:
        report: what evaluate.py found.
        facts: of the evaluation by name, its ``model`` among them.
        predictions: of evaluate.py, its ``predictions.jsonl``.
        audio: gives the address of a prediction's recording, ``data:`` or relative to the page.
        worst: how many transcripts, and how many translations, are shown.

    Returns:
        The page; everything but recordings that have an address of their own is in it.
    """
    environment = Environment(
        loader=PackageLoader("nemo_speechllm", "evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("html_report.html").render(
        title=f"Evaluation of {facts['model']}",
        facts=facts | {"normalizer": report.normalizer},
        tables=_tables(report),
        figure=_figure(report.buckets),
        worst=_worst(predictions, report.normalizer, audio, worst),
    )


def _tables(report: EvaluationReport) -> list[Table]:
    tables = []
    if report.utterances:
        notes = format_conventions(report).splitlines()
        tables.append(_error_table("Error rates", "language", report_rows(report), notes))
    for key, reports in report.buckets.items():
        tables.append(_error_table(f"Error rates by {TITLES[key].lower()}", "", list(reports.items())))
    if report.translation is not None:
        tables.append(_translation_table(report.translation))
    rows: list[tuple] = [
        (name, share.count, share.of, percent(share.rate, 2), format_interval(share.ci))
        for name, share in report.hallucination.shares.items()
    ]
    tables.append(Table("Hallucinations and deletions", ("", "utterances", "of", "%", "95 % interval"), rows))
    if report.keywords is not None:
        rows = [
            (name, percent(share, 2), format_interval(interval))
            for name, (share, interval) in report.keywords.shares.items()
        ]
        tables.append(Table("Keywords", ("", "%", "95 % interval"), rows))
    return tables


def _error_table(
    title: str, what: str, reports: Sequence[tuple[str, ErrorFigures | MacroFigures]], notes: Sequence[str] = ()
) -> Table:
    rows: list[tuple] = []
    for name, figures in reports:
        rates = (percent(figures.wer, 2), format_interval(figures.wer_ci))
        cer = percent(figures.cer, 2)
        if isinstance(figures, MacroFigures):  # a mean of rates has no counts
            rows.append((name, "", "", *rates, "", "", "", cer, ""))
        else:
            *edits, length = figures.words.counts
            rows.append((name, figures.utterances, length, *rates, *edits, cer, figures.truncated))
    return Table(title, (what, *ERROR_HEAD), rows, notes)


def _translation_table(directions: dict[str, TranslationFigures]) -> Table:
    rows: list[tuple] = []
    notes: dict[str, None] = {}
    for direction, figures in directions.items():
        cells = []
        for score, interval in figures.scores:
            cells += [f"{score:.2f}", "–".join(f"{bound:.1f}" for bound in interval)]
        notes |= {f"{name}: {signature}": None for name, signature in figures.signatures.items()}
        rows.append((direction, figures.utterances, *cells, figures.truncated))
    head = ("direction", "utterances", "BLEU", "95 % interval", "chrF", "95 % interval", "cut")
    return Table("Translation", head, rows, list(notes))


def _figure(buckets: dict[str, dict[str, ErrorReport]]) -> str | None:
    """Return WER by group as a ``data:`` address; None where there are no two groups of anything."""
    panels = {
        TITLES[key]: [row | {"value": name} for name, report in reports.items() for row in figure_rows(report)]
        for key, reports in buckets.items()
        if len(reports) > 1
    }
    if not panels:
        return None
    image = io.BytesIO()
    plot_error_rates(image, panels)
    return data_address(image.getvalue(), "image/png")


def data_address(content: bytes, kind: str) -> str:
    """Return a file's content as an address that holds it (RFC 2397); ``kind`` is its media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _worst(
    predictions: Sequence[Prediction], normalizer: str, audio: Callable[[Prediction], str], worst: int
) -> list[Section]:
    """Return transcripts with most errors, and translations of the lowest chrF."""
    chrf = CHRF()
    sections = []
    wrong = [p for p in predictions if not is_translation(p) and p["errors"]]
    wrong.sort(key=lambda p: (-p["errors"], p["words"]))
    scores = [f"{p['errors']} errors, {p['words']} words" for p in wrong[:worst]]
    if wrong:
        sections.append(("Transcripts with most errors", wrong, scores, normalizer))
    scored = [(chrf.sentence_score(p["pred_text"], [p["text"]]).score, p) for p in predictions if is_translation(p)]
    scored.sort(key=lambda pair: pair[0])
    if scored:
        scores = [f"chrF {score:.1f}" for score, _ in scored[:worst]]
        sections.append(("Translations of the lowest chrF", [p for _, p in scored], scores, "none"))
    return [
        Section(
            f"{title}: {len(scores)} of {len(of)}",
            [_utterance(p, score, clean, audio(p)) for p, score in zip(of, scores, strict=False)],
        )
        for title, of, scores, clean in sections
    ]


def _utterance(prediction: Prediction, score: str, normalizer: str, address: str) -> Utterance:
    normalizer = normalizer_for(prediction["lang"], prediction["text"], normalizer)
    language = "" if prediction["lang"] is None else f" · {prediction['lang']}"
    return Utterance(
        audio=address,
        score=score,
        name=f"{prediction['audio_filepath']} · {prediction['duration']:.1f} s{language}",
        interventions=prediction["interventions"],
        differences=word_differences(prediction["pred_text"], prediction["text"], normalizer),
        text=prediction["text"],
        pred_text=prediction["pred_text"],
    )

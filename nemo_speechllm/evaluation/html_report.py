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
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from sacrebleu.metrics import CHRF

from nemo_speechllm.evaluation.plot import plot_error_rates
from nemo_speechllm.evaluation.tables import format_conventions, format_interval, percent
from nemo_speechllm.metrics.error_rate import normalizer_for, word_differences
from nemo_speechllm.metrics.report import figure_rows, report_rows
from nemo_speechllm.metrics.translation import is_translation

Prediction = dict[str, Any]
TITLES = {"duration": "Duration", "snr": "Signal-to-noise ratio"}  # of metrics.report.BUCKETS
ERROR_HEAD = ("utterances", "words", "WER, %", "95 % interval", "sub", "del", "ins", "CER, %", "cut")


def html_report(
    metrics: dict[str, Any], predictions: Sequence[Prediction], audio: Callable[[Prediction], str], worst: int
) -> str:
    """Return one HTML page of an evaluation.

    Args:
        metrics: the ``metrics.json`` of evaluate.py.
        predictions: its ``predictions.jsonl``.
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
    facts = {name: metrics[name] for name in ("model", "manifest", "normalizer")}
    return environment.get_template("html_report.html").render(
        title=f"Evaluation of {metrics['model']}",
        facts=facts,
        tables=_tables(metrics),
        figure=_figure(metrics["buckets"]),
        worst=_worst(predictions, metrics["normalizer"], audio, worst),
    )


def _tables(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    tables = []
    if metrics["utterances"]:
        notes = (
            format_conventions(metrics).splitlines() if "normalizers" in metrics else []
        )  # of older evaluations there are none
        tables.append(_error_table("Error rates", "language", dict(report_rows(metrics)), notes))
    for key, reports in metrics["buckets"].items():
        tables.append(_error_table(f"Error rates by {TITLES[key].lower()}", "", reports))
    if "translation" in metrics:
        tables.append(_translation_table(metrics["translation"]))
    shares = {name: share for name, share in metrics["hallucination"].items() if isinstance(share, dict)}
    rows: list[tuple] = [
        (name.replace("_", " "), share["count"], share["of"], percent(share["rate"], 2), format_interval(share["ci"]))
        for name, share in shares.items()
    ]
    tables.append(_table("Hallucinations and deletions", ("", "utterances", "of", "%", "95 % interval"), rows))
    if "keywords" in metrics:
        found = metrics["keywords"]
        rows = [
            (name, percent(found[name], 2), format_interval(found[f"{name}_ci"]))
            for name in ("precision", "recall", "f", "leakage")
        ]
        tables.append(_table("Keywords", ("", "%", "95 % interval"), rows))
    return tables


def _table(
    title: str, head: Sequence[str], rows: Sequence[Sequence[Any]], notes: Sequence[str] = ()
) -> dict[str, Any]:
    return {"title": title, "head": head, "rows": rows, "notes": notes}


def _error_table(
    title: str, what: str, reports: dict[str, dict[str, Any]], notes: Sequence[str] = ()
) -> dict[str, Any]:
    rows = []
    for name, figures in reports.items():
        words = figures.get("words") or dict.fromkeys(("reference", "substitutions", "deletions", "insertions"), "")
        rates = (percent(figures["wer"], 2), format_interval(figures["wer_ci"]))
        edits = (words["substitutions"], words["deletions"], words["insertions"])
        size = (figures.get("utterances", ""), words["reference"])
        rows.append((name, *size, *rates, *edits, percent(figures["cer"], 2), figures.get("truncated", "")))
    return _table(title, (what, *ERROR_HEAD), rows, notes)


def _translation_table(directions: dict[str, dict[str, Any]]) -> dict[str, Any]:
    rows: list[tuple] = []
    notes: dict[str, None] = {}
    for direction, figures in directions.items():
        cells = []
        for name in ("bleu", "chrf"):
            cells += [f"{figures[name]:.2f}", "–".join(f"{bound:.1f}" for bound in figures[f"{name}_ci"])]
            notes[f"{name}: {figures['signatures'][name]}"] = None
        rows.append((direction, figures["utterances"], *cells, figures["truncated"]))
    head = ("direction", "utterances", "BLEU", "95 % interval", "chrF", "95 % interval", "cut")
    return _table("Translation", head, rows, list(notes))


def _figure(buckets: dict[str, dict[str, Any]]) -> str | None:
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
) -> list[dict[str, Any]]:
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
        {
            "title": f"{title}: {len(scores)} of {len(found)}",
            "utterances": [_utterance(p, score, clean, audio(p)) for p, score in zip(found, scores, strict=False)],
        }
        for title, found, scores, clean in sections
    ]


def _utterance(prediction: Prediction, score: str, normalizer: str, address: str) -> dict[str, Any]:
    normalizer = normalizer_for(prediction["lang"], prediction["text"], normalizer)
    language = "" if prediction["lang"] is None else f" · {prediction['lang']}"
    return {
        "audio": address,
        "score": score,
        "name": f"{prediction['audio_filepath']} · {prediction['duration']:.1f} s{language}",
        "interventions": prediction["interventions"],
        "differences": word_differences(prediction["pred_text"], prediction["text"], normalizer),
        "text": prediction["text"],
        "pred_text": prediction["pred_text"],
    }

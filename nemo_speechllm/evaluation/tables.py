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

"""Reports as tables: on a screen, in Markdown."""

from collections.abc import Iterable, Sequence
from typing import Any

from nemo_speechllm.metrics.instructions import instruction_rows
from nemo_speechllm.metrics.report import report_rows


def text_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table for a screen: columns as wide as they must be, all but the first aligned to the right."""
    lines = [list(head), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([name.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))])
        for name, *cells in lines
    )


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def percent(share: float | None, digits: int = 1) -> str:
    """Return a fraction in percent, ``12.3``; ``-`` where there is none."""
    return "-" if share is None else f"{100 * share:.{digits}f}"


def decimal(value: float | None, digits: int = 2) -> str:
    """Return a number; ``-`` where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def format_interval(interval: Sequence[float] | None) -> str:
    """Return fractions [low, high] as percentages, ``12.3–14.5``."""
    return "-" if interval is None else "–".join(map(percent, interval))


def format_table(report: dict[str, Any]) -> str:
    """Return an `error_report` as a text table of its `report_rows`."""
    head = ["", "utts", "words", "WER %", "95 % CI", "sub", "del", "ins", "CER %", "cut", "RTFx"]
    return text_table(head, [_error_cells(name, figures) for name, figures in report_rows(report)])


def _error_cells(name: str, figures: dict[str, Any]) -> list[str]:
    rates = [percent(figures["wer"], 2), format_interval(figures["wer_ci"])]
    if "words" not in figures:  # a mean of rates has no counts
        return [name, "", "", *rates, "", "", "", percent(figures["cer"], 2), "", ""]
    words = figures["words"]
    counts = [str(words[key]) for key in ("substitutions", "deletions", "insertions")]
    cut, speed = str(figures["truncated"]), decimal(figures["rtfx"])
    return [
        *(name, str(figures["utterances"]), str(words["reference"]), *rates, *counts),
        *(percent(figures["cer"], 2), cut, speed),
    ]


def format_conventions(report: dict[str, Any]) -> str:
    """Return how the words of an `error_report` were counted, in a line or two."""
    listed = [f"{name} for {_named_languages(languages)}" for name, languages in report["normalizers"].items()]
    lines = [f"text normalizer: {'; '.join(listed)}"]
    if sum("None" in languages for languages in report["normalizers"].values()) > 1:
        lines[0] += " (english where these are in Latin letters)"
    if report["unspaced"]:
        languages = _named_languages(report["unspaced"])
        lines.append(f"words of {languages}: each character of a script without spaces is one, so WER is close to CER")
    return "\n".join(lines)


def _named_languages(languages: list[str]) -> str:
    return ", ".join("lines without lang" if language == "None" else language for language in languages)


def format_shares(report: dict[str, Any]) -> str:
    """Return the ``hallucination`` and, where there is one, the ``keywords`` section of a report, a line each."""
    found = {name: share for name, share in report["hallucination"].items() if isinstance(share, dict)}
    counts = [f"{name.replace('_', ' ')} {share['count']} of {share['of']}" for name, share in found.items()]
    lines = [f"hallucination: {', '.join(counts)}"]
    if "keywords" in report:
        figures = report["keywords"]
        shares = [
            f"{name} {percent(figures[name], 2)} % ({format_interval(figures[f'{name}_ci'])})"
            for name in ("precision", "recall", "f", "leakage")
        ]
        lines.append(f"keywords: {', '.join(shares)}")
    return "\n".join(lines)


def format_translations(report: dict[str, Any]) -> str:
    """Return a `translation_report` as a text table, and the signatures below it."""
    rows: list[list[str]] = []
    signatures: dict[str, None] = {}
    for direction, figures in report.items():
        scores = [
            cell
            for name in ("bleu", "chrf")
            for cell in (decimal(figures[name]), "–".join(decimal(bound, 1) for bound in figures[f"{name}_ci"]))
        ]
        rows.append([direction, str(figures["utterances"]), *scores, str(figures["truncated"])])
        signatures |= {f"{name}: {text}": None for name, text in figures["signatures"].items()}
    table = text_table(["", "utts", "BLEU", "95 % CI", "chrF", "95 % CI", "cut"], rows)
    return "\n".join([table, *signatures])


def format_classification_table(report: dict[str, Any]) -> str:
    """Return a `classification_report` as a text table: each task, each category, all."""
    rows = [*report["tasks"].items(), *report["categories"].items(), ("all", report["all"])]
    return text_table(
        ["", "answers", "acc %", "95 % CI", "chance %", "undecided %"],
        [
            [
                *(name, str(found["answers"]), percent(found["accuracy"]), format_interval(found["ci"])),
                *(percent(found["chance"]), percent(found["undecided"])),
            ]
            for name, found in rows
        ],
    )


def format_probe_table(report: dict[str, Any]) -> str:
    """Return a `probe_report` as a text table: each probe, each category, all."""
    rows = [*report["probes"].items(), *report["categories"].items(), ("all", report["all"])]
    return text_table(
        ["", "answers", "passed %", "95 % CI"],
        [
            [name, str(found["answers"]), percent(found["passed"]), format_interval(found["ci"])]
            for name, found in rows
        ],
    )


def format_judge_table(report: dict[str, Any]) -> str:
    """Return a `judge_report` as a text table: each category, all."""
    rows = [*report["categories"].items(), ("all", report["all"])]
    return text_table(
        ["", "questions", "scored", "score", "95 % CI", "reference", "unparsed %"],
        [
            [
                *(name, str(found["questions"]), str(found["scored"]), decimal(found["score"])),
                "–".join(map(decimal, found["ci"])) if found["ci"] else "-",
                *(decimal(found["reference_score"]), percent(found["parse_failures"])),
            ]
            for name, found in rows
        ],
    )


def format_instruction_table(report: dict[str, Any]) -> str:
    """Return an `instruction_report` as a Markdown table, shares in percent."""
    head = ["", "split", "answers", "accuracy (95 % interval)", "within WER", "given own transcript: accuracy"]
    return markdown_table([*head, "within WER", "copying", "WER"], map(_instruction_cells, instruction_rows(report)))


def _instruction_cells(row: dict[str, Any]) -> list[str]:
    keys = ("within_wer", "accuracy_given_own_transcript", "within_wer_given_own_transcript", "copying", "wer")
    interval = f"{percent(row['accuracy_low'], 0)}–{percent(row['accuracy_high'], 0)}"
    name = row["name"] if row["group"] == "skills" else f"{row['group']} {row['name']}".strip()
    accuracy = f"{percent(row['accuracy'])} ({interval})"
    return [name, row["split"], str(row["answers"]), accuracy, *(percent(row[key]) for key in keys)]

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

from nemo_speechllm.metrics.classification import ClassificationReport, LikelihoodFigures
from nemo_speechllm.metrics.hallucination import HallucinationReport
from nemo_speechllm.metrics.instructions import InstructionReport, instruction_rows
from nemo_speechllm.metrics.judge import JudgeReport
from nemo_speechllm.metrics.keywords import KeywordReport
from nemo_speechllm.metrics.probes import ProbeReport
from nemo_speechllm.metrics.report import Conventions, ErrorFigures, ErrorReport, MacroFigures, report_rows
from nemo_speechllm.metrics.translation import TranslationFigures


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


def format_table(report: ErrorReport) -> str:
    """Return a report as a text table of its `report_rows`."""
    head = ["", "utts", "words", "WER %", "95 % CI", "sub", "del", "ins", "CER %", "cut", "RTFx"]
    return text_table(head, [_error_cells(name, figures) for name, figures in report_rows(report)])


def _error_cells(name: str, figures: ErrorFigures | MacroFigures) -> list[str]:
    rates, cer = [percent(figures.wer, 2), format_interval(figures.wer_ci)], percent(figures.cer, 2)
    if isinstance(figures, MacroFigures):  # a mean of rates has no counts
        return [name, "", "", *rates, "", "", "", cer, "", ""]
    *edits, length = map(str, figures.words.counts)
    return [name, str(figures.utterances), length, *rates, *edits, cer, str(figures.truncated), decimal(figures.rtfx)]


def format_conventions(report: Conventions) -> str:
    """Return how the words of a report were counted, in a line or two; of an evaluation of old, nothing."""
    if report.normalizers is None:
        return ""
    listed = [f"{name} for {_named_languages(languages)}" for name, languages in report.normalizers.items()]
    lines = [f"text normalizer: {'; '.join(listed)}"]
    if sum("None" in languages for languages in report.normalizers.values()) > 1:
        lines[0] += " (english where these are in Latin letters)"
    if report.unspaced:
        languages = _named_languages(report.unspaced)
        lines.append(f"words of {languages}: each character of a script without spaces is one, so WER is close to CER")
    return "\n".join(lines)


def _named_languages(languages: list[str]) -> str:
    return ", ".join("lines without lang" if language == "None" else language for language in languages)


def format_shares(hallucination: HallucinationReport, keywords: KeywordReport | None = None) -> str:
    """Return how often answers go wrong and, where they are known, the figures of keywords, a line each."""
    counts = [f"{name} {share.count} of {share.of}" for name, share in hallucination.shares.items()]
    lines = [f"hallucination: {', '.join(counts)}"]
    if keywords is not None:
        shares = [
            f"{name} {percent(share, 2)} % ({format_interval(interval)})"
            for name, (share, interval) in keywords.shares.items()
        ]
        lines.append(f"keywords: {', '.join(shares)}")
    return "\n".join(lines)


def format_translations(report: dict[str, TranslationFigures]) -> str:
    """Return a `translation_report` as a text table, and the signatures below it."""
    rows: list[list[str]] = []
    signatures: dict[str, None] = {}
    for direction, figures in report.items():
        scores = [
            cell
            for score, interval in figures.scores
            for cell in (decimal(score), "–".join(decimal(bound, 1) for bound in interval))
        ]
        rows.append([direction, str(figures.utterances), *scores, str(figures.truncated)])
        signatures |= {f"{name}: {text}": None for name, text in figures.signatures.items()}
    table = text_table(["", "utts", "BLEU", "95 % CI", "chrF", "95 % CI", "cut"], rows)
    return "\n".join([table, *signatures])


def format_classification_table(report: ClassificationReport) -> str:
    """Return a `classification_report` as a text table: each task, each category, all."""
    rows = [*report.tasks.items(), *report.categories.items(), ("all", report.all)]
    head = ["", "answers", "acc %", "95 % CI", "chance %", "undecided %"]
    if report.all.likelihood is not None:
        head += ["unnormalised %", "calibrated %", "95 % CI", "AUC", "ECE %"]
    return text_table(
        head,
        [
            [
                *(name, str(figures.answers), percent(figures.accuracy), format_interval(figures.ci)),
                *(percent(figures.chance), percent(figures.undecided)),
                *_likelihood_cells(figures.likelihood),
            ]
            for name, figures in rows
        ],
    )


def _likelihood_cells(figures: LikelihoodFigures | None) -> list[str]:
    if figures is None:
        return []
    return [
        *(percent(figures.accuracy_unnormalised), percent(figures.accuracy_calibrated)),
        *(format_interval(figures.ci_calibrated), decimal(figures.auc, 3), percent(figures.calibration_error)),
    ]


def format_probe_table(report: ProbeReport) -> str:
    """Return a `probe_report` as a text table: each probe, each category, all."""
    rows = [*report.probes.items(), *report.categories.items(), ("all", report.all)]
    return text_table(
        ["", "answers", "passed %", "95 % CI"],
        [[name, str(figures.answers), percent(figures.passed), format_interval(figures.ci)] for name, figures in rows],
    )


def format_judge_table(report: JudgeReport) -> str:
    """Return a `judge_report` as a text table: each category, all."""
    rows = [*report.categories.items(), ("all", report.all)]
    return text_table(
        ["", "questions", "scored", "score", "95 % CI", "reference", "unparsed %"],
        [
            [
                *(name, str(figures.questions), str(figures.scored), decimal(figures.score)),
                "–".join(map(decimal, figures.ci)) if figures.ci else "-",
                *(decimal(figures.reference_score), percent(figures.parse_failures)),
            ]
            for name, figures in rows
        ],
    )


def format_instruction_table(report: InstructionReport) -> str:
    """Return an `instruction_report` as a Markdown table, shares in percent."""
    head = ["", "split", "answers", "accuracy (95 % interval)", "within WER", "given own transcript: accuracy"]
    return markdown_table([*head, "within WER", "copying", "WER"], map(_instruction_cells, instruction_rows(report)))


def _instruction_cells(row: dict[str, Any]) -> list[str]:
    keys = ("within_wer", "accuracy_given_own_transcript", "within_wer_given_own_transcript", "copying", "wer")
    interval = f"{percent(row['accuracy_low'], 0)}–{percent(row['accuracy_high'], 0)}"
    name = row["name"] if row["group"] == "skills" else f"{row['group']} {row['name']}".strip()
    accuracy = f"{percent(row['accuracy'])} ({interval})"
    return [name, row["split"], str(row["answers"]), accuracy, *(percent(row[key]) for key in keys)]

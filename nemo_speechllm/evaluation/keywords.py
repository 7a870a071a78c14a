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

"""How well rare words are recognised with a list of keywords; ``examples/evaluate_keywords.py`` says what is done."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nemo.utils import logging
from omegaconf import MISSING

from nemo_speechllm.command_line import emit
from nemo_speechllm.data.keywords import Vocabulary, read_keywords, words_of
from nemo_speechllm.evaluation.plot import plot_keyword_figures
from nemo_speechllm.evaluation.report import EvaluationReport
from nemo_speechllm.evaluation.run import evaluate_in_folder
from nemo_speechllm.evaluation.tables import decimal, format_interval, markdown_table, percent
from nemo_speechllm.files import FolderLock, Journal, claim_record, file_digest, write_csv, write_json, write_text
from nemo_speechllm.languages import has_no_spaces
from nemo_speechllm.manifests.manifest import read_manifest, relocate, require_texts, write_manifest
from nemo_speechllm.metrics.error_rate import normalizer_for
from nemo_speechllm.metrics.keywords import KeywordCounts, count_keywords, keyword_report
from nemo_speechllm.metrics.significance import compare_paired
from nemo_speechllm.metrics.translation import is_translation, written_language
from nemo_speechllm.randomness import named_random

FIGURES = ("precision", "recall", "f", "leakage")


@dataclass
class EvaluateKeywordsArguments:
    """Which model and keywords are evaluated, and where the results go."""

    model: str = MISSING
    manifest: str = MISSING
    train_manifest: str = MISSING  # whose texts say what is rare
    output_dir: str = MISSING
    sizes: list[int] = field(default_factory=lambda: [10, 50, 100, 1000])  # words in a list
    max_count: int = 2  # training texts that may hold a keyword
    min_letters: int = 3  # of a keyword
    vocabulary: str | None = None  # more distractors, a word a line
    seed: int = 0
    evaluate: list[str] = field(default_factory=list)  # further arguments of evaluate.py


@dataclass
class Condition:
    """What stands in the lists: the utterance's keywords or not, filled up with others to ``size`` words."""

    kind: str
    correct: bool
    size: int = 0

    @property
    def name(self) -> str:
        """Name the condition as its folder is named: kind and size."""
        return f"{self.kind}_{self.size}" if self.size else self.kind


def conditions_of(sizes: list[int]) -> list[Condition]:
    """Return all conditions, no list first: what the others are compared with."""
    filled = [Condition(kind, kind == "mixed", size) for kind in ("distractors", "mixed") for size in sizes]
    return [Condition("empty", False), Condition("correct", True), *filled]


def rare_words(rows: list[dict], train: Vocabulary, cfg: EvaluateKeywordsArguments) -> list[list[str]]:
    """Return the rare words of each row, in order.

    Raises:
        ValueError: there is none in the whole manifest.
    """
    keywords = []
    for row in rows:
        words = dict.fromkeys(words_of(row.get("answer") or row["text"]))
        keywords.append([w for w in words if len(w) >= cfg.min_letters and train.is_rare(w, cfg.max_count)])
    if not any(keywords):
        raise ValueError(
            f"{cfg.manifest}: no word of {cfg.min_letters} letters or more occurs in at most "
            f"max_count={cfg.max_count} texts of {cfg.train_manifest}; raise max_count"
        )
    return keywords


def distractors(keywords: list[list[str]], train: Vocabulary, cfg: EvaluateKeywordsArguments) -> list[str]:
    """Return every rare word there is, each once: of the manifest, the training texts and the vocabulary."""
    words = [word for of_row in keywords for word in of_row]
    words += [train.spelling(word) for word in train.counts if train.is_rare(word, cfg.max_count)]
    words += read_keywords(cfg.vocabulary) if cfg.vocabulary else []
    return list({word.casefold(): word for word in reversed(words) if len(word) >= cfg.min_letters}.values())


def keyword_lists(
    condition: Condition,
    rows: list[dict],
    keywords: list[list[str]],
    others: list[str],
    cfg: EvaluateKeywordsArguments,
) -> list[list[str]]:
    """Return the list of each row.

    Raises:
        ValueError: there are fewer distractors than a list is to have.
    """
    lists = []
    for index, (row, of_row) in enumerate(zip(rows, keywords, strict=True)):
        reference = {word.casefold() for word in words_of(row.get("answer") or row["text"])}
        unsaid = [word for word in others if word.casefold() not in reference]
        given = of_row if condition.correct else []
        missing = max(0, condition.size - len(given))
        if missing > len(unsaid):
            raise ValueError(
                f"{condition.name}: {missing} distractors are wanted and there are {len(unsaid)} rare words to take; "
                "give vocabulary=, a file with a word a line, or smaller sizes="
            )
        random = named_random((cfg.seed, index, condition.kind))
        # a longer list holds the words of a shorter one
        drawn = [*given, *(unsaid[place] for place in random.permutation(len(unsaid))[:missing])]
        lists.append([drawn[place] for place in random.permutation(len(drawn))])
    return lists


def evaluate(cfg: EvaluateKeywordsArguments, manifest: Path) -> tuple[EvaluationReport, list[dict[str, Any]]]:
    """Return a condition's report and predictions."""
    report = evaluate_in_folder(cfg.model, manifest, cfg.evaluate)
    predictions = Journal(manifest.parent / "evaluation" / "predictions.jsonl", "a prediction").rows
    return report, sorted(predictions, key=lambda prediction: prediction["index"])


def figures(
    condition: Condition, report: EvaluationReport, predictions: list[dict], first: list[dict], scored: list[str]
) -> dict[str, Any]:
    """Return a row of the results: word errors, keyword figures with intervals, and p against the first condition."""
    of_all = keyword_report([counted(prediction, scored, report.normalizer) for prediction in predictions])
    given = [prediction for prediction in predictions if prediction["keywords"]]
    listed = keyword_report([counted(prediction, prediction["keywords"], report.normalizer) for prediction in given])
    row: dict[str, Any] = {"condition": condition.kind, "size": condition.size or None, "wer": report.wer}
    row["wer_low"], row["wer_high"] = report.wer_ci or (None, None)
    row["p"] = None if condition.kind == "empty" or report.wer is None else p_of_errors(first, predictions)
    for name, (share, interval) in (of_all.shares | {"leakage": listed.shares["leakage"]}).items():
        row[name] = share
        row[f"{name}_low"], row[f"{name}_high"] = interval or (None, None)
    counts = {"hits": of_all.hits, "misses": of_all.misses, "false_alarms": of_all.false_alarms}
    return row | counts | {"leaked": listed.leaked}


def counted(prediction: dict, keywords: list[str], normalizer: str) -> KeywordCounts:
    """Count the keywords of a prediction, by the normaliser of its language."""
    text = prediction["text"]
    name = normalizer_for(written_language(prediction), text, normalizer)
    return count_keywords(prediction["pred_text"], text, keywords, name)


def p_of_errors(first: list[dict], predictions: list[dict]) -> float:
    """Return p of the difference between the word errors of transcripts."""
    runs = [[prediction for prediction in run if not is_translation(prediction)] for run in (first, predictions)]
    errors_of_first, errors = ([prediction["errors"] for prediction in run] for run in runs)
    return compare_paired(errors_of_first, errors, [prediction["words"] for prediction in runs[0]]).p


def write_results(rows: list[dict[str, Any]], output: Path) -> None:
    """Write one table of all conditions as CSV, Markdown and JSON, and a plot over the size of the lists."""
    write_csv(output / "results.csv", rows)
    write_json(output / "results.json", {"conditions": rows})
    table = markdown_table(
        ["list", "words", "WER, %", "p", "precision, %", "recall, %", "F, %", "leakage, %"],
        [
            [
                *(row["condition"], str(row["size"] or "-"), _cell(row, "wer"), decimal(row["p"], 3)),
                *(_cell(row, name) for name in FIGURES),
            ]
            for row in rows
        ],
    )
    write_text(output / "results.md", table + "\n")
    emit(table)
    plot_keyword_figures(output / "results.png", rows)


def _cell(row: dict[str, Any], name: str) -> str:
    if row[name] is None:
        return "-"
    return f"{percent(row[name])} ({format_interval([row[f'{name}_low'], row[f'{name}_high']])})"


def checked_rows(manifest: str) -> list[dict]:
    """Read the rows of a manifest whose words can be keywords.

    Raises:
        ValueError: a row has no text, or one without spaces between words.
    """
    rows = read_manifest(manifest, locate_audio=True)
    for number, row in enumerate(rows, 1):
        require_texts(row, ["answer" if "answer" in row else "text"], f"{manifest}:{number}")
        if has_no_spaces(row.get("target_lang") or row.get("lang")):
            raise ValueError(
                f"{manifest}:{number}: no words to draw keywords from: the language is written without spaces; "
                "give the lines `keywords` and evaluate them with examples/evaluate.py"
            )
    return rows


def evaluate_keywords(cfg: EvaluateKeywordsArguments) -> None:
    """Evaluate every condition and write their table; a run that was killed is taken up.

    Raises:
        ValueError: a size is none, a row has no words to take keywords of, there are too few, or the folder holds
            something else.
        FolderInUse: another process writes into ``output_dir``.
    """
    if any(size < 1 for size in cfg.sizes):
        raise ValueError(
            f"sizes={list(cfg.sizes)}: a list has 1 word or more; the condition without any, `empty`, there always is"
        )
    output = Path(cfg.output_dir)
    lock = FolderLock(output, "evaluation")
    rows = checked_rows(cfg.manifest)
    train = Vocabulary.of_texts(
        row.get("answer") or row.get("text") or "" for row in read_manifest(cfg.train_manifest)
    )
    keywords = rare_words(rows, train, cfg)
    others = distractors(keywords, train, cfg)
    scored = sorted({word for of_row in keywords for word in of_row})
    files = {key: getattr(cfg, key) for key in ("manifest", "train_manifest", "vocabulary")}
    record = {key: path and file_digest(path) for key, path in files.items()}
    record |= {key: getattr(cfg, key) for key in ("max_count", "min_letters", "seed")}
    lists = [
        (condition, keyword_lists(condition, rows, keywords, others, cfg)) for condition in conditions_of(cfg.sizes)
    ]
    results: list[dict[str, Any]] = []
    first: list[dict] = []
    for number, (condition, listed) in enumerate(lists, 1):
        logging.info(f"[{number}/{len(lists)}] {condition.name}")
        folder = output / condition.name
        folder.mkdir(parents=True, exist_ok=True)
        claim_record(folder / "condition.json", record, "lists made of something else")
        manifest = folder / "manifest.jsonl"
        given = (row | {"keywords": words} for row, words in zip(rows, listed, strict=True))
        write_manifest(manifest, (relocate(row, Path("rows"), manifest) for row in given))
        report, predictions = evaluate(cfg, manifest)
        first = first or predictions
        results.append(figures(condition, report, predictions, first, scored))
    write_results(results, output)
    lock.release()
    logging.info(f"results.csv, .md, .json and .png are in {output}")

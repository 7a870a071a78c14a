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

"""Trains and evaluates a recipe with one setting after another, and draws the table.

    python examples/sweep.py --config-name=ctc_prompted_llm/sweep stage1=stage1.nemo
    python examples/sweep.py --config-name=ctc_prompted_llm/sweep stage1=stage1.nemo 'only=[stride]'
    python examples/sweep.py --config-name=salm/sweep_keywords 'only=[positive_ratio]'

The YAML says which ``recipe``, one of ``conf/`` or of ``--config-dir``, what is ``common`` to all rows and which
``axes`` are swept. An axis names settings with a list of values each; its i-th row takes the i-th value of every list.
Settings are overrides of the recipe, those that begin with ``evaluate.`` arguments of the ``evaluation``, evaluate.py
or evaluate_keywords.py (``evaluate.manifest`` may be several manifests). ``labels`` names an axis's rows; without it
they are named after the first setting's values. Rows with the same settings on several axes are run once.

Every row trains and evaluates in processes of its own and logs to ``rows/AXIS=LABEL/log.txt``. A row with figures is
done; the same command takes up a sweep that was killed. A row that fails is reported and the next one begins; the
status is then 1. ``results.csv`` has a line per row and language, or per row and list of keywords; ``AXIS.png`` is
drawn for each axis.
"""

import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from nemo.core.config import hydra_runner
from omegaconf import DictConfig, OmegaConf

from nemo_speechllm.command_line import cause_of, emit, is_expected, run_apart, run_command
from nemo_speechllm.data.dataset import task_of
from nemo_speechllm.evaluation.keywords import EvaluateKeywordsArguments, evaluate_keywords
from nemo_speechllm.evaluation.plot import plot_error_rates, plot_keyword_figures
from nemo_speechllm.evaluation.report import EvaluationReport, read_report
from nemo_speechllm.evaluation.run import EvaluateArguments, arguments_of, evaluate
from nemo_speechllm.evaluation.tables import format_interval
from nemo_speechllm.files import FolderLock, claim_record, write_csv
from nemo_speechllm.manifests.manifest import read_manifest, relocate, write_manifest
from nemo_speechllm.manifests.rows import answer_of
from nemo_speechllm.metrics.error_rate import AUTO
from nemo_speechllm.metrics.report import figure_rows
from nemo_speechllm.metrics.translation import check_metrics
from nemo_speechllm.training.train import overrides_of, read_recipe, train

EXAMPLES = Path(__file__).resolve().parent
EVALUATE = "evaluate."


@dataclass(frozen=True)
class Evaluation:
    """How a row is evaluated, as a script does it, and what is made of its figures.

    Attributes:
        arguments: the script's.
        run: what the script does with them.
        output: the JSON file that it writes at its end.
        read: gives the figures in that file.
        lines: of the CSV, of the figures.
        summary: a few words for the screen, of the same.
        plot: draws an axis, given the file to write, the axis and its lines with their ``value``.
    """

    arguments: type
    run: Callable[[Any], Any]
    output: str
    read: Callable[[Path], Any]
    lines: Callable[[Any], list[dict[str, Any]]]
    summary: Callable[[Any], str]
    plot: Callable[[Path, str, list[dict[str, Any]]], None]


def summarize_errors(report: EvaluationReport) -> str:
    """Return the error rates of a report in a few words."""
    figures = report.macro or report
    if figures.wer is None:
        return "no words"
    return f"WER {100 * figures.wer:.1f} % ({format_interval(figures.wer_ci)})"


def plot_errors(path: Path, axis: str, lines: list[dict[str, Any]]) -> None:
    """Draw the error rates over the values of an axis."""
    plot_error_rates(path, {axis: lines})


def read_conditions(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a ``results.json`` of evaluate_keywords.py, one for each condition."""
    return json.loads(path.read_text(encoding="utf-8"))["conditions"]


def summarize_keywords(rows: list[dict[str, Any]]) -> str:
    """Return the F of each condition in a few words."""
    rates = {name_of(row): row["f"] for row in rows}
    return ", ".join(f"F {name} " + ("-" if f is None else f"{100 * f:.1f} %") for name, f in rates.items())


def plot_keywords(path: Path, axis: str, lines: list[dict[str, Any]]) -> None:
    """Draw the keyword figures over the values of an axis."""
    plot_keyword_figures(path, [line | {"condition": name_of(line)} for line in lines], x="value", label=axis)


def name_of(line: dict[str, Any]) -> str:
    """Return a list of keywords with its size, ``mixed 50``."""
    return f"{line['condition']} {line['size'] or ''}".strip()


EVALUATIONS = {
    "evaluate.py": Evaluation(
        EvaluateArguments, evaluate, "metrics.json", read_report, figure_rows, summarize_errors, plot_errors
    ),
    "evaluate_keywords.py": Evaluation(
        EvaluateKeywordsArguments,
        evaluate_keywords,
        "results.json",
        read_conditions,
        list,
        summarize_keywords,
        plot_keywords,
    ),
}


@dataclass
class Row:
    """A row of the table.

    Attributes:
        axis, label: what is swept and the value.
        folder: of its results; rows of several axes with the same settings share one.
        settings: overrides of the recipe and, with the prefix ``evaluate.``, arguments of the evaluation.
        evaluation: name of the script.
    """

    axis: str
    label: str
    folder: Path
    settings: dict[str, Any]
    evaluation: str = "evaluate.py"

    @property
    def name(self) -> str:
        """Name the row by its axis and label."""
        return f"{self.axis}={self.label}"

    @property
    def metrics_file(self) -> Path:
        """File of the row's figures, which is there when the row is done."""
        return self.folder / "evaluation" / EVALUATIONS[self.evaluation].output

    @property
    def figures(self) -> Any:
        """What the evaluation found."""
        return EVALUATIONS[self.evaluation].read(self.metrics_file)


def plan_rows(cfg: dict[str, Any]) -> list[Row]:
    """Return the rows of all axes, or of those in ``only``, in order.

    Raises:
        ValueError: a section is missing, an axis has no rows, lists of different lengths, or labels that are the same
            or cannot be made; or ``only`` names no axis, or ``evaluation`` no script.
    """
    sections = ("recipe", "evaluation", "output_dir", "only", "common", "axes")
    if missing := [key for key in sections if key not in cfg]:
        raise ValueError(f"the sweep has no {', '.join(missing)}; examples/sweep.py says what stands there")
    if cfg["evaluation"] not in EVALUATIONS:
        raise ValueError(f"evaluation={cfg['evaluation']}: no such script; there are {sorted(EVALUATIONS)}")
    unknown = set(cfg["only"] or []) - set(cfg["axes"])
    if unknown:
        raise ValueError(f"only={sorted(unknown)}: no such axis; there are {sorted(cfg['axes'])}")
    rows: list[Row] = []
    for axis, columns in cfg["axes"].items():
        columns = dict(columns)
        if not any(columns.values()):
            raise ValueError(f"axes.{axis} has no values, so there is nothing to train; give some, or remove the axis")
        labels = columns.pop("labels", None) or [Path(str(value)).name for value in next(iter(columns.values()))]
        lengths = {"labels": len(labels)} | {key: len(values) for key, values in columns.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"axes.{axis}: every setting needs as many values as the others; there are {lengths}")
        labels = [re.sub(r"[^\w.+-]+", "_", str(label)) for label in labels]
        if len(set(labels)) < len(labels):
            raise ValueError(f"axes.{axis}: rows need names of their own, these are {labels}; give `labels`")
        for index, label in enumerate(labels):
            settings = cfg["common"] | {key: values[index] for key, values in columns.items()}
            same = next((row.folder for row in rows if row.settings == settings), None)
            folder = same or Path(cfg["output_dir"]) / "rows" / f"{axis}={label}"
            rows.append(Row(axis, label, folder, settings, cfg["evaluation"]))
    return [row for row in rows if not cfg["only"] or row.axis in cfg["only"]]


def check_evaluation(row: Row) -> None:
    """Refuse, before anything is trained, an evaluation that could not score its manifests.

    A missing manifest fails its row alone.

    Raises:
        ValueError: a line is broken, or `check_metrics` refuses.
    """
    sources = row.settings[f"{EVALUATE}manifest"]
    paths = [path for path in ([sources] if isinstance(sources, str) else sources) if Path(path).is_file()]
    lines = [line for path in paths for line in read_manifest(path) if task_of(line) == "ast"]
    translations = [(line.get("target_lang"), str(answer_of(line) or "")) for line in lines]
    check_metrics(row.settings.get(f"{EVALUATE}normalizer", AUTO), translations)


def recipe_folders() -> list[Path]:
    """Return where recipes are looked for: ``conf/``, and with ``--config-dir`` that folder, too."""
    sources = HydraConfig.get().runtime.config_sources if HydraConfig.initialized() else []
    return [EXAMPLES.parent / "conf", *(Path(source.path) for source in sources if source.provider == "command-line")]


def run_row(row: Row, recipe: str) -> None:
    """Train, unless the checkpoint is there, and evaluate.

    Raises:
        ProcessError: one of the two failed.
        HydraException, OmegaConfBaseException: a setting is none of the recipe's or the evaluation's.
    """
    checkpoint, log = row.folder / "train" / "checkpoints" / "train.nemo", row.folder / "log.txt"
    if not checkpoint.exists():
        changes = {"exp_manager.exp_dir": str(row.folder), "name": "train"}
        changes |= {key: value for key, value in row.settings.items() if not key.startswith(EVALUATE)}
        cfg = read_recipe(recipe_folders(), recipe, changes)
        run_logged(["train.py", f"--config-name={recipe}", *overrides_of(changes)], train, cfg, log)
    given = {k.removeprefix(EVALUATE): v for k, v in row.settings.items() if k.startswith(EVALUATE)}
    given["manifest"] = str(joined_manifest(given["manifest"], row.folder / "test.jsonl"))
    given |= {"model": str(checkpoint), "output_dir": str(row.metrics_file.parent)}
    evaluation = EVALUATIONS[row.evaluation]
    cfg = arguments_of(evaluation.arguments, given)
    run_logged([row.evaluation, *overrides_of(given)], evaluation.run, cfg, log)


def run_logged(command: list[str], function: Callable[[Any], Any], cfg: Any, log: Path) -> None:
    """Call what a script of this folder does, in a process of its own, below its command in the log."""
    script, *arguments = command
    with open(log, "a", encoding="utf-8") as file:
        print("$ python", f"examples/{script}", *arguments, file=file)
    run_apart([str(EXAMPLES / script), *arguments], function, cfg, log=log)


def joined_manifest(sources: str | list[str], target: Path) -> Path:
    """Write one manifest of all rows of some manifests."""
    sources = [sources] if isinstance(sources, str) else sources
    write_manifest(target, (relocate(row, source, target) for source in sources for row in read_manifest(source)))
    return target


def write_results(rows: list[Row], output: Path) -> None:
    """Write ``results.csv`` and a plot per axis, of the rows that are done."""
    lines = [
        {"axis": row.axis, "value": row.label} | figures
        for row in rows
        if row.metrics_file.exists()
        for figures in EVALUATIONS[row.evaluation].lines(row.figures)
    ]
    if lines:
        write_csv(output / "results.csv", lines)
    for axis in dict.fromkeys(line["axis"] for line in lines):
        evaluation = EVALUATIONS[rows[0].evaluation]
        evaluation.plot(output / f"{axis}.png", axis, [line for line in lines if line["axis"] == axis])


@hydra_runner(config_path="../conf", config_name="ctc_prompted_llm/sweep")
def main(cfg: DictConfig) -> None:
    """Train and evaluate every row, and write the results."""
    cfg = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    rows, output, failed = plan_rows(cfg), Path(cfg["output_dir"]), []
    for row in rows:
        check_evaluation(row)
    lock = FolderLock(output, "sweep")
    for row in rows:
        row.folder.mkdir(parents=True, exist_ok=True)
        claim_record(row.folder / "row.json", {"recipe": cfg["recipe"]} | row.settings, "a row of another sweep")
    for number, row in enumerate(rows, 1):
        started, was_done = time.monotonic(), row.metrics_file.exists()
        try:
            if not was_done:
                run_row(row, cfg["recipe"])
        except Exception as error:
            if not is_expected(error):
                raise
            failed.append(row.name)
            emit(f"[{number}/{len(rows)}] {row.name}: failed: {cause_of(error)}")
            continue
        seconds = "was there" if was_done else f"{time.monotonic() - started:.0f} s"
        emit(f"[{number}/{len(rows)}] {row.name}: {EVALUATIONS[row.evaluation].summary(row.figures)}, {seconds}")
        write_results(rows, output)
    lock.release()
    if failed:
        emit(f"{len(failed)} of {len(rows)} rows failed: {', '.join(failed)}; the same command tries them again")
        sys.exit(1)
    emit(f"results.csv and the plots are in {output}")


if __name__ == "__main__":
    run_command(main)

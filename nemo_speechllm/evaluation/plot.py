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

"""Error rates, accuracies and keyword figures, drawn with their intervals."""

from pathlib import Path
from typing import Any, BinaryIO

from nemo_speechllm.metrics.instructions import InstructionReport

try:
    from matplotlib.figure import Figure
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "figures are drawn with matplotlib, which is not installed: pip install matplotlib"
    ) from error


def plot_error_rates(path: str | Path | BinaryIO, panels: dict[str, list[dict[str, Any]]]) -> None:
    """Draw panels side by side, each with a line per language: WER in percent with its 95 % interval.

    Args:
        path: of the PNG, or an open file for it.
        panels: title → rows of `report.figure_rows` with a ``value`` for the x axis, in order of appearance. A row
            whose ``wer`` is None is left out, and so is ``all`` where there is ``macro``.
    """
    figure = Figure(figsize=(max(4.5, 4 * len(panels)), 3.6), layout="constrained")
    for axes, (title, rows) in zip(
        figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels.items(), strict=True
    ):
        values = list(dict.fromkeys(str(row["value"]) for row in rows))
        languages = list(dict.fromkeys(row["language"] for row in rows))
        if "macro" in languages:
            languages = [language for language in languages if language != "all"]
        for number, language in enumerate(languages):
            shown = [row for row in rows if row["language"] == language and row["wer"] is not None]
            # side by side: intervals that cover each other cannot be read
            places = [values.index(str(row["value"])) + 0.06 * (number - (len(languages) - 1) / 2) for row in shown]
            bars = [
                [100 * (row["wer"] - row["wer_low"]) for row in shown],
                [100 * (row["wer_high"] - row["wer"]) for row in shown],
            ]
            mean = language in ("macro", "all")
            axes.errorbar(
                places,
                [100 * row["wer"] for row in shown],
                bars,
                label=language,
                marker="o",
                capsize=2,
                linewidth=2 if mean else 1,
                linestyle="-" if mean else "--",
                color="black" if mean else None,
            )
        axes.set_xticks(range(len(values)), values, rotation=30 if max(map(len, values), default=0) > 6 else 0)
        axes.set_xlabel(title)
        axes.grid(axis="y", alpha=0.3)
    first = figure.axes[0]
    first.set_ylabel("WER, % (95 % interval)")
    first.set_ylim(bottom=0)
    if first.get_legend_handles_labels()[0]:
        first.legend(fontsize=8)
    figure.savefig(path, dpi=120)


TRAINING_PANELS = {
    "loss, nats per token": ("train_loss", "val_loss", "val_loss_right_audio", "val_loss_other_audio"),
    "saved by the right audio, nats per token": ("val_listening",),
    "log-probability under CTC, nats per token": ("val_alignment",),
    "error rate": ("val_wer", "val_cer"),
}


def plot_training(path: str | Path | BinaryIO, curves: dict[str, dict[int, float]]) -> None:
    """Draw a training over its steps: losses, with the right audio and with another, listening, alignment, errors.

    Args:
        path: of the PNG, or an open file for it.
        curves: by name as they were logged, each value by step. Those of several validation sets, whose names have a
            prefix, are drawn beside each other; a panel of which nothing was logged is left out.
    """
    panels = {
        title: [name for name in sorted(curves) if name.endswith(logged)] for title, logged in TRAINING_PANELS.items()
    }
    panels = {title: names for title, names in panels.items() if names}
    figure = Figure(figsize=(4.2 * len(panels), 3.6), layout="constrained")
    for axes, (title, names) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for name in names:
            steps, values = zip(*curves[name].items(), strict=True)
            is_training = name == "train_loss"
            axes.plot(
                steps,
                values,
                label=name,
                marker=None if is_training else "o",
                markersize=3,
                alpha=0.4 + 0.6 * (not is_training),
            )
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("steps")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=120)


def plot_reliability(path: str | Path, curves: dict[str, list[tuple[float, float]]]) -> None:
    """Draw how often words of a confidence are right; the diagonal is how often they should be.

    Args:
        path: of the PNG.
        curves: by name pairs of confidence and share of right words.
    """
    figure = Figure(figsize=(4.5, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="black", linewidth=1, linestyle=":")
    for name, curve in curves.items():
        axes.plot(*zip(*curve, strict=True), marker="o", label=name)
    axes.set_xlabel("confidence")
    axes.set_ylabel("share of right words")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)


def plot_keyword_figures(
    path: str | Path, rows: list[dict[str, Any]], x: str = "size", label: str = "words in the list"
) -> None:
    """Draw WER, F, precision, recall and leakage in percent with 95 % intervals, over the size of keyword lists.

    Args:
        path: of the PNG.
        rows: each with ``condition``, ``size`` (None for a list of no set size, drawn as a level) and, for each
            figure, its value (or None), ``<figure>_low`` and ``<figure>_high``.
        x, label: another key of the rows in the place of ``size``, and its name on the axis.
    """
    names = ("wer", "f", "precision", "recall", "leakage")
    figure = Figure(figsize=(3.2 * len(names), 3.4), layout="constrained")
    values = list(dict.fromkeys(row[x] for row in rows if row[x] is not None))
    for axes, name in zip(figure.subplots(1, len(names)), names, strict=True):
        for number, condition in enumerate(dict.fromkeys(row["condition"] for row in rows)):
            shown = [row for row in rows if row["condition"] == condition and row[name] is not None]
            sized = [row for row in shown if row[x] is not None]
            for row in shown:
                if row[x] is None:
                    axes.axhline(100 * row[name], color=f"C{number}", linestyle="--", linewidth=1, label=condition)
            if sized:
                reach = [
                    [100 * (row[name] - row[f"{name}_low"]) for row in sized],
                    [100 * (row[f"{name}_high"] - row[name]) for row in sized],
                ]
                places = [values.index(row[x]) + 0.06 * (number % 2) for row in sized]
                axes.errorbar(
                    places,
                    [100 * row[name] for row in sized],
                    reach,
                    label=condition,
                    marker="o",
                    capsize=2,
                    color=f"C{number}",
                )
        axes.set_xticks(range(len(values)), values)
        axes.set_xlabel(label)
        axes.set_ylabel(f"{name.upper() if len(name) < 4 else name}, %")
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", alpha=0.3)
    figure.axes[names.index("f")].legend(fontsize=8)  # translations have no WER
    figure.savefig(path, dpi=120)


def plot_instructions(path: str | Path, report: InstructionReport) -> None:
    """Draw accuracy by skill and split, and beside it what was done for what was asked.

    Args:
        path: of the PNG.
        report: a bar of it is the strict accuracy with its 95 % interval, the mark in
            it the accuracy given the model's own transcript.
    """
    skills = list(report.skills)
    splits = list(report.confusion)
    height = 1.5 + 0.32 * len(skills)
    figure = Figure(figsize=(6 + 5 * len(splits), height), layout="constrained")
    bars, *maps = figure.subplots(1, 1 + len(splits), squeeze=False)[0]
    for number, split in enumerate(splits):
        by_skill = enumerate(report.skills.values())
        tried = [(place, by_split[split]) for place, by_split in by_skill if split in by_split]
        thick = 0.76 / len(splits)
        places = [place + thick * (number - (len(splits) - 1) / 2) for place, _ in tried]
        accuracy = [100 * figures.accuracy for _, figures in tried]
        intervals = [figures.accuracy_ci or [figures.accuracy] * 2 for _, figures in tried]
        reach = [
            [max(0.0, share - 100 * low) for share, (low, _) in zip(accuracy, intervals, strict=True)],
            [max(0.0, 100 * high - share) for share, (_, high) in zip(accuracy, intervals, strict=True)],
        ]
        bars.barh(places, accuracy, 0.95 * thick, xerr=reach, label=split, color=f"C{number}", alpha=0.7)
        given = [100 * figures.given_own_transcript.accuracy for _, figures in tried]
        label = "given own transcript" if number == 0 else None
        bars.plot(given, places, "D", color="white", markeredgecolor="black", markersize=4, clip_on=False, label=label)
    bars.set_yticks(range(len(skills)), skills)
    bars.invert_yaxis()
    bars.set_xlim(0, 100)
    bars.set_xlabel("accuracy, %")
    bars.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    for axes, split in zip(maps, splits, strict=True):
        asked = report.confusion[split]
        done = [*skills, *sorted({did for row in asked.values() for did in row} - set(skills))]
        shares = [[row.get(did, 0) / sum(row.values()) for did in done] for row in asked.values()]
        axes.imshow(shares, vmin=0, vmax=1, cmap="Blues", aspect="auto")
        axes.set_xticks(range(len(done)), done, rotation=90, fontsize=7)
        axes.set_yticks(range(len(asked)), list(asked), fontsize=7)
        axes.set_title(f"{split}: asked (row), nearest to (column)", fontsize=9)
    figure.savefig(path, dpi=120)

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

"""The main job on real speech: transcribe with the shipped SALM, fine-tune it on a manifest, transcribe again.

    make demo

English telephone prompts are fetched and split so that no test text is ever trained on. Every step runs in a process
of its own, with the commands a user would give; what is there already is not done again. The result is in
``runs/demo``.
"""

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from nemo_speechllm import assets
from nemo_speechllm.command_line import emit, run_apart, run_command
from nemo_speechllm.corpora.telephone_prompts import format_summary, prepare_prompts
from nemo_speechllm.evaluation.report import EvaluationReport, format_evaluation
from nemo_speechllm.evaluation.run import EvaluateArguments, arguments_of, evaluate
from nemo_speechllm.files import write_json
from nemo_speechllm.training.train import read_recipe, train

ROOT = Path(__file__).resolve().parent.parent
RECIPE = "salm/whisper_smollm2_finetune"
SHIPPED = "salm_whisper_smollm2"

T = TypeVar("T")


def run(command: list[str], function: Callable[..., T], *arguments: object) -> T:
    """Call what a command does in a process of its own, printing the command first; a failure ends the demo."""
    emit(f"\n$ python {' '.join(command)}")
    return run_apart([str(ROOT / command[0]), *command[1:]], function, *arguments)


def prepare(data: Path, packages_dir: Path | None) -> None:
    """Write manifests of the English prompts into ``data``, and print what there is."""
    packages = ["--packages-dir", str(packages_dir)] if packages_dir else []
    command = ["examples/data/prepare_prompts.py", "--out", str(data), "--langs", "en", *packages]
    rows, skipped = run(command, prepare_prompts, data, ["en"], packages_dir)
    emit(format_summary(rows, skipped, ["en"]))


def evaluate_model(model: str, manifest: Path, output_dir: Path) -> EvaluationReport:
    """Return figures of a model on a manifest; its predictions lie in ``output_dir/predictions.jsonl``."""
    arguments = {"model": model, "manifest": str(manifest), "output_dir": str(output_dir)}
    command = ["examples/evaluate.py", *(f"{key}={value}" for key, value in arguments.items())]
    report = run(command, evaluate, arguments_of(EvaluateArguments, arguments))
    emit(format_evaluation(report))
    return report


def fine_tune(data: Path, out: Path, steps: int) -> Path:
    """Train from the shipped checkpoint and return the ``.nemo`` file; a finished training is not repeated."""
    checkpoint = out / "salm_whisper_smollm2_finetune" / "checkpoints" / "salm_whisper_smollm2_finetune.nemo"
    if checkpoint.exists():
        emit(f"\n{checkpoint} is there: training is not repeated (delete {out} to start over)")
        return checkpoint
    changes = {
        "model.train_ds.manifest_filepath": str(data / "train_en.jsonl"),
        "model.validation_ds.manifest_filepath": str(data / "dev_en.jsonl"),
        "exp_manager.exp_dir": str(out),
        "trainer.max_steps": steps,
    }
    command = ["examples/train.py", f"--config-name={RECIPE}", *(f"{key}={value}" for key, value in changes.items())]
    run(command, train, read_recipe([ROOT / "conf"], RECIPE, changes))
    return checkpoint


def predictions(folder: Path) -> list[dict]:
    """Return the predictions that evaluate.py wrote into a folder."""
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def print_summary(report: dict, out: Path, checkpoint: Path) -> None:
    """Print the table of error rates, three examples, and where everything is."""
    emit(f"\nWER on {report['utterances']} held-out English prompts, whose texts were never trained on\n")
    rows = [
        ("SALM as shipped", report["wer_shipped"]),
        ("SALM fine-tuned", report["wer_finetuned"]),
        ("Whisper-base's own decoder", report["wer_whisper"]),
    ]
    for name, wer in rows:
        emit(f"  {name:28s} {100 * wer:6.1f} %")
    tables = [predictions(out / name) for name in ("shipped", "finetuned", "whisper")]
    longest = sorted(range(len(tables[0])), key=lambda i: -tables[0][i]["duration"])[:3]
    for index in longest:
        before, after, whisper = (table[index] for table in tables)
        emit(f"\n  said       {before['text']}\n  shipped    {before['pred_text']}")
        emit(f"  fine-tuned {after['pred_text']}\n  Whisper    {whisper['pred_text']}")
    emit(
        f"\nfine-tuned model   {checkpoint}\nlearning curves    tensorboard --logdir {out}\n"
        f"report             {out}/report.json"
    )
    emit(f"took {report['seconds']:.0f} s, at most {report['peak_memory_mib']:.0f} MiB in one process")
    emit(
        f"\nYour own manifest:\n  .venv/bin/python examples/train.py --config-name={RECIPE} \\\n"
        "      model.train_ds.manifest_filepath=train.jsonl model.validation_ds.manifest_filepath=dev.jsonl"
    )


def parse_arguments() -> argparse.Namespace:
    """Return where the demo works and for how long it trains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "demo", help="where everything is written")
    parser.add_argument("--data", type=Path, default=ROOT / "data" / "prompts", help="where the prompts are prepared")
    parser.add_argument("--packages-dir", type=Path, help="folder of .deb files, for machines without apt-get")
    parser.add_argument("--steps", type=int, default=250, help="of fine-tuning")
    return parser.parse_args()


def main() -> None:
    """Fetch speech, train on it, evaluate before and after, and print a summary."""
    arguments = parse_arguments()
    started, out, data = time.monotonic(), arguments.out.absolute(), arguments.data.absolute()
    for name in ("whisper-base", "smollm2-135m-instruct"):
        emit(f"{name}: {assets.resolve(name)}")
    prepare(data, arguments.packages_dir and arguments.packages_dir.absolute())
    os.chdir(ROOT)  # where the commands hold that are printed
    test = data / "test_en.jsonl"
    whisper = evaluate_model("whisper:whisper-base", test, out / "whisper")
    shipped = evaluate_model(SHIPPED, test, out / "shipped")
    checkpoint = fine_tune(data, out, arguments.steps)
    finetuned = evaluate_model(os.path.relpath(checkpoint, ROOT), test, out / "finetuned")
    report = {
        "wer_shipped": shipped.wer,
        "wer_finetuned": finetuned.wer,
        "wer_whisper": whisper.wer,
        "utterances": finetuned.utterances,
        "seconds": time.monotonic() - started,
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
    }
    write_json(out / "report.json", report)
    print_summary(report, out, checkpoint)


if __name__ == "__main__":
    run_command(main)

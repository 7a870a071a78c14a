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
import subprocess
import sys
import time
from pathlib import Path

from nemo_speechllm import assets
from nemo_speechllm.command_line import emit, run_command
from nemo_speechllm.files import write_json

ROOT = Path(__file__).resolve().parent.parent
RECIPE = "salm/whisper_smollm2_finetune"
SHIPPED = "salm_whisper_smollm2"


def run(*command: str) -> None:
    """Run one of the example scripts, printing the command first; its failure ends the demo."""
    emit(f"\n$ python {' '.join(command)}")
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)


def evaluate(model: str, manifest: Path, output_dir: Path) -> dict:
    """Return metrics of a model on a manifest; its predictions lie in ``output_dir/predictions.jsonl``."""
    run("examples/evaluate.py", f"model={model}", f"manifest={manifest}", f"output_dir={output_dir}")
    return json.loads((output_dir / "metrics.json").read_text())


def fine_tune(data: Path, out: Path, steps: int) -> Path:
    """Train from the shipped checkpoint and return the ``.nemo`` file; a finished training is not repeated."""
    checkpoint = out / "salm_whisper_smollm2_finetune" / "checkpoints" / "salm_whisper_smollm2_finetune.nemo"
    if checkpoint.exists():
        emit(f"\n{checkpoint} is there: training is not repeated (delete {out} to start over)")
        return checkpoint
    run(
        "examples/train.py",
        f"--config-name={RECIPE}",
        f"model.train_ds.manifest_filepath={data / 'train_en.jsonl'}",
        f"model.validation_ds.manifest_filepath={data / 'dev_en.jsonl'}",
        f"exp_manager.exp_dir={out}",
        f"trainer.max_steps={steps}",
    )
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
    packages = ["--packages-dir", str(arguments.packages_dir)] if arguments.packages_dir else []
    run("examples/data/prepare_prompts.py", "--out", str(data), "--langs", "en", *packages)
    test = data / "test_en.jsonl"
    whisper = evaluate("whisper:whisper-base", test, out / "whisper")
    shipped = evaluate(SHIPPED, test, out / "shipped")
    checkpoint = fine_tune(data, out, arguments.steps)
    finetuned = evaluate(os.path.relpath(checkpoint, ROOT), test, out / "finetuned")
    report = {
        "wer_shipped": shipped["wer"],
        "wer_finetuned": finetuned["wer"],
        "wer_whisper": whisper["wer"],
        "utterances": finetuned["utterances"],
        "seconds": time.monotonic() - started,
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
    }
    write_json(out / "report.json", report)
    print_summary(report, out, checkpoint)


if __name__ == "__main__":
    run_command(main)

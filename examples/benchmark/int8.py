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

"""What do weights of 8 bits cost and save? Error rate, time and memory beside those of the model that only answers.

    python examples/benchmark/int8.py salm_whisper_smollm2 data/prompts/test_en.jsonl --output runs/benchmark/int8.json

Both transcribe the manifest in turn, ``--rounds`` times; times are medians of the processor's seconds, ratios are
paired within a round. Memory is that of all weights, those of its pretrained parts among them.
"""

import argparse
import statistics
import time

import torch

from nemo_speechllm.command_line import emit, run_command
from nemo_speechllm.evaluation.tables import markdown_table
from nemo_speechllm.files import write_json
from nemo_speechllm.manifests.manifest import read_manifest
from nemo_speechllm.metrics.error_rate import error_rate
from nemo_speechllm.models import load_model
from nemo_speechllm.models.loading import INT8


def weights_mib(model: torch.nn.Module) -> float:
    """Return the memory that a model's parameters and buffers take, each counted once."""
    tensors = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}.values()
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 2**20


def main() -> None:
    """Measure, print a table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="of which both are made")
    parser.add_argument("manifest", help="what is transcribed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--normalizer", default="basic")
    parser.add_argument("--output", help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = read_manifest(arguments.manifest, locate_audio=True)
    models = {name: load_model(name, answers_only=True) for name in (arguments.model, f"{INT8}{arguments.model}")}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    texts: dict[str, list[str]] = {}
    for model in models.values():  # a warm-up
        model.transcribe(rows[:2], batch_size=arguments.batch_size, verbose=False)
    for _ in range(arguments.rounds):
        for name, model in models.items():
            started = time.process_time()
            texts[name] = model.transcribe(rows, batch_size=arguments.batch_size, verbose=False)
            seconds[name].append(time.process_time() - started)
    said = [row["text"] for row in rows]
    result = {
        name: {
            "wer": error_rate(texts[name], said, normalize=arguments.normalizer),
            "seconds": statistics.median(seconds[name]),
            "weights_mib": weights_mib(model),
        }
        for name, model in models.items()
    }
    ratio = statistics.median(exact / rounded for exact, rounded in zip(*seconds.values(), strict=True))
    lines = [
        [name, f"{100 * of_one['wer']:.1f}", f"{of_one['seconds']:.1f}", f"{of_one['weights_mib']:.0f}"]
        for name, of_one in result.items()
    ]
    emit(markdown_table(["model", "WER, %", "seconds", "weights, MiB"], lines))
    emit(f"times as fast: {ratio:.2f}; recordings: {len(rows)}, {sum(row['duration'] for row in rows):.0f} s")
    if arguments.output:
        write_json(arguments.output, {"models": result, "times_as_fast": ratio, "recordings": len(rows)})


if __name__ == "__main__":
    run_command(main)

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

"""Time and memory of a training step: NeMo's SALM, and that of this package with padded, packed, checkpointed rows.

    python examples/benchmark/training_step.py --output runs/benchmark/training_step.json
    python examples/benchmark/training_step.py --seconds 1 7 13 20 --output runs/benchmark/training_step_mixed.json
    python examples/benchmark/training_step.py --device cuda --dtype bfloat16 --llm LLAMA_FOLDER --random \\
        --seconds 1 7 13 20 1 7 13 20 --output runs/benchmark/training_step_cuda.json

All have the same weights, recordings and tokens, and take a step of AdamW in turn, ``--rounds`` times after one that
is not counted. The figures are medians; memory is what a step takes over weights and optimiser states. A step's
floating-point operations are counted, and told as a share of what a large matrix product reaches on the machine.
"""

import argparse
import statistics
import warnings
from collections.abc import Callable

import torch
from speech_llms import (
    Cost,
    add_sizes,
    batch_of,
    build_nemos,
    build_ours,
    conversations,
    cost,
    flops,
    nemos_batch,
    peak_flops,
    trained,
)
from torch import Tensor, nn

from nemo_speechllm.command_line import emit, run_command
from nemo_speechllm.files import write_json
from nemo_speechllm.modules.llm import checkpoint_activations
from nemo_speechllm.modules.packing import ROW_ATTENTION


def step_of(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    """Return an optimisation step of what trains in a model."""
    optimizer = torch.optim.AdamW(trained(model), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


def contestants(sizes: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """Return a training step of each, by name."""
    ours = build_ours(sizes).train()
    theirs = build_nemos(ours, sizes).train()
    batch = batch_of(ours, conversations(ours, sizes))
    nemos = nemos_batch(ours, batch, theirs)
    step = step_of(ours, lambda: ours.training_step(batch, 0)["loss"])

    def ours_with(attention: str, checkpoints: bool = False) -> None:
        ours.llm.set_attn_implementation(attention)
        ours.llm.activation_checkpointing_disable()
        if checkpoints:
            checkpoint_activations(ours.llm)
        step()

    return {
        "nemo": step_of(theirs, lambda: theirs.training_step(nemos, 0)["loss"]),
        "padded": lambda: ours_with("sdpa"),
        "packed": lambda: ours_with(ROW_ATTENTION),
        "checkpointed": lambda: ours_with(ROW_ATTENTION, checkpoints=True),
    }


def main() -> None:
    """Measure each and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llm", default="smollm2-135m-instruct", help="asset name, folder or hub id")
    parser.add_argument("--random", action="store_true", help="give the LLM random weights: its config.json is enough")
    parser.add_argument("--rounds", type=int, default=5)
    add_sizes(parser)
    sizes = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*trainer.*")  # there is none to log to
    torch.set_num_threads(sizes.threads)
    steps = contestants(sizes)
    counts = {name: flops(step) for name, step in steps.items()}
    rounds: list[dict[str, Cost]] = [
        {name: cost(step, sizes.device) for name, step in steps.items()} for _ in range(sizes.rounds)
    ]
    peak = peak_flops(sizes.device, sizes.dtype)
    report = {}
    for name, count in counts.items():
        seconds = statistics.median(of_round[name].seconds for of_round in rounds)
        mib = statistics.median(of_round[name].mib for of_round in rounds)
        ratio = statistics.median(r["nemo"].seconds / r[name].seconds for r in rounds)
        share = count / seconds / peak
        report[name] = {"seconds": seconds, "times_faster_than_nemo": ratio, "mib": mib}
        report[name] |= {"gflop": count / 1e9, "share_of_peak": share}
        emit(
            f"{name:12s} {seconds:7.3f} s {ratio:6.2f} × {mib:7.0f} MiB {count / 1e9:7.0f} GFLOP {share:6.1%} of peak"
        )
    sizes.output.parent.mkdir(parents=True, exist_ok=True)
    arguments = {name: value for name, value in vars(sizes).items() if name != "output"}
    write_json(sizes.output, {"arguments": arguments, "peak_gflops": peak / 1e9, "steps": report})


if __name__ == "__main__":
    run_command(main)

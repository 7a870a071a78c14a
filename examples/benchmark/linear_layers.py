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

"""Time of linear layers of float32: PyTorch's own, by oneDNN, and by oneDNN with weights that are laid out once.

    OMP_NUM_THREADS=1 python examples/benchmark/linear_layers.py --output runs/benchmark/linear_layers.json

For each size as many layers as a cache of the processor does not hold are called in turn. The figures are medians of
microseconds a call and, for 160 positions and more, a training's three products (forward, and the gradients of input
and weights). ``is_faster`` tells what this package does on this machine.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path

import torch
from torch import Tensor, nn

from nemo_speechllm.command_line import emit, run_command
from nemo_speechllm.files import write_json
from nemo_speechllm.modules.linear import OneDNNLinear, PackedLinear, is_faster

UNCACHED_BYTES = 200e6
TRAINED_FROM = 160  # positions


def layers(kind: type[nn.Linear], inputs: int, outputs: int) -> list[nn.Linear]:
    """Return layers of a kind, together larger than a cache."""
    made = []
    for _ in range(max(2, int(UNCACHED_BYTES / (4 * inputs * outputs)))):
        layer = nn.Linear(inputs, outputs, bias=False)
        if kind is PackedLinear:
            PackedLinear.pack(layer)
        layer.__class__ = kind
        made.append(layer)
    return made


def microseconds(calls: Sequence[Callable[[], object]], rounds: int = 40) -> float:
    """Return the median time of calls that take turns."""
    times, turn = [], cycle(calls)
    for _ in range(rounds):
        started = time.process_time()
        next(turn)()
        times.append(1e6 * (time.process_time() - started))
    return statistics.median(times[5:])


def training(layer: nn.Linear, given: Tensor) -> None:
    """Take a layer's products forward and backward."""
    layer(given.requires_grad_()).backward(torch.ones(len(given), layer.out_features))


def main() -> None:
    """Measure each size and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[576, 576, 576, 1536, 1536, 576], help="in, out, …")
    parser.add_argument("--positions", type=int, nargs="+", default=[1, 4, 16, 48, 160, 1000])
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for inputs, outputs in zip(arguments.sizes[::2], arguments.sizes[1::2], strict=True):
        made = {kind.__name__: layers(kind, inputs, outputs) for kind in (nn.Linear, OneDNNLinear, PackedLinear)}
        for positions in arguments.positions:
            given, row = torch.randn(positions, inputs), {"in": inputs, "out": outputs, "positions": positions}
            with torch.inference_mode():
                row |= {name: microseconds([partial(layer, given) for layer in of]) for name, of in made.items()}
            for name in ("Linear", "OneDNNLinear") if positions >= TRAINED_FROM else ():
                calls = [partial(training, layer, given) for layer in made[name]]
                row[f"{name}, training"] = microseconds(calls)
            rows.append(row)
            emit("  ".join(f"{name} {value:.0f}" for name, value in row.items()))
    emit(f"is_faster: {is_faster()}")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.output, {"is_faster": is_faster(), "rows": rows})


if __name__ == "__main__":
    run_command(main)

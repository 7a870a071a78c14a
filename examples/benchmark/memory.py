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

"""Memory of a training step and of decoding, by the LLM's size and the recipe.

    python examples/benchmark/memory.py --output runs/benchmark/memory.json
    python examples/benchmark/memory.py --sizes 1.7B --recipes lora --seconds 20 20 --output runs/memory.json

Each row has a process of its own, and an LLM of random weights: only its tokenizer is fetched. Memory is the most that
the process holds over what it held before the model was made. A training step is one of AdamW that has its states
already; decoding is greedy search of the same batch.
"""

import argparse
import json
import warnings
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from speech_llms import MIB, add_sizes, batch_of, build_ours, conversations, memory, trained

from nemo_speechllm import assets
from nemo_speechllm.command_line import emit, run_apart, run_command
from nemo_speechllm.data.dataset import ConversationBatch
from nemo_speechllm.evaluation.tables import markdown_table
from nemo_speechllm.files import write_json
from nemo_speechllm.models import SALM
from nemo_speechllm.modules.llm import checkpoint_activations


def sizes_of(layers: int, heads: int, kv_heads: int, width: int, inner_width: int) -> dict[str, int]:
    """Return the settings of an LLM's config.json that say how large it is."""
    numbers = {"num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads}
    return numbers | {"hidden_size": width, "intermediate_size": inner_width}


SMOLLM2, QWEN2 = "smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct"
# the asset that gives tokenizer and config.json, and what differs in the latter
LLMS: dict[str, tuple[str, dict[str, int]]] = {
    "135M": (SMOLLM2, {}),
    "360M": (SMOLLM2, sizes_of(layers=32, heads=15, kv_heads=5, width=960, inner_width=2560)),
    "0.5B": (QWEN2, {"tie_word_embeddings": True}),
    "1.7B": (SMOLLM2, sizes_of(layers=24, heads=32, kv_heads=32, width=2048, inner_width=8192)),
}
# what differs from LoRA in float32
RECIPES: dict[str, dict] = {
    "frozen": {"lora_rank": 0},
    "lora": {},
    "lora_checkpointed": {"checkpointed": True},
    "lora_checkpointed_bfloat16": {"checkpointed": True, "dtype": "bfloat16"},
    "whole": {"lora_rank": 0, "whole": True},
}
NEW_TOKENS = 8  # the most is held while prompts are read


def llm_folder(size: str, folder: Path) -> Path:
    """Make a folder of an LLM of such a size, without weights, and return it."""
    asset, changes = LLMS[size]
    for file in assets.resolve(asset).iterdir():
        if file.suffix != ".safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    write_json(folder / "config.json", config | changes)
    return folder


def build(row: argparse.Namespace) -> SALM:
    """Return the model of a row."""
    model = build_ours(row)
    if row.whole:
        model.llm.requires_grad_(True)
    if row.checkpointed:
        checkpoint_activations(model.llm)
    return model


def train_a_step(model: SALM, batch: ConversationBatch) -> int:
    """Return the most bytes held during a step of an optimiser that has its states already."""
    optimizer = torch.optim.AdamW(trained(model))
    for parameter in trained(model):
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    memory(str(model.device), reset=True)
    model.training_step(batch, 0)["loss"].backward()
    optimizer.step()
    return memory(str(model.device), reset=False)


def measured(row: argparse.Namespace) -> dict[str, float]:
    """Return what a process holds at first, and over that the model, decoding and a training step, in MiB."""
    warnings.filterwarnings("ignore", message=".*trainer.*")  # there is none to log to
    torch.set_num_threads(row.threads)
    process = memory(row.device, reset=True)
    model = build(row)
    batch = batch_of(model, conversations(model, row))
    held = {"model": memory(row.device, reset=True)}
    model.eval().answering.answer_batch(batch, max_new_tokens=NEW_TOKENS, beam_size=1)
    held["decoding"] = memory(row.device, reset=False)
    held["training"] = train_a_step(model.train(), batch)
    millions = sum(parameter.numel() for parameter in trained(model)) / 1e6
    over = {name: (value - process) / MIB for name, value in held.items()}
    return {"trained_millions": millions, "process": process / MIB} | over


def main() -> None:
    """Measure each row, print a table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=LLMS, default=["135M", "360M", "0.5B"])
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    add_sizes(parser)
    arguments = parser.parse_args()
    plain = {"random": True, "checkpointed": False, "whole": False}
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for size, recipe in product(arguments.sizes, arguments.recipes):
        with TemporaryDirectory() as folder:
            changes = {"llm": str(llm_folder(size, Path(folder)))} | plain | RECIPES[recipe]
            row = argparse.Namespace(**vars(arguments) | changes)
            found = run_apart(["memory.py", size, recipe], measured, row)
        figures.setdefault(size, {})[recipe] = found
        emit(f"{size} {recipe} " + " ".join(f"{name} {value:.0f}" for name, value in found.items()))
    names = ["trained_millions", "model", "decoding", "training"]
    rows = [
        [size, recipe, *(f"{found[name]:.0f}" for name in names)]
        for size, of_size in figures.items()
        for recipe, found in of_size.items()
    ]
    emit(markdown_table(["LLM", "recipe", "trained, millions", "model, MiB", "decoding", "training step"], rows))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    given = {name: value for name, value in vars(arguments).items() if name != "output"}
    write_json(arguments.output, {"arguments": given, "figures": figures})


if __name__ == "__main__":
    run_command(main)

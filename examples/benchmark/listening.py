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

"""Does a checkpoint listen? Its validation figures of listening on a manifest, and what they cost.

    python examples/benchmark/listening.py salm_whisper_smollm2 prompts/test_en.jsonl --limit 16

The last line compares processor times: of the second reading of all answers, beside another's audio, and of the rest
of a validation that generates.
"""

import argparse
import time

import torch

from nemo_speechllm.command_line import emit, run_command
from nemo_speechllm.data.conversation import Audio, Conversation
from nemo_speechllm.data.dataset import ConversationDataset, in_batches
from nemo_speechllm.manifests.manifest import read_manifest
from nemo_speechllm.manifests.rows import answer_of
from nemo_speechllm.metrics.listening import ListeningTally
from nemo_speechllm.models import load_model
from nemo_speechllm.models.answers import generation_options
from nemo_speechllm.models.listening import count_listening
from nemo_speechllm.models.speech_lm import SpeechLM


def lessons(model: SpeechLM, rows: list[dict]) -> list[Conversation]:
    """Return rows as conversations with their answers."""
    return [
        model.builder.conversation(Audio.from_row(row), row, f"row {number}", answer_of(row))
        for number, row in enumerate(rows, 1)
    ]


@torch.inference_mode()
def measure(
    model: SpeechLM, conversations: list[Conversation], batch_size: int
) -> tuple[ListeningTally, float, float]:
    """Return what was counted, and seconds for it and for the rest of a validation."""
    collate, tally, seconds = ConversationDataset(model.builder).collate, ListeningTally(), [0.0, 0.0]
    for items in in_batches(conversations, batch_size):
        batch = collate(items).to(model.device)
        start = time.process_time()
        perceived = model.perceive(batch)
        model.loss(batch, perceived)
        model.answering.generate(batch, perceived, **generation_options(model.cfg.generation))
        middle = time.process_time()
        count_listening(model, tally, batch, perceived)
        seconds[0] += time.process_time() - middle
        seconds[1] += middle - start
    return tally, *seconds


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="name of a shipped checkpoint, a .nemo file or a hub id")
    parser.add_argument("manifest")
    parser.add_argument("--limit", type=int, help="so many lines, spread over the manifest (default: all)")
    parser.add_argument("--batch-size", type=int, default=8)
    arguments = parser.parse_args()
    rows = read_manifest(arguments.manifest, locate_audio=True)
    rows = rows[:: max(1, len(rows) // (arguments.limit or len(rows)))][: arguments.limit]
    model = load_model(arguments.model)
    tally, listening, rest = measure(model, lessons(model, rows), arguments.batch_size)
    emit(*(f"{name:18}{value:8.3f}" for name, value in tally.figures().items()))
    emit(f"{tally.answers} answers compared, {tally.left_out} left out, {'deaf' if tally.is_deaf else 'not deaf'}")
    emit(f"{listening:.1f} s beside {rest:.1f} s of the rest of a validation")


if __name__ == "__main__":
    run_command(main)

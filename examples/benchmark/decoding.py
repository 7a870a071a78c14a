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
"""Time of decoding real recordings: Hugging Face's search, that over packed rows, CTC's drafts, and merged LoRA.

    python examples/benchmark/decoding.py salm_whisper_smollm2 test_en.jsonl --output runs/benchmark/decoding_salm.json
    python examples/benchmark/decoding.py ctc_prompted_smollm2 test_en.jsonl test_fr.jsonl --ctc-weight 0 \
        --output runs/benchmark/decoding_ctc_prompted.json
    python examples/benchmark/decoding.py salm_whisper_smollm2 test_en.jsonl --settings drafted drafted_merged \
        --output runs/benchmark/decoding_merged.json

Hugging Face's is what NeMo's SALM calls, with PyTorch's own linear layers. All read the same embeddings of a batch in
turn; recordings are encoded before, and that is not counted. Tokens that differ from those of the first setting are
told with their recording. A ratio of times is to the first setting's, the median over batches. With one thread of a
CPU seconds are the processor's, which other processes do not count in.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from nemo_speechllm.command_line import emit, run_command
from nemo_speechllm.data.conversation import Audio
from nemo_speechllm.data.dataset import ConversationDataset, in_batches
from nemo_speechllm.files import write_json
from nemo_speechllm.manifests.manifest import read_manifest
from nemo_speechllm.models import load_model
from nemo_speechllm.models.speech_lm import SpeechLM
from nemo_speechllm.modules.packing import ROW_ATTENTION


@dataclass(frozen=True)
class Setting:
    """How a batch is decoded.

    Attributes:
        attention: of the LLM.
        draft: ``generation.draft``.
        onednn: whether oneDNN may multiply, as in this package's models; NeMo's have PyTorch's own linear layers.
        merged: whether the model is one that only answers.
    """

    attention: str = ROW_ATTENTION
    draft: str | None = None
    onednn: bool = True
    merged: bool = False


SETTINGS = {
    "hugging_face": Setting("sdpa", onednn=False),
    "packed": Setting(),
    "packed_merged": Setting(merged=True),
    "drafted": Setting(draft="ctc"),
    "drafted_merged": Setting(draft="ctc", merged=True),
}


@contextmanager
def counted_passes(model: SpeechLM) -> Iterator[list[int]]:
    """Count the passes of the LLM."""
    passes: list[int] = []
    handle = model.llm.register_forward_pre_hook(lambda *_: passes.append(1))
    yield passes
    handle.remove()


def decode(model: SpeechLM, setting: Setting, batch, perceived, clock: Callable[[], float]) -> dict:
    """Return the answers of a batch, the seconds they took and the passes of the LLM."""
    model.cfg.generation.draft = setting.draft
    model.llm.set_attn_implementation(setting.attention)
    with torch.backends.mkldnn.flags(enabled=setting.onednn), counted_passes(model) as passes:
        started = clock()
        answers = model.generate_answers(batch, perceived, model.cfg.generation.max_new_tokens, beam_size=1)
        seconds = clock() - started
    return {"ids": [answer.ids for answer in answers], "seconds": seconds, "passes": len(passes)}


def differences(ids: list[int], expected: list[int]) -> int:
    """Return how many places of two answers differ."""
    return abs(len(ids) - len(expected)) + sum(a != b for a, b in zip(ids, expected, strict=False))


def main() -> None:
    """Decode the recordings by each setting and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("manifests", type=Path, nargs="+")
    parser.add_argument("--ctc-weight", type=float, help="generation.ctc_weight; left out: the model's own")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--limit", type=int, help="recordings of each manifest; left out: all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    clock = time.process_time if (arguments.threads, arguments.device) == (1, "cpu") else time.perf_counter
    settings = {name: SETTINGS[name] for name in arguments.settings}
    models = {
        merged: load_model(arguments.model, answers_only=merged).to(arguments.device)
        for merged in sorted({setting.merged for setting in settings.values()})
    }
    model, first = next(iter(models.values())), arguments.settings[0]
    if arguments.ctc_weight is not None:
        for each in models.values():
            each.cfg.generation.ctc_weight = arguments.ctc_weight
    rows = [row for path in arguments.manifests for row in read_manifest(path, locate_audio=True)[: arguments.limit]]
    asked = [model.builder.conversation(Audio.from_row(row), row, row["audio_filepath"]) for row in rows]
    collate, batches, different = ConversationDataset(model.builder).collate, [], []
    with torch.inference_mode():
        for items in tqdm([*in_batches(asked, arguments.batch_size)]):
            batch = collate(items).to(model.device)
            perceived = model.perceive(batch)
            model.ctc_log_probs(perceived)
            done = {
                name: decode(models[setting.merged], setting, batch, perceived, clock)
                for name, setting in settings.items()
            }
            batches.append(done)
            for place, item in enumerate(items):
                expected = done[first]["ids"][place]
                for setting in settings:
                    if count := differences(done[setting]["ids"][place], expected):
                        different.append({"recording": item.id, "setting": setting, "tokens": count})
    report = {}
    for setting in settings:
        tokens = sum(len(ids) + 1 for done in batches for ids in done[setting]["ids"])
        seconds = sum(done[setting]["seconds"] for done in batches)
        figures = {
            "tokens_per_second": tokens / seconds,
            "times_faster": statistics.median(d[first]["seconds"] / d[setting]["seconds"] for d in batches),
            "passes": sum(done[setting]["passes"] for done in batches),
            "tokens": tokens,
            "different_tokens": sum(item["tokens"] for item in different if item["setting"] == setting),
        }
        report[setting] = figures
        emit(setting + " " + " ".join(f"{name} {value:.4g}" for name, value in figures.items()))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    made_by = {"model": arguments.model, "ctc_weight": model.cfg.generation.ctc_weight, "recordings": len(rows)}
    made_by |= {"batch_size": arguments.batch_size, "threads": arguments.threads, "device": arguments.device}
    write_json(arguments.output, made_by | {"settings": report, "different": different})


if __name__ == "__main__":
    run_command(main)

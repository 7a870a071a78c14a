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

"""Memory, time and errors of long recordings, made of a manifest's, against those of the same one by one.

    python examples/benchmark/long_form.py salm_whisper_smollm2 test_en.jsonl --decoder ctc \\
        --output runs/benchmark/long_form.json
    python examples/benchmark/long_form.py salm_whisper_smollm2 test_en.jsonl --minutes 1 3 --in-turn 3 \\
        --output runs/benchmark/long_form_llm.json

The manifest's recordings follow one another, again and again, until they last as long as is asked for. Memory is the
peak of a process, its model included; each length has a process of its own. Then one of ``--in-turn`` minutes and the
recordings that it was made of are transcribed in one process, a batch of each in turn, so that other work slows both
alike.
"""

import argparse
import gc
import time
from collections.abc import Iterable, Iterator
from itertools import cycle, zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory

import soundfile
import torch
from speech_llms import MIB, memory
from tqdm import tqdm

from nemo_speechllm.command_line import emit, run_apart, run_command
from nemo_speechllm.data.conversation import SAMPLE_RATE, Audio
from nemo_speechllm.files import write_json
from nemo_speechllm.manifests.manifest import read_manifest
from nemo_speechllm.metrics.error_rate import error_rate
from nemo_speechllm.models import load_model
from nemo_speechllm.models.transcription import SpeechLMTranscribeConfig


def concatenated(rows: list[dict], seconds: float, path: Path) -> list[dict]:
    """Write a recording of the rows', in order and again, that lasts ``seconds`` at least; return the rows in it."""
    taken: list[dict] = []
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, "PCM_16") as file:
        for row in cycle(rows):
            if file.frames >= seconds * SAMPLE_RATE:
                return taken
            file.write(Audio.from_row(row).load().numpy())
            taken.append(row)
    raise AssertionError("the rows come again and again")


def settings_of(arguments: argparse.Namespace) -> SpeechLMTranscribeConfig:
    """Return the settings of both forms."""
    return SpeechLMTranscribeConfig(
        batch_size=arguments.batch_size, decoder=arguments.decoder, verbose=False, return_hypotheses=True
    )


def memory_of(arguments: argparse.Namespace, path: str) -> tuple[float, float]:
    """Return the MiB that a process with the model holds, and the most while it transcribes a recording."""
    torch.set_num_threads(arguments.threads)
    model = load_model(arguments.model).to(arguments.device)
    gc.collect()
    before = memory(arguments.device, reset=True)
    model.transcribe(path, override_config=settings_of(arguments))
    return before / MIB, memory(arguments.device, reset=False) / MIB


def timed(batches: Iterable[list]) -> Iterator[tuple[float, list]]:
    """Yield each batch with the seconds that it took."""
    batches = iter(batches)
    while True:
        started = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        yield time.perf_counter() - started, batch


def in_turn(model, path: Path, rows: list[dict], settings: SpeechLMTranscribeConfig) -> dict[str, dict]:
    """Transcribe a recording and those it was made of, a batch of each in turn; return seconds and texts of both."""
    forms = {"long": str(path), "short": rows}
    found: dict[str, dict] = {name: {"seconds": 0.0, "texts": []} for name in forms}
    turns = zip_longest(*(timed(model.transcribe_generator(given, settings)) for given in forms.values()))
    for turn in tqdm(turns, unit="batch"):
        for name, done in zip(forms, turn, strict=True):
            if done is not None:
                found[name]["seconds"] += done[0]
                found[name]["texts"] += [item.text for item in done[1]]
    return found


def main() -> None:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--minutes", type=float, nargs="+", default=[1.0, 60.0], help="whose memory is compared")
    parser.add_argument("--in-turn", type=float, default=60.0, help="minutes that are compared with short recordings")
    parser.add_argument("--decoder", help="llm or ctc; left out: the model's own")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()

    rows = read_manifest(arguments.manifest, locate_audio=True)
    report: dict = {"memory_mib": {}, "over_the_model_mib": {}}
    with TemporaryDirectory() as folder:
        for minutes in arguments.minutes:
            path = Path(folder) / f"{minutes:g}.wav"
            concatenated(rows, 60 * minutes, path)
            held, peak = run_apart(["long_form.py", str(path)], memory_of, arguments, str(path))
            report["memory_mib"][f"{minutes:g}"], report["over_the_model_mib"][f"{minutes:g}"] = peak, peak - held
            emit(f"{minutes:g} minutes: {peak:.0f} MiB, {peak - held:.0f} of it over the model")
        torch.set_num_threads(arguments.threads)
        model = load_model(arguments.model).to(arguments.device)
        path = Path(folder) / "in_turn.wav"
        taken = concatenated(rows, 60 * arguments.in_turn, path)
        found = in_turn(model, path, taken, settings_of(arguments))
    for name in ("memory", "over_the_model"):
        figures = list(report[f"{name}_mib"].values())
        report[f"{name}_ratio"] = figures[-1] / figures[0]
    report["rtfx_ratio"] = found["short"]["seconds"] / found["long"]["seconds"]
    reference = " ".join(row["text"] for row in taken)
    normalize = model.cfg.normalizer
    texts = {name: " ".join(form["texts"]) for name, form in found.items()}
    report["wer"] = {name: error_rate([text], [reference], normalize=normalize) for name, text in texts.items()}
    report["wer_ratio"] = report["wer"]["long"] / report["wer"]["short"]
    for name in ("memory_ratio", "over_the_model_ratio", "rtfx_ratio", "wer", "wer_ratio"):
        emit(f"{name}: {report[name]}")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    given = {name: value for name, value in vars(arguments).items() if name not in ("output", "manifest")}
    write_json(arguments.output, {"arguments": given | {"manifest": arguments.manifest.name}} | report)


if __name__ == "__main__":
    run_command(main)

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

"""Time and memory of Whisper's encoder: Hugging Face's, ours in the 30 s window, ours trimmed, and cached states.

    python examples/benchmark/whisper_encoder.py test.jsonl --output runs/benchmark/whisper_encoder.json
    python examples/benchmark/whisper_encoder.py test.jsonl --taps 1 3 5 --output runs/benchmark/whisper_taps.json

Each setting runs in a process of its own, settings in turn within every round, clip by clip on ``--threads`` threads.
The figures are medians over the rounds; memory is the process's peak. With ``--model`` the word error rate of a SALM
with either window is added. ``--taps`` has ours give the states of these layers, as DeSTA2 reads them; Hugging Face's
gives the last one's.
"""

import argparse
import multiprocessing
import resource
import statistics
import tempfile
import time
from pathlib import Path

import torch
from omegaconf import OmegaConf
from tqdm import tqdm

from nemo_speechllm import assets
from nemo_speechllm.command_line import emit, run_command
from nemo_speechllm.data.conversation import Audio
from nemo_speechllm.files import write_json
from nemo_speechllm.manifests.manifest import read_manifest
from nemo_speechllm.metrics.error_rate import error_rate

SETTINGS = ("hugging_face", "window", "trimmed", "cached")


def encoder_of(setting: str, reference: str, cache: Path, taps: list[int] | None):
    """Return a function from samples (T,) to states."""
    from nemo_speechllm.modules.encoders import build_encoder
    from nemo_speechllm.modules.state_cache import CachedEncoder

    if setting == "hugging_face":
        from transformers import WhisperFeatureExtractor, WhisperModel

        folder = assets.resolve(reference)
        model = WhisperModel.from_pretrained(folder).encoder.eval()
        features = WhisperFeatureExtractor.from_pretrained(folder)
        return lambda s: model(features(s.numpy(), sampling_rate=16000, return_tensors="pt").input_features)
    section = OmegaConf.create({"type": "whisper", "pretrained": reference, "trim": setting != "window", "taps": taps})
    encoder = build_encoder(section).eval().requires_grad_(False)
    if setting == "cached":
        encoder = CachedEncoder(encoder, cache)
    return lambda s: encoder(s[None], torch.tensor([len(s)]))


@torch.inference_mode()
def measure(
    setting: str, paths: list[str], reference: str, threads: int, cache: str, taps: list[int] | None
) -> dict[str, float]:
    """Return seconds for all clips after one warm-up pass over the first of them (over all of them for the cache)."""
    torch.set_num_threads(threads)
    clips = [Audio.from_file(path).load() for path in paths]
    encode = encoder_of(setting, reference, Path(cache), taps)
    for clip in clips if setting == "cached" else clips[:2]:
        encode(clip)
    started = time.perf_counter()
    for clip in clips:
        encode(clip)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def word_error_rates(name: str, rows: list[dict]) -> dict[str, float]:
    """Return the WER of a SALM when its Whisper encoder is trimmed and when it sees the 30 s window."""
    from nemo_speechllm.models import load_model

    model = load_model(name)
    conversations = [
        model.builder.conversation(Audio.from_file(row["audio_filepath"]), row, row["audio_filepath"]) for row in rows
    ]
    rates = {}
    for setting, trim in (("trimmed", True), ("window", False)):
        model.perception.encoder.trim = trim
        answers = [answer.text for answer in model.generate(conversations)]
        rates[setting] = error_rate(answers, [row["text"] for row in rows])
    return rates


def main() -> None:
    """Measure each setting and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--encoder", default="whisper-base", help="asset name, folder or hub id")
    parser.add_argument("--model", help="a SALM with a Whisper encoder")
    parser.add_argument("--taps", type=int, nargs="+", help="layers, from 0")
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()

    rows = read_manifest(arguments.manifest, locate_audio=True)
    paths = [row["audio_filepath"] for row in rows[: arguments.clips]]
    runs: dict[str, list[dict]] = {setting: [] for setting in SETTINGS}
    with tempfile.TemporaryDirectory() as cache, tqdm(total=arguments.rounds * len(SETTINGS)) as progress:
        for _ in range(arguments.rounds):
            for setting in SETTINGS:
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    task = (setting, paths, arguments.encoder, arguments.threads, cache, arguments.taps)
                    runs[setting].append(pool.apply(measure, task))
                progress.update()

    medians = {s: {key: statistics.median(run[key] for run in runs[s]) for key in runs[s][0]} for s in SETTINGS}
    reference = medians["hugging_face"]["seconds"]
    for setting, figures in medians.items():
        figures["speedup"] = reference / figures["seconds"]
        emit(
            f"{setting:14s} {1000 * figures['seconds'] / len(paths):8.1f} ms a clip  {figures['speedup']:7.2f} × "
            f"{figures['peak_mib']:8.0f} MiB"
        )
    report = {"clips": len(paths), "threads": arguments.threads, "rounds": arguments.rounds, "settings": medians}
    if arguments.model:
        report["wer"] = word_error_rates(arguments.model, rows)
        emit(report["wer"])
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.output, report)


if __name__ == "__main__":
    run_command(main)

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

"""Noisy copies of recordings, at exact signal-to-noise ratios that the manifest tells.

    python examples/data/add_noise.py clean.jsonl --out noisy --snrs 0 5 10
    python examples/data/add_noise.py clean.jsonl --out both --keep-clean

Each line's recording is mixed with white or pink noise at one of the ratios, both drawn by (seed, line).
``manifest.jsonl`` in the folder has the same lines with ``snr`` in dB and ``noise``, the kind; with ``--keep-clean``
it has the recordings as they were as well, whose ``noise`` is ``none``. A killed run goes on with the recordings that
are missing.
"""

import argparse
import math
from pathlib import Path

import soundfile
from tqdm import tqdm

from nemo_speechllm.audio.flac import write_flac
from nemo_speechllm.command_line import emit, run_command
from nemo_speechllm.corpora.conditions import NOISES, mix_at_snr
from nemo_speechllm.data.conversation import SAMPLE_RATE, Audio
from nemo_speechllm.files import claim_record, file_digest
from nemo_speechllm.manifests.manifest import read_manifest, relocate, write_manifest
from nemo_speechllm.randomness import named_random


def noisy_row(row: dict, number: int, arguments: argparse.Namespace) -> dict:
    """Return the row of a noisy copy, whose audio is written unless it is there.

    Raises:
        ValueError: the recording is silent, so there is no ratio.
    """
    random = named_random((arguments.seed, number))
    snr, noise = random.choice(arguments.snrs), random.choice(arguments.noises)
    target = arguments.out / "audio" / f"{number:06d}.flac"
    if not target.exists():
        speech = Audio.from_row(row).load().numpy()
        try:
            samples = mix_at_snr(speech, NOISES[noise](len(speech), random), snr)
        except ValueError as error:
            raise ValueError(f"{arguments.manifest}:{number}: {row['audio_filepath']}: {error}") from error
        write_flac(target, samples, SAMPLE_RATE)
    seconds = soundfile.info(target).frames / SAMPLE_RATE
    kept = {key: value for key, value in row.items() if key not in ("offset", "id")}
    changed = {"audio_filepath": f"audio/{target.name}", "duration": seconds, "snr": float(snr), "noise": str(noise)}
    return kept | changed


def decibels(value: str) -> float:
    """Return the ratio that a word of the command line means."""
    if not math.isfinite(ratio := float(value)):
        raise argparse.ArgumentTypeError(f"{value} is no finite number of dB")
    return ratio


def parse_arguments() -> argparse.Namespace:
    """Return the settings of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path, help="NeMo manifest")
    parser.add_argument("--out", type=Path, required=True, help="folder for manifest.jsonl and audio/")
    parser.add_argument("--snrs", type=decibels, nargs="+", default=[0.0, 5.0, 10.0], help="in dB (default: 0 5 10)")
    parser.add_argument(
        "--noises", nargs="+", choices=sorted(NOISES), default=sorted(NOISES), help="kinds (default: all)"
    )
    parser.add_argument("--keep-clean", action="store_true", help="have the lines as they were in the manifest, too")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Mix noise into the recordings of a manifest, and write the manifest of the copies."""
    arguments = parse_arguments()
    rows = read_manifest(arguments.manifest, locate_audio=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    made_of = {key: getattr(arguments, key) for key in ("snrs", "noises", "seed")}
    made_of |= {"manifest": file_digest(arguments.manifest)}
    claim_record(arguments.out / "noise.json", made_of, "audio made of something else")
    lines = [noisy_row(row, number, arguments) for number, row in enumerate(tqdm(rows, unit="utt"), 1)]
    target = arguments.out / "manifest.jsonl"
    if arguments.keep_clean:
        clean = read_manifest(arguments.manifest)
        lines = [relocate(row, arguments.manifest, target) | {"noise": "none"} for row in clean] + lines
    write_manifest(target, lines)
    emit(f"{target}: {len(lines)} lines")


if __name__ == "__main__":
    run_command(main)

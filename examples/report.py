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

"""One HTML page of an evaluation: tables, a figure, and the utterances that went worst, to be read and heard.

    python examples/report.py runs/evaluation
    python examples/report.py runs/evaluation --worst 100

The folder is the ``output_dir`` of evaluate.py; ``report.html`` is written into it. Recordings are in the page, those
of over 30 s as MP3; those of over 10 minutes are linked where they lie, for a page that is opened from there.
"""

import argparse
import io
import json
import os
from pathlib import Path
from urllib.parse import quote

import soundfile

from nemo_speechllm.command_line import emit, run_command
from nemo_speechllm.data.conversation import SAMPLE_RATE, Audio, AudioError
from nemo_speechllm.evaluation.html_report import data_address, html_report
from nemo_speechllm.evaluation.report import read_report
from nemo_speechllm.files import Journal, write_text
from nemo_speechllm.manifests.manifest import audio_path

FORMATS = {"FLAC": "audio/flac", "MP3": "audio/mpeg"}
FLAC_SECONDS = 30  # what a model may have misheard is heard as it was; a minute would be a megabyte,
EMBEDDED_SECONDS = 600  # and of MP3 these are four


def audio_address(prediction: dict, manifest: str, folder: Path, channel_selector: int | str | None) -> str:
    """Return a recording's address: with the recording in it, or of a very long one its path from the page.

    Raises:
        FileNotFoundError, AudioError: the recording is not where the manifest says, or cannot be read.
    """
    path, offset, duration = audio_path(prediction, manifest), prediction.get("offset"), prediction["duration"]
    if duration > EMBEDDED_SECONDS:
        start = offset or 0
        return f"{quote(os.path.relpath(path, folder))}#t={start},{start + duration}"
    samples = Audio.from_file(path, offset, duration, channel_selector).load().numpy()
    file, kind = io.BytesIO(), "FLAC" if duration <= FLAC_SECONDS else "MP3"
    soundfile.write(file, samples, SAMPLE_RATE, format=kind)
    return data_address(file.getvalue(), FORMATS[kind])


def parse_arguments() -> argparse.Namespace:
    """Return the folder of the evaluation, and how many predictions are shown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="output_dir of evaluate.py")
    parser.add_argument("--worst", type=int, default=30, help="utterances to show (default: 30)")
    return parser.parse_args()


def evaluation_folder(folder: Path) -> Path:
    """Return a folder that may hold an evaluation.

    Raises:
        FileNotFoundError: there is no such folder, or evaluations lie beneath it and none in it; they are named.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; the path counts from {Path.cwd()}")
    if (folder / "metrics.json").exists():
        return folder
    if beneath := sorted(str(path.parent) for path in folder.rglob("metrics.json")):
        more = f", or one of {len(beneath) - 1} others beneath it" if beneath[1:] else ""
        raise FileNotFoundError(f"{folder} holds no evaluation itself; give {beneath[0]}{more}")
    return folder


def main() -> None:
    """Write ``report.html``."""
    arguments = parse_arguments()
    folder, target = evaluation_folder(arguments.folder), arguments.folder / "report.html"
    try:
        metrics, run = (
            json.loads((folder / name).read_text(encoding="utf-8")) for name in ("metrics.json", "run.json")
        )
        predictions = Journal(folder / "predictions.jsonl", "a prediction").rows

        def address(prediction: dict) -> str:
            return audio_address(prediction, metrics["manifest"], folder, run["channel_selector"])

        facts = {name: metrics[name] for name in ("model", "manifest")}
        report = read_report(folder / "metrics.json")
        write_text(target, html_report(report, facts, predictions, address, arguments.worst))
    except (OSError, ValueError, AudioError) as error:
        raise ValueError(
            f"{error}; finish the evaluation, and start from the folder that it was started from"
        ) from error
    emit(target)


if __name__ == "__main__":
    run_command(main)

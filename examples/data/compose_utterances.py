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

"""Compose longer utterances of short recordings, such as spoken digits: real speech whose words are known exactly.

    python examples/data/compose_utterances.py fsdd.jsonl --out data/digits --train 6000 --dev 200 --test 400

writes `train.jsonl`, `dev.jsonl`, `test.jsonl` and 16 kHz FLAC files. An utterance has one speaker and random pauses;
no recording is in two splits. Run again to resume. Speakers that training never hears are tested with:

    python examples/data/compose_utterances.py fsdd.jsonl --out data/strangers --test-speakers theo yweweler
"""

import argparse
from pathlib import Path

from tqdm import tqdm

from nemo_speechllm.command_line import emit, run_command
from nemo_speechllm.corpora.composition import compose, split_recordings, write_composition
from nemo_speechllm.manifests.manifest import read_manifest, require_words, write_manifest


def parse_arguments() -> argparse.Namespace:
    """Return the settings of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path, help="NeMo manifest of short recordings, with `text` and `speaker`")
    parser.add_argument("--out", type=Path, required=True, help="folder of the manifests and the audio")
    parser.add_argument("--train", type=int, default=6000, help="utterances (default: 6000)")
    parser.add_argument("--dev", type=int, default=200, help="utterances (default: 200)")
    parser.add_argument("--test", type=int, default=400, help="utterances (default: 400)")
    parser.add_argument("--words", type=int, nargs=2, default=(3, 7), metavar=("MIN", "MAX"), help="of an utterance")
    parser.add_argument(
        "--pauses",
        type=float,
        nargs=2,
        default=(0.05, 0.3),
        metavar=("MIN", "MAX"),
        help="before and after each word, in s",
    )
    parser.add_argument("--held-out", type=float, default=0.1, help="fraction of the recordings for dev, and for test")
    parser.add_argument(
        "--test-speakers",
        nargs="+",
        default=[],
        metavar="NAME",
        help="are in test.jsonl, and no others; in no other split",
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if not 1 <= arguments.words[0] <= arguments.words[1]:
        parser.error("--words wants two numbers of at least 1, the smaller one first")
    if not 0 <= arguments.pauses[0] <= arguments.pauses[1]:
        parser.error("--pauses wants two durations, the shorter one first")
    if not 0 < arguments.held_out < 0.5:
        parser.error("--held-out is a fraction above 0 and below 0.5")
    return arguments


def main() -> None:
    """Compose the utterances of each split, and write its manifest."""
    arguments = parse_arguments()
    rows = read_manifest(arguments.manifest, locate_audio=True)
    require_words(arguments.manifest, rows)
    held_out, seed = arguments.held_out, arguments.seed
    splits = split_recordings(rows, held_out, held_out, seed, arguments.test_speakers)
    wanted = {name: count for name in splits if (count := getattr(arguments, name))}
    for name, count in wanted.items():
        planned = compose(splits[name], count, tuple(arguments.words), tuple(arguments.pauses), (seed, name))
        progress = tqdm(planned, total=count, desc=name, unit="utt")
        lines = [write_composition(composition, arguments.out, Path("audio", name)) for composition in progress]
        write_manifest(arguments.out / f"{name}.jsonl", lines)
        emit(f"{arguments.out / name}.jsonl: {count} utterances, {sum(row['duration'] for row in lines) / 3600:.2f} h")


if __name__ == "__main__":
    run_command(main)

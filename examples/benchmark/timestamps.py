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

"""How well are words timed? Errors of their starts and ends in recordings of which these are known.

    python examples/benchmark/timestamps.py instruct_las_digits fsdd.jsonl --recordings 30
    python examples/benchmark/timestamps.py salm_whisper_smollm2 prompts/test_en.jsonl --recordings 30

Recordings of single words (a manifest's lines of one word), cut to where they are loud, are put one after the other
with pauses between them, all of one recording by the same speaker. A word that is answered as it was said is compared
with where it was put; how many are not is told. Times are those of ``transcribe(timestamps=True)``.
"""

import argparse
import json

import jiwer
import numpy as np

from nemo_speechllm.command_line import emit, run_command
from nemo_speechllm.corpora.composition import Composition, compose, spoken_text
from nemo_speechllm.data.conversation import SAMPLE_RATE, Audio
from nemo_speechllm.decoding.word_times import Word
from nemo_speechllm.manifests.manifest import read_manifest
from nemo_speechllm.models import load_model
from nemo_speechllm.randomness import named_random

LOUD_DB = -35.0  # of a recording's loudest 10 ms
FRAME = SAMPLE_RATE // 100


def loud_part(samples: np.ndarray) -> np.ndarray:
    """Return samples (T,) from the first to the last 10 ms that are not much quieter than the loudest."""
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    power = (frames**2).mean(1)
    loud = np.flatnonzero(power > power.max() * 10 ** (LOUD_DB / 10))
    return samples[loud[0] * FRAME : (loud[-1] + 1) * FRAME]


def recording(composition: Composition) -> tuple[np.ndarray, list[Word]]:
    """Return samples (T,) at 16 kHz, and the words with the times they were put at."""
    pieces, words, end = [_silence(composition.pauses[0])], [], len(_silence(composition.pauses[0]))
    for row, pause in zip(composition.rows, composition.pauses[1:], strict=True):
        word = loud_part(Audio.from_row(row).load().numpy())
        words.append(Word(spoken_text(row["text"]), end / SAMPLE_RATE, (end + len(word)) / SAMPLE_RATE))
        pieces += [word, _silence(pause)]
        end += len(word) + len(pieces[-1])
    return np.concatenate(pieces), words


def _silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * SAMPLE_RATE), dtype=np.float32)


def with_noise(samples: np.ndarray, snr: float, name: tuple) -> np.ndarray:
    """Return samples (T,) with white noise, whose power is ``snr`` dB below theirs."""
    scale = np.sqrt((samples**2).mean()) * 10 ** (-snr / 20)
    return samples + named_random(name).standard_normal(len(samples)).astype(np.float32) * scale.astype(np.float32)


def errors(said: list[Word], found: list[Word]) -> list[tuple[float, float]]:
    """Return how much later starts and ends were found, in seconds, of the words that were answered as they were said.

    Which these are, the alignment of fewest word errors tells.
    """
    reference, hypothesis = ([_bare(word.text) for word in words] for words in (said, found))
    if not found:
        return []
    (chunks,) = jiwer.process_words([" ".join(reference)], [" ".join(hypothesis)]).alignments
    return [
        (found[chunk.hyp_start_idx + i].start - word.start, found[chunk.hyp_start_idx + i].end - word.end)
        for chunk in chunks
        if chunk.type == "equal"
        for i, word in enumerate(said[chunk.ref_start_idx : chunk.ref_end_idx])
    ]


def _bare(word: str) -> str:
    return "".join(char for char in word.lower() if char.isalnum()) or "-"


def figures(pairs: list[tuple[float, float]], words: int, recordings: int) -> dict[str, float]:
    """Return what is reported, milliseconds."""
    late = np.array(pairs) * 1000
    result: dict[str, float] = {"recordings": recordings, "words": words, "compared": len(pairs)}
    for place, values in zip(("start", "end"), late.T, strict=True):
        result |= {
            f"{place}_median_error_ms": round(float(np.median(np.abs(values)))),
            f"{place}_p90_error_ms": round(float(np.quantile(np.abs(values), 0.9))),
            f"{place}_median_lateness_ms": round(float(np.median(values))),
        }
    return result


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="name of a shipped checkpoint, a .nemo file or a hub id")
    parser.add_argument("manifest", help="its lines of one word are taken")
    parser.add_argument("--recordings", type=int, default=30)
    parser.add_argument("--words", type=int, nargs=2, default=(3, 6), help="fewest and most in one")
    parser.add_argument("--pauses", type=float, nargs=2, default=(0.0, 0.3), help="shortest and longest, seconds")
    parser.add_argument("--snr", type=float, help="add white noise at so many dB below the recording's mean power")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rows = [row for row in read_manifest(arguments.manifest, locate_audio=True) if len(row["text"].split()) == 1]
    name = (arguments.seed, "timestamps")
    compositions = compose(rows, arguments.recordings, tuple(arguments.words), tuple(arguments.pauses), name)
    recordings, said = zip(*map(recording, compositions), strict=True)
    if arguments.snr is not None:
        recordings = [with_noise(samples, arguments.snr, (*name, number)) for number, samples in enumerate(recordings)]
    answers = load_model(arguments.model).transcribe(
        list(recordings), batch_size=arguments.batch_size, timestamps=True, verbose=False
    )
    found = [
        [Word(word["word"], word["start"], word["end"]) for word in answer.timestamp["word"]] for answer in answers
    ]
    pairs = [pair for words, heard in zip(said, found, strict=True) for pair in errors(words, heard)]
    emit(json.dumps(figures(pairs, sum(map(len, said)), len(said)), indent=2))


if __name__ == "__main__":
    run_command(main)

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

"""Longer utterances of short recordings: words that were recorded alone, one after the other by the same speaker."""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import soundfile

from nemo_speechllm.audio.flac import write_flac
from nemo_speechllm.data.conversation import SAMPLE_RATE, Audio
from nemo_speechllm.prompts.skills import NUMBERS
from nemo_speechllm.randomness import named_random


@dataclass(frozen=True)
class Composition:
    """One utterance to be made.

    Attributes:
        rows: manifest rows of its recordings, in order.
        pauses: seconds of silence before, between and after them; one more than ``rows``.
    """

    rows: tuple[dict, ...]
    pauses: tuple[float, ...]

    @property
    def text(self) -> str:
        """The words; a recording whose text is a digit says its English name."""
        return " ".join(spoken_text(row["text"]) for row in self.rows)

    @property
    def name(self) -> str:
        """Digest of what the utterance is made of."""
        parts = [(*_recording(row), pause) for row, pause in zip(self.rows, self.pauses, strict=False)]
        return hashlib.sha256(repr((parts, self.pauses[-1])).encode()).hexdigest()[:12]


def spoken_text(text: str) -> str:
    """``"3"`` → ``"three"``; any other text as it is, without outer white space."""
    text = text.strip()
    return NUMBERS[int(text)] if text.isdecimal() and len(text) == 1 else text


def split_recordings(
    rows: Sequence[dict], dev: float, test: float, seed: int = 0, test_speakers: Collection[str] = ()
) -> dict[str, list[dict]]:
    """Return recordings by split, at random and speaker by speaker, so that each split hears every speaker.

    Args:
        rows: of a manifest, with ``speaker`` where there are several.
        dev, test: fractions of each speaker's recordings, rounded.
        test_speakers: whose recordings are all in ``test``, which then has no others.

    Raises:
        ValueError: one of ``test_speakers`` has no recording.
    """
    splits: dict[str, list[dict]] = {"train": [], "dev": [], "test": []}
    speakers = sorted({str(row.get("speaker")) for row in rows})
    if unknown := set(test_speakers) - set(speakers):
        raise ValueError(f"no recordings of {sorted(unknown)}; there are those of {speakers}")
    for speaker in speakers:
        of_speaker = sorted((row for row in rows if str(row.get("speaker")) == speaker), key=_recording)
        shares = (dev, test)
        if test_speakers:
            shares = (0.0, 1.0) if speaker in test_speakers else (dev, 0.0)
        order = named_random((seed, "split", speaker)).permutation(len(of_speaker))
        ends = np.cumsum([round(share * len(of_speaker)) for share in shares])
        for name, indices in zip(("dev", "test", "train"), np.split(order, ends), strict=True):
            splits[name] += [of_speaker[index] for index in indices]
    return splits


def compose(
    rows: Sequence[dict], count: int, words: tuple[int, int], pauses: tuple[float, float], name: tuple
) -> Iterator[Composition]:
    """Utterances of one split, the i-th a pure function of ``name``, i and the recordings.

    A speaker's recordings come again only when the utterance is longer than all of them.

    Args:
        rows: recordings of the split.
        count: how many utterances.
        words: smallest and largest number of recordings in one.
        pauses: shortest and longest pause, in seconds.
        name: of the draws: seed and split.

    Raises:
        ValueError: there are no recordings.
    """
    if not rows:
        raise ValueError(f"no recordings are left for {name[-1]}; give other fractions or more recordings")
    by_speaker: dict[str, list[dict]] = {}
    for row in sorted(rows, key=_recording):
        by_speaker.setdefault(str(row.get("speaker")), []).append(row)
    for index in range(count):
        random = named_random((*name, index))
        of_speaker = by_speaker[str(random.choice(sorted(by_speaker)))]
        size = int(random.integers(words[0], words[1] + 1))
        chosen = random.choice(len(of_speaker), size, replace=size > len(of_speaker))
        silences = random.uniform(*pauses, size + 1).round(3)
        yield Composition(tuple(of_speaker[i] for i in chosen), tuple(map(float, silences)))


def write_composition(composition: Composition, folder: Path, audio: Path) -> dict:
    """Write an utterance as 16 kHz FLAC, whole or not at all; one that is there is kept.

    Args:
        composition: whose rows name audio by paths that hold here.
        folder: of the manifest.
        audio: of the FLAC files, relative to ``folder``.

    Returns:
        its manifest row; ``sources`` names the recordings.
    """
    path = audio / f"{composition.name}.flac"
    target = folder / path
    if not target.exists():
        write_flac(target, _samples(composition), SAMPLE_RATE)
    row = {
        "audio_filepath": path.as_posix(),
        "duration": soundfile.info(target).duration,
        "text": composition.text,
    }
    shared = {key: composition.rows[0].get(key) for key in ("lang", "speaker")}
    row |= {
        key: value for key, value in shared.items() if all(r.get(key) == value for r in composition.rows) and value
    }
    return row | {"sources": [Path(source["audio_filepath"]).name for source in composition.rows]}


def _recording(row: dict) -> tuple[str, float]:
    """Return what tells one recording from another, wherever the corpus lies."""
    return Path(row["audio_filepath"]).name, row.get("offset", 0.0)


def _samples(composition: Composition) -> np.ndarray:
    pieces = [np.zeros(round(composition.pauses[0] * SAMPLE_RATE), dtype=np.float32)]
    for row, pause in zip(composition.rows, composition.pauses[1:], strict=True):
        pieces.append(_load(row["audio_filepath"], row.get("offset"), row.get("duration")))
        pieces.append(np.zeros(round(pause * SAMPLE_RATE), dtype=np.float32))
    return np.concatenate(pieces).clip(-1.0, 1.0)  # resampling may overshoot


@cache
def _load(path: str, offset: float | None, duration: float | None) -> np.ndarray:
    return Audio.from_file(path, offset, duration).load().numpy()

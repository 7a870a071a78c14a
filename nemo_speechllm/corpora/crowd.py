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

"""Many speakers in many places: the voices of a cast in the scenes of `acoustics`, some with nobody there.

Two casts: blended voices of `kokoro`, and the voices of `synthesis_voices`, warped. The first sounds better and has
more voices, the second is ten to fifty times faster and speaks Russian, too.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import soxr

from nemo_speechllm.corpora import kokoro
from nemo_speechllm.corpora.acoustics import (
    SAMPLE_RATE,
    Scene,
    apply_scene,
    draw_background,
    draw_scene,
    record_background,
)
from nemo_speechllm.corpora.synthesis_languages import Language
from nemo_speechllm.corpora.synthesis_voices import VoicePool


class Cast(Protocol):
    """Apparent speakers, as many as are wanted; each has a `name` and a `shift`, the factor on pitch and formants."""

    def draw(self, seed: int, number: int, split: str) -> Any:
        """Return the speaker that `(seed, number)` names in a split."""

    def speak(self, text: str, speaker: Any, speed: float, seed: int) -> tuple[np.ndarray, int]:
        """Return samples, (T,), without the speaker's shift, and their rate in Hz.

        Raises:
            ValueError: there is nothing to say in the text.
        """


class Blends:
    """Blended voices of Kokoro; no voice of a held-out speaker is in one of `train`.

    Args:
        network: folder of the asset `kokoro-82m`.
        lang: what is spoken, one of `kokoro.LANGUAGES`.
    """

    def __init__(self, network: Path, lang: str) -> None:
        self.network, self.lang = network, lang
        self.kokoro: kokoro.Kokoro | None = None  # loaded when first used

    def draw(self, seed: int, number: int, split: str) -> kokoro.Speaker:
        """Return speaker `number` of a split."""
        return kokoro.draw_speaker(seed, number, split, self.lang)

    def speak(self, text: str, speaker: kokoro.Speaker, speed: float, seed: int) -> tuple[np.ndarray, int]:
        """Return samples, (T,), and their rate; Kokoro has no noise to seed."""
        self.kokoro = self.kokoro or kokoro.Kokoro(self.network)
        return self.kokoro.speak(text, speaker, speed), kokoro.RATE


@dataclass(frozen=True)
class WarpedSpeaker:
    """An apparent speaker.

    Attributes:
        name: unique among all languages, splits and seeds.
        voice: a key of `VOICES`.
        shift: factor on pitch and formants.
    """

    name: str
    voice: str
    shift: float


class Warped:
    """The voices of a language, its `more_voices` too, each with another vocal tract; a split has speakers of its own.

    Args:
        language: what is spoken.
    """

    def __init__(self, language: Language) -> None:
        self.language = language
        self.voices = VoicePool()

    def draw(self, seed: int, number: int, split: str) -> WarpedSpeaker:
        """Return speaker `number` of a split."""
        code = self.language.code
        random = np.random.default_rng([seed, number, *split.encode(), *code.encode()])
        return WarpedSpeaker(
            name=f"warped-{code}-{split}-{seed}-{number:03d}",
            voice=str(random.choice(self.language.all_voices)),
            shift=float(random.uniform(0.82, 1.22)),
        )

    def speak(self, text: str, speaker: WarpedSpeaker, speed: float, seed: int) -> tuple[np.ndarray, int]:
        """Return samples, (T,), and their rate."""
        return self.voices.speak(speaker.voice, text, speed, seed)


class Crowd:
    """A recorder of many speakers; clip `index` is a function of the arguments, of `index` and of the text.

    Args:
        cast: who can speak.
        seed: seed of speakers, tempos and scenes.
        split: `train`, `dev` or `test`; no speaker of one is in another.
        speakers: how many there are.
    """

    def __init__(self, cast: Cast, seed: int, split: str, speakers: int) -> None:
        self.cast = cast
        self.seed, self.split, self.speakers = seed, split, speakers

    def columns(self, index: int, text: str) -> dict[str, object]:
        """`speaker`, unless nobody speaks, and the scene's columns."""
        if not text:
            return draw_background(self._random(index)).columns
        speaker, _, scene = self.draw(index)
        return {"speaker": speaker.name} | scene.columns

    def draw(self, index: int) -> tuple[Any, float, Scene]:
        """Draw speaker, tempo (1.0 the voices' own) and scene of clip `index`."""
        random = self._random(index)
        speaker = self.cast.draw(self.seed, int(random.integers(self.speakers)), self.split)
        return speaker, float(random.uniform(0.8, 1.3)), draw_scene(random)

    def __call__(self, index: int, text: str) -> np.ndarray:
        """Record clip `index`: float32 samples at 16 kHz, (T,); nobody speaks in that of an empty text."""
        if not text:
            return record_background(draw_background(self._random(index)))
        speaker, tempo, scene = self.draw(index)
        wave, rate = self.cast.speak(text, speaker, tempo / speaker.shift, scene.seed)
        # Played at `rate * shift` Hz, pitch, formants and tempo all rise by `shift`.
        return apply_scene(soxr.resample(wave, rate * speaker.shift, SAMPLE_RATE), scene)

    def _random(self, index: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, index])

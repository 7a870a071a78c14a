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

"""Many speakers in many places: blended voices of `kokoro` in the scenes of `acoustics`, some with nobody there."""

from pathlib import Path

import numpy as np
import soxr

from nemo_speechllm.corpora.acoustics import (
    SAMPLE_RATE,
    Scene,
    apply_scene,
    draw_background,
    draw_scene,
    record_background,
)
from nemo_speechllm.corpora.kokoro import RATE, Kokoro, Speaker, draw_speaker


class Crowd:
    """A recorder of many speakers; clip `index` is a function of the arguments, of `index` and of the text.

    Args:
        network: folder of the asset `kokoro-82m`.
        seed: seed of speakers, tempos and scenes.
        split: `train`, `dev` or `test`; no speaker of one is in another.
        speakers: how many there are.
        lang: what is spoken, one of `kokoro.LANGUAGES`.
    """

    def __init__(self, network: Path, seed: int, split: str, speakers: int, lang: str) -> None:
        self.network = network
        self.seed, self.split, self.speakers, self.lang = seed, split, speakers, lang
        self.kokoro: Kokoro | None = None  # loaded when first used

    def columns(self, index: int, text: str) -> dict[str, object]:
        """`speaker`, unless nobody speaks, and the scene's columns."""
        if not text:
            return draw_background(self._random(index)).columns
        speaker, _, scene = self.draw(index)
        return {"speaker": speaker.name} | scene.columns

    def draw(self, index: int) -> tuple[Speaker, float, Scene]:
        """Draw speaker, tempo (1.0 the voices' own) and scene of clip `index`."""
        random = self._random(index)
        speaker = draw_speaker(self.seed, int(random.integers(self.speakers)), self.split, self.lang)
        return speaker, float(random.uniform(0.8, 1.3)), draw_scene(random)

    def __call__(self, index: int, text: str) -> np.ndarray:
        """Record clip `index`: float32 samples at 16 kHz, (T,); nobody speaks in that of an empty text."""
        if not text:
            return record_background(draw_background(self._random(index)))
        speaker, tempo, scene = self.draw(index)
        self.kokoro = self.kokoro or Kokoro(self.network)
        wave = self.kokoro.speak(text, speaker, tempo / speaker.shift)
        # Played at `RATE * shift` Hz, pitch, formants and tempo all rise by `shift`.
        return apply_scene(soxr.resample(wave, RATE * speaker.shift, SAMPLE_RATE), scene)

    def _random(self, index: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, index])

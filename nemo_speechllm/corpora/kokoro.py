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

"""Hundreds of speakers from one small network: Kokoro-82M, its voices and the blends of two of them.

Network and voices are Apache-2.0 (the asset `kokoro-82m`); letters become sounds by eSpeak NG, GPL-3.0, with the
optional package `kokoro-onnx`. A blend, the weighted mean of two voices' styles, is a voice of its own. The voices of
the speakers held out (`dev`, `test`) are in no blend of those trained on; a language with few voices blends its own
with English ones, and it is these that are held out.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nemo_speechllm.corpora.synthesis_voices import has_modules

INSTALL = "pip install onnxruntime==1.31.1 kokoro-onnx==0.6.1"

RATE = 24000
STYLE_SIZE = 256

HELD_OUT = {
    "dev": ("af_kore", "am_liam", "bf_alice", "bm_fable"),
    "test": ("af_river", "am_eric", "bf_lily", "bm_lewis"),
}
ENGLISH = {
    "train": (
        *("af_alloy", "af_aoede", "af_bella", "af_heart", "af_jessica", "af_nicole", "af_nova", "af_sarah", "af_sky"),
        *("am_adam", "am_echo", "am_fenrir", "am_michael", "am_onyx", "am_puck", "am_santa"),
        *("bf_emma", "bf_isabella", "bm_daniel", "bm_george"),
    ),
    **HELD_OUT,
}
# Language → its voices
OWN_VOICES = {"es": ("ef_dora", "em_alex", "em_santa"), "fr": ("ff_siwis",), "it": ("if_sara", "im_nicola")}
# The first letter of a voice's name → eSpeak's name of the accent
ACCENTS = {"a": "en-us", "b": "en-gb", "e": "es", "f": "fr-fr", "i": "it"}
LANGUAGES = ("en", *OWN_VOICES)


@dataclass(frozen=True)
class Speaker:
    """One apparent speaker.

    Attributes:
        name: unique among all languages, splits and seeds.
        voices: the two voices that are blended; the first has the accent.
        share: of the first, 0.5 to 1.
        shift: factor on pitch and formants.
    """

    name: str
    voices: tuple[str, str]
    share: float
    shift: float

    @property
    def accent(self) -> str:
        """Name of the accent in eSpeak."""
        return ACCENTS[self.voices[0][0]]


def draw_speaker(seed: int, index: int, split: str, language: str) -> Speaker:
    """Draw the speaker that `(seed, index)` names in a split (`train`, `dev`, `test`) of one of `LANGUAGES`."""
    random = np.random.default_rng([seed, index, sorted(ENGLISH).index(split), LANGUAGES.index(language)])
    own, others = OWN_VOICES.get(language, ENGLISH[split]), ENGLISH[split]
    first = str(random.choice(own))
    second = str(random.choice([voice for voice in others if voice != first]))
    return Speaker(
        name=f"kokoro-{language}-{split}-{seed}-{index:03d}",
        voices=(first, second),
        share=float(random.uniform(0.5, 0.75) if language == "en" else random.uniform(0.55, 0.9)),
        shift=float(random.uniform(0.93, 1.08)),
    )


def is_installed() -> bool:
    """Return True if the packages of `INSTALL` are there."""
    return has_modules("onnxruntime", "kokoro_onnx")


class Styles:
    """The styles of the voices in a folder of `.bin` files, and of their blends.

    Args:
        folder: of the asset `kokoro-82m`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.voices: dict[str, np.ndarray] = {}  # read when first asked for

    def of(self, speaker: Speaker, tokens: int) -> np.ndarray:
        """Return the style in which a speaker says a sentence of so many tokens: float32, (1, 256)."""
        first, second = (self._read(voice)[[tokens - 1]] for voice in speaker.voices)
        return np.float32(speaker.share) * first + np.float32(1 - speaker.share) * second

    def _read(self, voice: str) -> np.ndarray:
        if voice not in self.voices:
            self.voices[voice] = np.fromfile(self.folder / f"{voice}.bin", np.float32).reshape(-1, STYLE_SIZE)
        return self.voices[voice]


class Kokoro:
    """The network in this process, on one thread.

    Args:
        folder: of the asset `kokoro-82m`: `model.onnx` and a `.bin` file a voice.
    """

    def __init__(self, folder: Path) -> None:
        import onnxruntime
        from kokoro_onnx.tokenizer import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # the workers are the parallelism
        self.session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self.tokenizer = Tokenizer()
        self.styles = Styles(folder)

    def speak(self, text: str, speaker: Speaker, speed: float) -> np.ndarray:
        """Speak a sentence.

        Args:
            text: at most 510 sounds.
            speed: tempo, 1.0 the voices' own.

        Returns:
            Samples at 24 kHz, (T,); the speaker's `shift` is not applied.

        Raises:
            ValueError: the text has no sound, or too many.
        """
        tokens = self.tokenizer.tokenize(self.tokenizer.phonemize(text, speaker.accent))
        if not tokens:
            raise ValueError(f"there is nothing to say in the text {text!r}; remove that sentence")
        inputs = {"tokens": np.array([[0, *tokens, 0]]), "speed": np.array([speed], np.float32)}
        return self.session.run(None, inputs | {"style": self.styles.of(speaker, len(tokens))})[0].ravel()

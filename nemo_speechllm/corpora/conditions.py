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

"""The same recordings in harder conditions: noise at a given ratio to the signal, minutes of speech at a stretch."""

from collections.abc import Callable, Sequence

import numpy as np

from nemo_speechllm.data.conversation import SAMPLE_RATE


def white_noise(samples: int, random: np.random.Generator) -> np.ndarray:
    """Noise of the same power at every frequency, (samples,)."""
    return random.standard_normal(samples)


def pink_noise(samples: int, random: np.random.Generator) -> np.ndarray:
    """Return noise whose power falls by 3 dB an octave, as that of many rooms and lines does, (samples,).

    It has no direct current.
    """
    spectrum = np.fft.rfft(random.standard_normal(samples))
    frequencies = np.arange(len(spectrum))
    spectrum[1:] /= np.sqrt(frequencies[1:])
    spectrum[0] = 0
    return np.fft.irfft(spectrum, samples)


NOISES: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {"white": white_noise, "pink": pink_noise}


def noise_from_recordings(recordings: Sequence[np.ndarray], samples: int, random: np.random.Generator) -> np.ndarray:
    """Return a part of a recording drawn at random, begun at random and repeated as often as needed, (samples,)."""
    recording = recordings[int(random.integers(len(recordings)))]
    return np.resize(np.roll(recording, -random.integers(len(recording))), samples)


def mix_at_snr(speech: np.ndarray, noise: np.ndarray, snr: float) -> np.ndarray:
    """Speech with noise of a power ``snr`` dB below its own; both powers are means over the whole recording.

    Where the sum would exceed ±1 it is made quieter as a whole, which leaves the ratio as it is.

    Args:
        speech, noise: samples, (T,).
        snr: in dB.

    Raises:
        ValueError: one of the two is silent, so there is no ratio.
    """
    speech, noise = np.asarray(speech, dtype=np.float64), np.asarray(noise, dtype=np.float64)
    powers = np.mean(speech**2), np.mean(noise**2)
    if not all(powers):
        raise ValueError(
            f"{'the noise' if powers[0] else 'the speech'} is silent: no signal-to-noise ratio can be set"
        )
    mixed = speech + noise * np.sqrt(powers[0] / powers[1] * 10 ** (-snr / 10))
    return mixed / max(1.0, np.abs(mixed).max())


def group_by_length(durations: Sequence[float], seconds: float, pause: float) -> list[list[int]]:
    """Consecutive recordings that, joined by pauses, come closest to a length; the last group may be shorter.

    No recording is left out, so the same words are spoken whatever the length.

    Args:
        durations: of the recordings, in seconds.
        seconds: the length that is wanted.
        pause: seconds between two recordings.

    Returns:
        Groups of indices, in order.
    """
    groups: list[list[int]] = []
    length = 0.0
    for index, duration in enumerate(durations):
        longer = length + pause + duration
        if groups and abs(longer - seconds) <= abs(length - seconds):
            groups[-1].append(index)
            length = longer
        else:
            groups.append([index])
            length = duration
    return groups


def join_recordings(recordings: Sequence[np.ndarray], pause: float) -> np.ndarray:
    """Return recordings (T,) at 16 kHz one after the other with ``pause`` seconds of silence between them."""
    silence = np.zeros(round(pause * SAMPLE_RATE), dtype=np.float32)
    pieces = [piece for recording in recordings for piece in (silence, recording)]
    return np.concatenate(pieces[1:])


def join_rows(rows: Sequence[dict]) -> dict:
    """Return the manifest row of joined recordings: the texts one after the other, and what all rows say alike.

    ``audio_filepath``, ``duration`` and ``offset`` are left to who writes the audio.
    """
    joined = {key: value for key, value in rows[0].items() if all(row.get(key) == value for row in rows)}
    for key in ("text", "answer"):
        if all(row.get(key) for row in rows):
            joined[key] = " ".join(row[key].strip() for row in rows)
    return {key: value for key, value in joined.items() if key not in ("audio_filepath", "duration", "offset")}

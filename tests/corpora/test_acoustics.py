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

import dataclasses

import numpy as np
import pytest

from nemo_speechllm.corpora.acoustics import (
    BACKGROUNDS,
    BANDS,
    SAMPLE_RATE,
    Scene,
    apply_scene,
    draw_background,
    draw_scene,
    pass_band,
    record_background,
    room_response,
)

PLAIN = Scene(before=0.0, after=0.0, reverb=None, noise=None, snr=20.0, band=None, peak_db=-6.0, seed=1)


@pytest.fixture
def tone() -> np.ndarray:
    """Half a second of 500 Hz at 16 kHz."""
    return 0.1 * np.sin(2 * np.pi * 500 * np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE)


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def level(wave: np.ndarray) -> float:
    return 20 * np.log10(np.max(np.abs(wave)))


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_every_background_sounds_and_repeats_with_its_seed_only(name):
    first, again, other = (BACKGROUNDS[name](8000, random(seed)) for seed in (1, 1, 2))
    assert first.shape == (8000,) and np.any(first) and np.all(np.isfinite(first))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize("band", BANDS)
def test_a_band_keeps_the_length_and_the_tone_and_a_telephone_no_hiss(band, tone):
    hiss = 0.05 * np.sin(2 * np.pi * 6000 * np.arange(len(tone)) / SAMPLE_RATE)
    passed = pass_band(tone + hiss, band)
    assert passed.shape == tone.shape
    spectrum = np.abs(np.fft.rfft(passed))
    assert np.argmax(spectrum) == pytest.approx(250, abs=3)  # 500 Hz in steps of 2 Hz
    if BANDS[band][0] == 8000:
        assert np.max(spectrum[2200:]) < 0.05 * np.max(spectrum)


def test_a_plain_scene_changes_the_level_only(tone):
    recorded = apply_scene(tone, PLAIN)
    assert recorded.dtype == np.float32
    assert np.allclose(recorded / np.max(recorded), tone / np.max(tone), atol=1e-6)


@pytest.mark.parametrize(
    "changes",
    [{}, {"reverb": 0.3}, {"noise": "pink"}, {"band": "ulaw"}, {"reverb": 0.5, "noise": "hum", "band": "opus"}],
)
def test_a_scene_has_its_peak_and_its_silence_and_repeats(changes, tone):
    scene = dataclasses.replace(PLAIN, before=0.1, after=0.2, **changes)
    recorded = apply_scene(tone, scene)
    assert len(recorded) == len(tone) + round(0.3 * SAMPLE_RATE)
    assert level(recorded) == pytest.approx(-6.0, abs=0.01)
    assert np.array_equal(recorded, apply_scene(tone, scene))


def test_the_noise_has_its_ratio(tone):
    clean, noisy = (apply_scene(tone, dataclasses.replace(PLAIN, noise=noise)) for noise in (None, "white"))
    residue = noisy - clean * np.dot(noisy, clean) / np.dot(clean, clean)
    assert 10 * np.log10(np.mean(noisy**2) / np.mean(residue**2)) == pytest.approx(20.0, abs=0.3)


def test_a_room_begins_with_the_direct_sound_and_falls_by_60_db():
    response = room_response(0.4, random())
    assert response[0] == 1.0 and len(response) == 0.4 * SAMPLE_RATE
    early, late = (np.std(response[start : start + 400]) for start in (400, len(response) - 400))
    assert 20 * np.log10(early / late) == pytest.approx(60 * (len(response) - 800) / len(response), abs=3)


def test_scenes_are_drawn_in_their_shares():
    scenes = [draw_scene(random(seed)) for seed in range(400)]
    assert scenes == [draw_scene(random(seed)) for seed in range(400)]
    assert all(5.0 <= scene.snr <= 30.0 and -25.0 <= scene.peak_db <= -0.5 for scene in scenes)
    clean = [scene for scene in scenes if (scene.reverb, scene.noise, scene.band) == (None, None, None)]
    assert np.mean([scene in clean for scene in scenes]) == pytest.approx(0.35 + 0.65 * 0.5 * 0.4 * 0.4, abs=0.07)
    assert {scene.band for scene in scenes} == {None, *BANDS}
    assert {scene.noise for scene in scenes} == {None, *BACKGROUNDS}


def test_the_manifest_is_told_what_was_done():
    assert PLAIN.columns == {"noise": "none", "band": "full"}
    rich = dataclasses.replace(PLAIN, noise="hum", snr=12.34, band="gsm", reverb=0.456)
    assert rich.columns == {"noise": "hum", "snr": 12.3, "band": "gsm", "reverb": 0.46}


def test_backgrounds_without_speech_come_in_all_kinds_at_the_drawn_level():
    scenes = [draw_background(random(seed)) for seed in range(100)]
    assert {scene.noise for scene in scenes} == {None, *BACKGROUNDS}
    assert all("snr" not in scene.columns for scene in scenes), "there is no speech to compare the noise with"
    for scene in scenes[:30]:
        wave = record_background(scene)
        assert len(wave) == round(scene.before * SAMPLE_RATE)
        assert np.max(np.abs(wave)) == pytest.approx(10 ** (scene.peak_db / 20) if scene.noise else 0.0, abs=0.01)

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

"""``examples/data/add_noise.py`` on a manifest of tones."""

import sys

import numpy as np
import pytest
import soundfile

from nemo_speechllm.command_line import exit_status
from nemo_speechllm.manifests.check import check_manifest
from nemo_speechllm.manifests.manifest import read_manifest


@pytest.fixture
def add_noise(load_script, monkeypatch, tmp_path):
    """``add_noise(manifest, *arguments)`` → status; it writes into ``tmp_path / "noisy"``."""

    def run(manifest, *arguments) -> int:
        monkeypatch.setattr(
            sys, "argv", ["add_noise.py", str(manifest), "--out", str(tmp_path / "noisy"), *map(str, arguments)]
        )
        return exit_status(load_script("data/add_noise").main)

    return run


def samples(row: dict) -> np.ndarray:
    return soundfile.read(row["audio_filepath"], dtype="float64")[0]


def test_noise_has_the_power_that_the_manifest_tells(add_noise, make_manifest, tmp_path):
    manifest = make_manifest((1.0, 0.6, 0.8), emotion="joy")
    assert add_noise(manifest, "--snrs", 3, 12) == 0
    rows = read_manifest(tmp_path / "noisy" / "manifest.jsonl", locate_audio=True)
    assert check_manifest(tmp_path / "noisy" / "manifest.jsonl")[1] == []
    for clean, noisy in zip(read_manifest(manifest, locate_audio=True), rows, strict=True):
        assert noisy["emotion"] == "joy" and noisy["noise"] in ("white", "pink") and noisy["snr"] in (3, 12)
        speech, mixed = samples(clean), samples(noisy)
        scale = speech @ mixed / (speech @ speech)  # the mixture may have been made quieter as a whole
        noise = mixed / scale - speech
        assert 10 * np.log10(np.mean(speech**2) / np.mean(noise**2)) == pytest.approx(noisy["snr"], abs=0.5)


def test_with_keep_clean_the_recordings_stand_there_as_they_were(add_noise, make_manifest, tmp_path):
    manifest = make_manifest((0.5, 0.4))
    assert add_noise(manifest, "--keep-clean") == 0
    rows = read_manifest(tmp_path / "noisy" / "manifest.jsonl", locate_audio=True)
    assert [row["noise"] == "none" for row in rows] == [True, True, False, False]
    assert np.array_equal(samples(rows[0]), samples(read_manifest(manifest, locate_audio=True)[0]))


def test_a_second_run_makes_only_what_is_missing_and_the_same(add_noise, make_manifest, tmp_path):
    manifest = make_manifest((0.5, 0.4))
    add_noise(manifest)
    first, second = (tmp_path / "noisy" / "audio" / f"{number:06d}.flac" for number in (1, 2))
    kept, content = first.stat().st_mtime_ns, second.read_bytes()
    second.unlink()
    assert add_noise(manifest) == 0
    assert first.stat().st_mtime_ns == kept and second.read_bytes() == content


def test_refuses(add_noise, make_manifest, tmp_path, capsys):
    manifest = make_manifest((0.5,))
    soundfile.write(tmp_path / read_manifest(manifest)[0]["audio_filepath"], np.zeros(8000), 16000)
    assert add_noise(manifest) == 1
    assert "manifest.jsonl:1: " in (error := capsys.readouterr().err) and "the speech is silent" in error
    assert not (tmp_path / "noisy" / "manifest.jsonl").exists()
    assert add_noise(make_manifest((0.5,), name="other.jsonl")) == 1
    assert "audio made of something else" in capsys.readouterr().err


@pytest.mark.parametrize("ratio", ["nan", "1e400", "-inf"])
def test_a_ratio_that_is_not_finite_is_refused(add_noise, make_manifest, tmp_path, capsys, ratio):
    with pytest.raises(SystemExit):
        add_noise(make_manifest((0.5,)), f"--snrs={ratio}")
    assert f"{ratio} is no finite number of dB" in capsys.readouterr().err and not (tmp_path / "noisy").exists()

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

"""Audio files of every kind are read whole, or the one that is not is named."""

import numpy as np
import pytest
import soundfile

from nemo_speechllm.audio.audio_file import audio_blocks, audio_info, check_audio, read_audio
from nemo_speechllm.audio.errors import AudioError
from tests.encoded_audio import FFMPEG, NOISE, RATE, SNDFILE, make


@pytest.mark.parametrize("name", [*SNDFILE, *FFMPEG])
def test_a_whole_file_is_read_to_its_end(tmp_path, name):
    path = make(tmp_path / name)
    info = audio_info(path)
    samples, rate = read_audio(path)
    assert samples.shape == (1, info.frames) and rate == info.sample_rate and samples.dtype == np.float32
    assert abs(info.duration - 2.0) <= info.padding + 0.025
    assert np.abs(samples).max() > 0.05


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "NaN or infinite"), (np.inf, "NaN or infinite"), (1e30, "up to 1e"), (12000, "up to 12000")],
)
def test_samples_that_are_no_sound_are_named(tmp_path, value, message):
    samples = NOISE.copy()
    samples[1000] = value
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match=f"a.wav: the audio holds .*{message}"):
        read_audio(tmp_path / "a.wav")
    with pytest.raises(AudioError, match=f"a.wav: the audio holds .*{message}"):
        check_audio(tmp_path / "a.wav")
    assert read_audio(tmp_path / "a.wav", 2000)[0].shape == (1, 2 * RATE - 2000)  # this part is sound
    check_audio(tmp_path / "a.wav", 2000)


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.m4a"])
def test_blocks_are_what_is_read_at_once(tmp_path, name):
    path = make(tmp_path / name)
    for part in ((), (1234,), (1234, 5000)):
        blocks = list(audio_blocks(path, *part))
        np.testing.assert_array_equal(np.concatenate(blocks, axis=1), read_audio(path, *part)[0])
        assert len(blocks) == 1, "a thousand samples at a time, as FFmpeg gives them, are too few to work on"
    for read in (read_audio, check_audio):
        with pytest.raises(AudioError, match="no samples"):
            read(path, audio_info(path).frames)


@pytest.mark.parametrize(
    "path", ["gone.wav", "a\0b.wav", "\ud800.wav", "x" * 5000, "pipe:ls", "https://example.org/a.wav"]
)
def test_only_files_are_read(path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        audio_info(path)


def test_a_folder_and_an_impossible_rate_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="is a folder"):
        audio_info(tmp_path)
    soundfile.write(tmp_path / "a.wav", NOISE, 1)
    with pytest.raises(AudioError, match="sampled at 1 Hz"):
        audio_info(tmp_path / "a.wav")


def test_a_file_that_changed_is_looked_at_again(tmp_path):
    path = make(tmp_path / "a.wav")
    assert audio_info(path).frames == 2 * RATE
    soundfile.write(path, NOISE[:RATE], RATE)
    assert audio_info(path).frames == RATE

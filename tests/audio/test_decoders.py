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

"""Whichever library decodes a file, its samples, its parts and its errors are alike."""

import numpy as np
import pytest
import soundfile

from nemo_speechllm.audio.audio_file import audio_info, read_audio
from nemo_speechllm.audio.errors import AudioError
from tests.encoded_audio import NOISE, RATE, make


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.m4a", "a.webm"])
def test_a_part_is_the_same_as_that_part_of_the_whole(tmp_path, name):
    path = make(tmp_path / name)
    whole, _ = read_audio(path)
    part, _ = read_audio(path, 5000, 7000)
    np.testing.assert_allclose(part, whole[:, 5000:12000], atol=1e-6)
    assert np.array_equal(read_audio(path, 20000)[0], whole[:, 20000:])


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_wav_and_flac_are_read_as_libsndfile_reads_them(tmp_path, subtype):
    for name in ["a.wav", *(["a.flac"] if subtype != "FLOAT" else [])]:
        soundfile.write(tmp_path / name, NOISE, RATE, subtype=subtype)
        assert np.array_equal(read_audio(tmp_path / name)[0][0], soundfile.read(tmp_path / name, dtype="float32")[0])


@pytest.mark.parametrize("name", ["a.WAV", "recording", "a.raw", "a.xyz"])
def test_the_content_counts_not_the_name(tmp_path, name):
    make(tmp_path / "a.wav").rename(tmp_path / name)
    assert audio_info(tmp_path / name).frames == 2 * RATE


def test_a_file_in_memory_is_read_as_one_on_disk(tmp_path):
    for name in ("a.flac", "a.m4a"):
        path = make(tmp_path / name)
        assert np.array_equal(read_audio(path.read_bytes())[0], read_audio(path)[0])


def test_joined_mp3s_are_read_to_the_end_of_the_last(tmp_path):
    content = make(tmp_path / "a.mp3").read_bytes()
    (tmp_path / "joined.mp3").write_bytes(content * 3)
    assert audio_info(tmp_path / "joined.mp3").duration == pytest.approx(6.0, abs=0.3)
    assert read_audio(tmp_path / "joined.mp3")[0].shape[1] == audio_info(tmp_path / "joined.mp3").frames


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.wav", b"this is no audio"),
        ("empty.wav", b""),
        ("list.m3u8", b"#EXTM3U\n#EXTINF:1,\na.wav\n"),
        ("list.mp3", b"ffconcat version 1.0\nfile a.wav\n"),
        ("zeros.mp3", bytes(5000)),
    ],
)
def test_what_is_no_audio_or_names_other_files_is_refused(tmp_path, name, content):
    make(tmp_path / "a.wav")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AudioError, match=f"{name}: the audio cannot be read"):
        audio_info(tmp_path / name)

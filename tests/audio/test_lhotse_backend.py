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

"""Lhotse reads files, and those as this package does."""

import numpy as np
import pytest
from lhotse import AudioSource, Recording

from nemo_speechllm.audio.audio_file import audio_info, read_audio
from nemo_speechllm.audio.errors import AudioError
from nemo_speechllm.audio.lhotse_backend import original_error
from tests.encoded_audio import RATE, make


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.m4a", "a.webm"])
def test_a_recording_and_a_part_of_it_are_what_the_reader_reads(tmp_path, name):
    path = make(tmp_path / name)
    recording, info = Recording.from_file(path), audio_info(path)
    assert (recording.num_samples, recording.sampling_rate) == (info.frames, info.sample_rate)
    np.testing.assert_array_equal(recording.load_audio(), read_audio(path)[0])
    start, frames = info.sample_rate // 2, info.sample_rate // 4
    np.testing.assert_array_equal(
        recording.load_audio(offset=0.5, duration=0.25), read_audio(path, start, frames)[0].reshape(1, -1)
    )


def test_audio_in_memory_is_read_as_on_disk(tmp_path):
    path = make(tmp_path / "a.flac")
    in_memory = Recording.from_file(path).move_to_memory()
    assert in_memory.sources[0].type == "memory"
    np.testing.assert_array_equal(in_memory.load_audio(), read_audio(path)[0])


def test_a_damaged_file_is_named_whatever_lhotse_says_around_it(tmp_path):
    path = make(tmp_path / "a.flac")
    recording = Recording.from_file(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(Exception) as raised:
        recording.load_audio()
    assert isinstance(original_error(raised.value), AudioError)
    assert "a.flac: the audio" in str(original_error(raised.value))


@pytest.mark.parametrize("kind", ["command", "url"])
def test_a_source_that_is_no_file_is_not_opened(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    recording = Recording("r", [AudioSource(kind, [0], "touch pwned")], RATE, num_samples=RATE, duration=1.0)
    with pytest.raises(Exception) as raised:
        recording.load_audio()
    assert f"kind '{kind}' ('touch pwned') is not read, only files are" in str(original_error(raised.value))
    assert not (tmp_path / "pwned").exists()


def test_an_error_without_an_audio_s_is_the_first():
    try:
        try:
            raise ValueError("first")
        except ValueError as error:
            raise RuntimeError("later") from error
    except RuntimeError as error:
        assert str(original_error(error)) == "first"

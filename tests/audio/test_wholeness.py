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

"""A file that is cut, not closed, or holds more than would be read, is named; one with tags behind it is not."""

import struct
from pathlib import Path

import pytest
import soundfile

from nemo_speechllm.audio import wholeness
from nemo_speechllm.audio.audio_file import audio_info, read_audio
from nemo_speechllm.audio.errors import AudioError
from tests.encoded_audio import FFMPEG, NOISE, RATE, SNDFILE, make


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9])
@pytest.mark.parametrize("name", [*SNDFILE, *FFMPEG])
def test_a_file_that_was_cut_is_named(tmp_path, name, share):
    path = make(tmp_path / name)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(AudioError, match=f"{name}: the audio .*; ") as error:
        audio_info(path)
        read_audio(path)
    assert error.value.kind in ("unreadable audio", "zero length")


def with_data_size(path: Path, size: int) -> Path:
    content = bytearray(path.read_bytes())
    place = content.index(b"data") + 4
    content[place : place + 4] = struct.pack("<I", size)
    path.write_bytes(content)
    return path


def test_a_wav_that_was_not_closed_is_named_and_one_that_was_streamed_is_read(tmp_path):
    path = make(tmp_path / "a.wav")
    for unknown in (0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000):
        assert read_audio(with_data_size(path, unknown))[0].shape == (1, 2 * RATE)
    with pytest.raises(AudioError, match="no samples by its header"):
        audio_info(with_data_size(path, 0))
    with pytest.raises(AudioError, match="2.00 s of the 4.00 s"):
        audio_info(with_data_size(path, 8 * RATE))


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.opus", "a.aiff", "a.au"])
@pytest.mark.parametrize("between", [b"", bytes(512)])
def test_a_second_recording_in_a_file_is_named(tmp_path, name, between):
    path = tmp_path / name
    soundfile.write(path, NOISE, RATE, **({"format": "OGG", "subtype": "OPUS"} if name == "a.opus" else {}))
    one = path.read_bytes()
    path.write_bytes(one + between + one)
    with pytest.raises(AudioError, match=f"{name}: the audio holds a second recording after its end"):
        read_audio(path)
    with pytest.raises(AudioError, match="the audio holds a second recording after its end"):
        read_audio(one + one)


@pytest.mark.parametrize("name", ["a.flac", "a.ogg"])
@pytest.mark.parametrize("block", [8, 13])
def test_a_second_recording_is_found_wherever_a_block_that_is_searched_ends(tmp_path, monkeypatch, name, block):
    monkeypatch.setattr(wholeness, "_BLOCK", block)
    soundfile.write(tmp_path / name, NOISE[:RATE], RATE)
    one = (tmp_path / name).read_bytes()
    assert read_audio(one)[0].shape == (1, RATE)
    for shift in range(block):
        with pytest.raises(AudioError, match="the audio holds a second recording after its end"):
            read_audio(one + bytes(shift) + one)


def test_more_samples_than_a_wav_says_are_named_and_other_chunks_are_not(tmp_path):
    path = make(tmp_path / "a.wav")
    whole = path.read_bytes()
    with pytest.raises(AudioError, match="more samples than its header says"):
        audio_info(with_data_size(path, 1000))
    info = b"LIST" + struct.pack("<I", 3000) + b"INFO" + bytes(range(1, 250)) * 12 + bytes(8)
    for tail in (info, b"id3 " + info[4:], info + info, b"TAG" + b"x" * 125, b"\n", bytes(4096)):
        path.write_bytes(whole + tail)
        assert read_audio(path)[0].shape == (1, 2 * RATE)
    soundfile.write(path, NOISE[:1001], RATE, subtype="PCM_U8")  # of an odd number of bytes
    assert audio_info(path).frames == 1001
    path.write_bytes(path.read_bytes()[: 44 + 1001] + info)  # without the byte of padding
    assert audio_info(path).frames == 1001


def test_an_aiff_with_other_chunks_is_read_to_its_end(tmp_path):
    path = make(tmp_path / "a.aiff")
    path.write_bytes(path.read_bytes() + b"ANNO" + struct.pack(">I", 3000) + bytes(range(1, 251)) * 12)
    assert read_audio(path)[0].shape == (1, 2 * RATE)

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

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nemo_speechllm.audio.audio_file import audio_info, read_audio
from nemo_speechllm.audio.errors import AudioError
from tests.encoded_audio import encode

RATE = 16000
NOISE = np.random.default_rng(0).normal(0, 0.1, 2 * RATE).clip(-1, 1).astype(np.float32)
SNDFILE = ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.aiff", "a.au", "a.caf", "a.w64", "a.rf64", "a.oga"]
FFMPEG = {
    "a.m4a": "aac",
    "a.mp4": "aac",
    "a.aac": "aac",
    "a.webm": "libopus",
    "a.mkv": "libopus",
    "a.3gp": "aac",
    "a.amr": "libopencore_amrnb",
}


def make(path: Path) -> Path:
    """Write two seconds of noise in the format that the name says."""
    if path.name in FFMPEG:
        encode(path, FFMPEG[path.name], NOISE)
    else:
        formats = {".oga": "OGG", ".rf64": "RF64"}
        soundfile.write(path, NOISE, RATE, format=formats.get(path.suffix))
    return path


@pytest.mark.parametrize("name", [*SNDFILE, *FFMPEG])
def test_a_whole_file_is_read_to_its_end(tmp_path, name):
    path = make(tmp_path / name)
    info = audio_info(path)
    samples, rate = read_audio(path)
    assert samples.shape == (1, info.frames) and rate == info.sample_rate and samples.dtype == np.float32
    assert abs(info.duration - 2.0) <= info.padding + 0.025
    assert np.abs(samples).max() > 0.05


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


def test_joined_mp3s_are_read_to_the_end_of_the_last(tmp_path):
    content = make(tmp_path / "a.mp3").read_bytes()
    (tmp_path / "joined.mp3").write_bytes(content * 3)
    assert audio_info(tmp_path / "joined.mp3").duration == pytest.approx(6.0, abs=0.3)
    assert read_audio(tmp_path / "joined.mp3")[0].shape[1] == audio_info(tmp_path / "joined.mp3").frames


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
    assert read_audio(tmp_path / "a.wav", 2000)[0].shape == (1, 2 * RATE - 2000)  # this part is sound


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

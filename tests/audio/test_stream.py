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

"""What comes block by block is, to the bit, what Lhotse loads and resamples as a whole."""

import tracemalloc

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from lhotse import Recording
from lhotse.cut import Cut

from nemo_speechllm.audio.errors import AudioError
from nemo_speechllm.audio.stream import cut_blocks, is_part_of_a_file
from nemo_speechllm.data.conversation import Audio
from tests.encoded_audio import FFMPEG, SNDFILE, encode

NOISE = np.random.default_rng(0).normal(0, 0.1, 21 * 16000 + 77).clip(-1, 1).astype(np.float32)


def streamed(audio: Audio) -> torch.Tensor:
    length, blocks = audio.stream()
    samples = torch.cat(list(blocks))
    assert len(samples) == length
    return samples


def heard(cut: Cut) -> np.ndarray:
    return np.concatenate(list(cut_blocks(cut, 16000, "it")), axis=1)


@pytest.mark.parametrize("name", [*SNDFILE, *FFMPEG])
def test_every_format_comes_as_it_is_loaded(tmp_path, name):
    path = tmp_path / name
    if name in FFMPEG:
        encode(path, FFMPEG[name], NOISE)
    else:
        soundfile.write(path, NOISE, 16000, format={".oga": "OGG", ".rf64": "RF64"}.get(path.suffix))
    for audio in (Audio.from_file(path), Audio.from_bytes(path.read_bytes(), "it")):
        assert torch.equal(streamed(audio), audio.load())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(11025, 0.03125, None, (0.0, 0.96875))  # a millisecond less than the whole
@given(
    st.sampled_from([1000, 8000, 11025, 12345, 16000, 22050, 44100, 44101, 48000]),
    st.floats(0.02, 30),
    st.sampled_from([None, "average", 0, 1]),
    st.none() | st.tuples(st.floats(0, 0.9), st.floats(0.05, 1)),
)
def test_any_part_at_any_rate_comes_as_it_is_loaded(tmp_path, rate, seconds, selector, part):
    frames, channels = max(1, int(seconds * rate)), 1 if selector is None else 2
    samples = np.random.default_rng(frames).normal(0, 0.1, (frames, channels))
    soundfile.write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
    offset, duration = None, None
    if part is not None:
        offset = part[0] * frames / rate
        duration = part[1] * (frames / rate - offset)
    try:
        audio = Audio.from_file(tmp_path / "a.wav", offset, duration, selector)
    except AudioError as error:
        assert "shorter than one sample" in str(error)
        return
    assert torch.equal(streamed(audio), audio.load())


def test_a_few_seconds_are_in_memory_whatever_the_length(tmp_path):
    one = np.random.default_rng(0).integers(-3000, 3000, (60 * 48000, 2), np.int16)
    with soundfile.SoundFile(tmp_path / "a.flac", "w", 48000, 2) as file:
        for _ in range(4):
            file.write(one)
    del one
    audio = Audio.from_file(tmp_path / "a.flac", channel_selector="average")
    tracemalloc.start()
    try:
        length, blocks = audio.stream()
        assert sum(map(len, blocks)) == length == 240 * 16000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 30e6, f"{peak / 1e6:.0f} MB of the 92 MB that it has as floats"


def test_a_damaged_place_is_named_when_it_is_come_to(tmp_path):
    soundfile.write(tmp_path / "whole.flac", np.tile(NOISE, 4), 16000)
    content = (tmp_path / "whole.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(content[: len(content) * 3 // 4])
    _, blocks = Audio.from_file(tmp_path / "cut.flac").stream()
    assert len(next(blocks)) > 0
    with pytest.raises(AudioError, match="cut.flac: the audio .*; "):
        list(blocks)


def test_what_was_made_of_a_file_is_no_part_of_it(tmp_path):
    soundfile.write(tmp_path / "a.wav", NOISE, 16000)
    cut = Recording.from_file(tmp_path / "a.wav").to_cut()
    assert is_part_of_a_file(cut)
    for other in (cut.perturb_speed(1.1), cut.pad(30.0), cut.append(cut)):
        assert not is_part_of_a_file(other)
        assert torch.equal(streamed(Audio(other)), Audio(other).load())


def test_a_cut_that_is_longer_than_its_file_is_named(tmp_path):
    soundfile.write(tmp_path / "a.wav", NOISE, 16000)
    cut = Recording.from_file(tmp_path / "a.wav").to_cut()
    soundfile.write(tmp_path / "a.wav", NOISE[: 5 * 16000], 16000)  # it was cut since
    with pytest.raises(AudioError, match="it: the audio is cut short: 5.00 s of the 21.00 s"):
        heard(cut)

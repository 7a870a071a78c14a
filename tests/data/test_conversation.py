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

"""Audio and conversations: what they give, and the errors of audio that cannot be used."""

from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from lhotse import Recording
from lhotse.audio.source import AudioSource

from nemo_speechllm.data.conversation import Audio, AudioError, Conversation, Question, Turn


def audio_of(path) -> Audio:
    return Audio(Recording.from_file(path).to_cut())


def test_samples_are_taken_as_they_are():
    audio = Audio(torch.arange(4.0))
    assert audio.load().tolist() == [0.0, 1.0, 2.0, 3.0] and audio.load().dtype == torch.float32
    assert audio.duration == 4 / 16000


def test_a_file_is_read_at_its_part_and_at_16_khz(tmp_path, make_audio):
    samples = make_audio(1.0)
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    cut = Recording.from_file(tmp_path / "a.wav").to_cut()
    assert torch.equal(Audio(cut).load(), torch.from_numpy(samples))
    part = Audio(cut.truncate(offset=0.25, duration=0.5))
    assert torch.equal(part.load(), torch.from_numpy(samples[4000:12000])) and part.duration == 0.5
    soundfile.write(tmp_path / "b.wav", samples, 8000)
    assert audio_of(tmp_path / "b.wav").load().shape == (32000,)


def test_a_file_that_went_away_is_named(tmp_path, make_audio):
    soundfile.write(tmp_path / "gone.wav", make_audio(0.1), 16000)
    audio = audio_of(tmp_path / "gone.wav")
    (tmp_path / "gone.wav").unlink()
    with pytest.raises(AudioError, match="gone.wav: the audio cannot be read"):
        audio.load()


def test_an_unreadable_file_is_named(tmp_path):
    (tmp_path / "noise.wav").write_bytes(b"this is no audio")
    source = AudioSource("file", [0], str(tmp_path / "noise.wav"))
    audio = Audio(Recording("noise", [source], 16000, num_samples=1600, duration=0.1).to_cut())
    with pytest.raises(AudioError, match="noise.wav: the audio cannot be read"):
        audio.load()


def test_several_channels_ask_for_one(tmp_path, make_audio):
    stereo = np.stack([make_audio(0.1), make_audio(0.1, seed=1)], axis=1)
    soundfile.write(tmp_path / "stereo.wav", stereo, 16000, subtype="FLOAT")
    audio = audio_of(tmp_path / "stereo.wav")
    with pytest.raises(AudioError, match="stereo.wav: the audio has 2 channels; set channel_selector"):
        audio.load()
    assert torch.equal(Audio(audio.source.with_channels(1)).load(), torch.from_numpy(stereo[:, 1].copy()))


@pytest.mark.parametrize("selector, weights", [("average", [0.5, 0.5]), (0, [1.0, 0.0]), (1, [0.0, 1.0])])
def test_a_part_of_one_channel_of_a_file(tmp_path, make_audio, selector, weights):
    stereo = np.stack([make_audio(1.0), make_audio(1.0, seed=1)], axis=1)
    soundfile.write(tmp_path / "stereo.wav", stereo, 16000, subtype="FLOAT")
    audio = Audio.from_file(tmp_path / "stereo.wav", offset=0.25, duration=0.5, channel_selector=selector)
    np.testing.assert_allclose(audio.load().numpy(), stereo[4000:12000] @ np.array(weights), atol=1e-6)
    assert audio.duration == 0.5 and audio.name == str(tmp_path / "stereo.wav")


def test_a_file_is_whole_without_an_offset(tmp_path, make_audio):
    soundfile.write(tmp_path / "a.wav", make_audio(1.0), 16000)
    assert Audio.from_file(tmp_path / "a.wav", duration=0.5, channel_selector=0).duration == 1.0
    assert Audio.from_file(tmp_path / "a.wav", offset=0.25).duration == 0.75


@pytest.mark.parametrize(("channels", "selector"), [(1, 1), (2, 2), (2, "left")])
def test_a_channel_that_is_not_there_is_named_alike_for_file_bytes_and_samples(
    tmp_path, make_audio, channels, selector
):
    samples, path = np.stack([make_audio(0.1)] * channels, axis=1), tmp_path / "a.wav"
    soundfile.write(path, samples, 16000)
    for read in (
        lambda: Audio.from_file(path, channel_selector=selector),
        lambda: Audio.from_row({"audio_filepath": str(path)}, selector),
        lambda: Audio.from_bytes(path.read_bytes(), "a.wav", selector),
        lambda: Audio.from_samples(samples.squeeze(), selector, "a.wav"),
    ):
        with pytest.raises(AudioError, match=rf"a.wav: channel_selector={selector!r}, and the audio has"):
            read()


@pytest.mark.parametrize(
    ("source", "remedy"),
    [
        (np.zeros(9), r"from_samples\(array\)"),
        ("a.wav", r"from_file\(path\)"),
        (b"RIFF", "from_bytes"),
        (None, "an Audio"),
    ],
)
def test_what_is_neither_cut_nor_tensor_is_named(source, remedy):
    with pytest.raises(TypeError, match=f"made of {type(source).__name__}; give .*{remedy}"):
        Audio(source)


def test_a_file_that_is_none_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.wav does not exist"):
        Audio.from_file(tmp_path / "none.wav")
    (tmp_path / "text.wav").write_text("this is no audio")
    with pytest.raises(AudioError, match="text.wav: the audio cannot be read"):
        Audio.from_file(tmp_path / "text.wav")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_must_be_finite(tmp_path, make_audio, bad):
    samples = make_audio(0.1)
    samples[7] = bad
    soundfile.write(tmp_path / "bad.wav", samples, 16000, subtype="FLOAT")
    with pytest.raises(AudioError, match="bad.wav: the audio holds NaN or infinite"):
        audio_of(tmp_path / "bad.wav").load()


@pytest.mark.parametrize("shape", [(0,), (2, 100)])
def test_samples_must_be_one_channel_of_something(shape):
    with pytest.raises(AudioError, match="given as samples: expected one channel"):
        Audio(torch.zeros(shape)).load()


def test_a_prompt_names_all_keywords_or_those_that_are_to_be_prompted():
    question = Question([], "Transcribe.", ["Ada", "Ottawa"])
    written = [
        replace(question, prompted=prompted).rendered("({keywords}) ", "x").text for prompted in (None, ["Ada"], [])
    ]
    assert written == ["(Ada, Ottawa) Transcribe.", "(Ada) Transcribe.", "Transcribe."]


def test_answer_is_the_closing_assistant_turn():
    question, answer = Turn("user", ["a", Audio(torch.ones(1)), "b"]), Turn("assistant", ["yes"])
    conversation = Conversation("x", [question, answer], {"lang": "en"})
    assert conversation.turns[0].text == "ab" and len(conversation.audios) == 1
    assert conversation.answer == "yes"
    asked = conversation.without_answer()
    assert asked.turns == [question] and asked.answer is None and asked.metadata == {"lang": "en"}
    assert asked.without_answer().turns == [question]
    assert Conversation("empty", []).answer is None


def test_audios_keep_their_order():
    first, second, third = (Audio(torch.ones(n)) for n in (1, 2, 3))
    turns = [Turn("user", [first, "?", second]), Turn("assistant", ["!"]), Turn("user", [third])]
    assert Conversation("x", turns).audios == [first, second, third]


def test_integer_samples_are_scaled_to_one():
    samples = torch.tensor([0, 16384, -32768], dtype=torch.int16)
    assert Audio(samples).load().tolist() == [0.0, 0.5, -1.0]

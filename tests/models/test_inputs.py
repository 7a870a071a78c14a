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

"""Whatever ``transcribe`` is given becomes conversations, in order, or is refused by name."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from nemo_speechllm.audio.errors import AudioError
from nemo_speechllm.data.dataset import ConversationBuilder
from nemo_speechllm.models.inputs import conversations_of
from nemo_speechllm.recipes.sections import Prompt

RATE = 16000
BUILDER = ConversationBuilder(Prompt({"asr": "Transcribe."}, keywords="Keywords: {keywords}. "))


@pytest.fixture
def path(tmp_path):
    """A file of half a second."""
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).normal(0, 0.1, RATE // 2), RATE)
    return tmp_path / "a.wav"


def test_one_of_each_kind_and_iterables_of_them(path):
    samples, _ = soundfile.read(path, dtype="float32")
    one = [
        str(path),
        path,
        samples,
        torch.from_numpy(samples),
        path.read_bytes(),
        io.BytesIO(path.read_bytes()),
        {"audio_filepath": path},
    ]
    for item in one:
        (conversation,) = conversations_of(item, BUILDER)
        assert np.array_equal(conversation.audios[0].load().numpy(), samples), type(item)
    one[5].seek(0)
    for several in (one, tuple(one), (item for item in one), iter(one)):
        one[5].seek(0)
        assert all(len(c.audios[0].load()) == RATE // 2 for c in conversations_of(several, BUILDER))
    assert len(conversations_of(np.stack([samples, samples])[None][0], BUILDER, channel_selector=0)) == 1


def test_rows_and_manifests_say_what_is_asked(path, tmp_path):
    row = {"audio_filepath": "a.wav", "duration": None, "instruction": "Who?", "keywords": None}
    (tmp_path / "M.JSONL").write_text(json.dumps(row) + "\n")
    for given in (tmp_path / "M.JSONL", [str(tmp_path / "M.JSONL")], [row | {"audio_filepath": str(path)}]):
        (conversation,) = conversations_of(given, BUILDER)
        assert conversation.question.instruction == "Who?" and "duration" not in conversation.metadata
    (conversation,) = conversations_of(
        tmp_path / "M.JSONL", BUILDER, metadata_of=lambda row: row | {"keywords": ["x"]}
    )
    assert (conversation.question.keywords, conversation.question.instruction) == (["x"], "Who?")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "no audio"),
        ([0.1, 0.2], "a list of 2 numbers; give samples as an array"),
        (5, "transcribe was given int"),
        (None, "transcribe was given NoneType"),
        ([None], "audio 1 is NoneType"),
        ({"a.wav", "b.wav"}, "a set, which has no order"),
        ([[0.1, 0.2]], "audio 1 is list"),
        ({"duration": 1.0}, "audio_filepath: the line names no audio"),
        ([{"audio_filepath": "a.wav", "offset": "1"}], "row 1: offset: expected a number"),
        ([{"audio_filepath": "pipe:ls"}], "only files are read"),
        (["https://example.org/a.wav"], "audio 1: .*only files are read"),
    ],
)
def test_what_is_no_audio_is_refused_by_name(given, message):
    with pytest.raises(ValueError, match=message):
        conversations_of(given, BUILDER)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([np.zeros(10), np.ones(10) * 3000], "audio 2, given as samples: .*divide 16-bit values"),
        ([np.zeros((2, 100))], "audio 1, given as samples: .*channel_selector"),
        ([b"no audio"], "audio 1, given as bytes: the audio cannot be read"),
    ],
)
def test_samples_that_are_no_sound_are_refused_by_name(given, message):
    with pytest.raises(AudioError, match=message):
        conversations_of(given, BUILDER)


def test_an_opened_file_goes_by_its_name(tmp_path):
    whole = (Path(__file__).parents[1] / "recordings/digits_theo.flac").read_bytes()
    for number, content in enumerate((b"no audio", whole[: len(whole) // 2])):
        (tmp_path / f"{number}.flac").write_bytes(content)
        with open(tmp_path / f"{number}.flac", "rb") as file, pytest.raises(AudioError) as raised:
            conversations_of(file, BUILDER)[0].loaded()
        assert str(raised.value).startswith(f"{tmp_path / f'{number}.flac'}: the audio cannot be read")


def test_a_file_that_was_closed_is_named(path):
    with open(path, "rb") as file:
        pass
    with pytest.raises(AudioError, match="audio 2: the file that was given cannot be read: read of closed file"):
        conversations_of([path, file], BUILDER)


def test_a_row_of_samples_asks_for_a_part_as_one_of_a_file_does(path):
    samples, _ = soundfile.read(path, dtype="float32")
    for part in ({"offset": 0.1, "duration": 0.25}, {"offset": 0.3}, {"duration": 0.5, "sampling_rate": RATE}, {}):
        for given in (samples, torch.from_numpy(samples)):
            (of_samples,) = conversations_of({"audio_filepath": given} | part, BUILDER)
            (of_file,) = conversations_of({"audio_filepath": path} | part, BUILDER)
            assert torch.equal(of_samples.audios[0].load(), of_file.audios[0].load())


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"offset": 0.4, "duration": 9.0}, "row 1: duration: the part of .* ends at 9.400 s"),
        ({"offset": 0.5}, "row 1: offset: the part of .* begins at 0.500 s"),
        ({"offset": 0.1, "duration": 1e-9}, "row 1: duration: the part of .* is shorter than one sample"),
        ({"duration": 9.0}, "row 1: duration: says 9.000 s, the audio has 0.500 s"),
        ({"offset": "1"}, "row 1: offset: expected a number"),
        ({"offset": -1}, "row 1: offset: .* is negative"),
    ],
)
def test_a_part_that_is_not_in_the_audio_is_the_same_error_for_samples_and_files(path, said, message):
    for given in (path, soundfile.read(path, dtype="float32")[0]):
        with pytest.raises(ValueError, match=message):
            conversations_of({"audio_filepath": given} | said, BUILDER)


@pytest.mark.parametrize("key", ["sampling_rate", "sample_rate"])
def test_samples_of_another_rate_are_refused(key):
    with pytest.raises(ValueError, match=f"row 1: {key}: says 8000 Hz, and samples are read as 16000 Hz → resample"):
        conversations_of({"audio_filepath": np.zeros(RATE, np.float32), key: 8000}, BUILDER)


def test_lines_of_a_manifest_are_named(path, tmp_path):
    manifest = tmp_path / "m.jsonl"
    rows = [
        {"audio_filepath": "a.wav"},
        {"audio_filepath": "a.wav", "offset": 0.4, "duration": 9.0},
        {"audio_filepath": "a.wav", "task": "x"},
    ]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows[:2]))
    with pytest.raises(ValueError, match=f"{manifest}:2: duration: the part of .*a.wav ends at 9.400 s .*→ correct"):
        conversations_of(manifest, BUILDER)
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows[::2]))
    with pytest.raises(ValueError, match=f"{manifest}:2: task 'x' has no instruction"):
        conversations_of(manifest, BUILDER)

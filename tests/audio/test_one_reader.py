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

"""What the check calls clean is what training, transcription and evaluation accept; all else is named with file, line,
key and remedy."""

import json
import re
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment
from omegaconf import OmegaConf

from nemo_speechllm.command_line import cause_of
from nemo_speechllm.data.conversation import AudioError
from nemo_speechllm.data.dataloader import build_dataloader
from nemo_speechllm.data.dataset import ConversationBuilder, ConversationDataset
from nemo_speechllm.manifests.check import check_manifest
from nemo_speechllm.manifests.manifest import EmptyManifestError, ManifestError, read_manifest, write_manifest
from nemo_speechllm.recipes.sections import Prompt

ROOT = Path(__file__).parents[2]
RATE = 16000
EPOCH = {
    "batch_size": 4,
    "force_finite": True,
    "shuffle": False,
    "num_workers": 0,
    "sample_rate": RATE,
    "shard_seed": 0,
}


@pytest.fixture(scope="module")
def fuzzed(load_soak):
    """The module of the long form of this test."""
    return load_soak("fuzzed_rows")


@pytest.fixture(scope="module")
def studio(fuzzed, tmp_path_factory):
    """A folder of audio files, whole and damaged, their names, and the consumers."""
    folder = tmp_path_factory.mktemp("audio")
    return folder, fuzzed.make_audio(folder), fuzzed.consumers()


@settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(random=st.randoms(use_true_random=False))
def test_all_consumers_agree_with_the_check(fuzzed, studio, random: Random):
    folder, audio, consumers = studio
    line = fuzzed.fuzzed_line(random, audio)
    assert fuzzed.verdicts(line, folder, consumers) == {}, line[:300]


NAMED = [
    {"snr": "5"},
    {"text": "half \ud800"},
    {"sampling_rate": 8000},
    {"duration": 10**400},
    {"duration": float("inf")},
    {"offset": 10.0},
    {"offset": True},
    {"lang": 5},
    {"lang": "kr"},
    {"target_lang": "Koraen"},
    {"keywords": [1]},
    {"keywords": {"a": 1}},
    {"audio_filepath": "  "},
    {"audio_filepath": "."},
    {"audio_filepath": "pipe:touch pwned"},
    {"audio_filepath": "https://example.org/a.wav"},
    {"audio_filepath": "good\0.flac"},
    {"audio_filepath": "x" * 5000},
    {"audio_filepath": "unclosed.wav"},
    {"audio_filepath": "cut.good.ogg"},
    {"audio_filepath": "cut.good.mp3"},
    {"audio_filepath": "huge.wav"},
    {"text": "x" * 200_000},
    {"instruction": "\x07"},
    {"anything": {"deep": [float("nan")]}},
]


@pytest.mark.parametrize("change", NAMED, ids=str)
def test_a_defect_is_named_by_every_consumer(fuzzed, studio, change):
    folder, _, consumers = studio
    line = json.dumps(fuzzed.GOOD | change).encode()
    assert fuzzed.verdicts(line, folder, consumers) == {}
    assert [issue.line for issue in check_manifest(folder / "fuzzed.jsonl")[1]] == [1]


@pytest.mark.parametrize(
    "name", ["good.flac", "good.ogg", "good.mp3", "good.aiff", "phone.m4a", "browser.webm", "slow.wav"]
)
def test_a_whole_file_is_read_by_every_consumer(fuzzed, studio, name):
    folder, _, consumers = studio
    line = json.dumps(fuzzed.GOOD | {"audio_filepath": name}).encode()
    assert fuzzed.verdicts(line, folder, consumers) == {}
    assert check_manifest(folder / "fuzzed.jsonl")[1] == []


@pytest.mark.parametrize("missing", ["null", "NaN"])
def test_null_is_not_given_in_every_key(fuzzed, studio, missing):
    folder, _, consumers = studio
    row = json.dumps(fuzzed.GOOD)[:-1]
    keys = (
        "offset",
        "speaker",
        "keywords",
        "instruction",
        "target_lang",
        "task",
        "snr",
        "answer",
        "sampling_rate",
        "anything",
    )
    line = (row + "".join(f', "{key}": {missing}' for key in keys) + "}").encode()
    assert fuzzed.verdicts(line, folder, consumers) == {}
    rows, issues = check_manifest(folder / "fuzzed.jsonl")
    assert issues == [] and rows[0] == fuzzed.GOOD == read_manifest(folder / "fuzzed.jsonl")[0]


@pytest.mark.parametrize("content", [b"", b"\n", b" \n\t\n\r\n"])
def test_an_empty_manifest_is_called_empty_by_every_consumer(studio, tmp_path, content):
    (tmp_path / "empty.jsonl").write_bytes(content)
    for read in [check_manifest, read_manifest, *studio[2].values()]:
        with pytest.raises(EmptyManifestError, match=f"{tmp_path}/empty.jsonl is empty"):
            read(tmp_path / "empty.jsonl")


@pytest.mark.parametrize("change", [{"snr": "5"}, {"audio_filepath": "gone.flac"}, {"offset": 10.0}], ids=str)
def test_many_defects_are_the_first_few_a_count_and_the_command_that_names_all(fuzzed, studio, change):
    folder, _, consumers = studio
    manifest = folder / "many.jsonl"
    write_manifest(manifest, [fuzzed.GOOD | {"instruction": f"Say it {n} times."} | change for n in range(150)])
    for read in [partial(read_manifest, locate_audio=True), *consumers.values()]:
        with pytest.raises((ManifestError, FileNotFoundError)) as error:
            read(manifest)
        said = cause_of(error.value)
        assert re.findall(r"many\.jsonl:(\d+): ", said) == ["1", "2", "3"] and len(said) < 1500
        assert "has 150 defects" in said and "and 147 more" in said
        assert f"check_manifest.py {manifest}`" in said


# training alone ------------------------------------------------------------------------------------------------------


@pytest.fixture
def load(fuzzed):
    """``load(**section, skip_bad_audio=False)`` → the conversations of one epoch."""
    builder = ConversationBuilder(Prompt(**fuzzed.PROMPT))

    def make(skip_bad_audio=False, **section):
        dataset = ConversationDataset(builder, skip_bad_audio)
        batches = build_dataloader(OmegaConf.create(EPOCH | section), dataset, None, global_rank=0, world_size=1)
        return [conversation for batch in batches for conversation in batch.conversations]

    return make


def write(folder, *rows):
    samples = np.random.default_rng(0).normal(0, 0.1, RATE)
    soundfile.write(folder / "a.wav", samples, RATE)
    good = {"audio_filepath": "a.wav", "duration": 1.0, "text": "hello"}
    (folder / "m.jsonl").write_text("".join(json.dumps(good | row) + "\n" for row in rows))
    return str(folder / "m.jsonl")


def test_a_part_beyond_the_end_is_skipped_by_name_or_stops_the_training(load, tmp_path, nemo_log):
    manifest = write(tmp_path, {"offset": 9.0}, {}, {"offset": 0.5, "duration": 0.54})
    with pytest.raises(
        ManifestError, match=f"{manifest}:1: the part of a.wav begins at 9.000 s .*correct 'offset' and 'duration'"
    ):
        load(manifest_filepath=manifest)
    conversations = load(manifest_filepath=manifest, skip_bad_audio=True)
    assert [round(c.audios[0].duration, 2) for c in conversations] == [
        1.0,
        0.5,
    ]  # a slight overshoot ends with the audio
    assert (
        f"{manifest}: skipped 1 of 3 lines" in nemo_log.text
        and f"{manifest}:1: the part of a.wav begins at 9.000 s" in nemo_log.text
    )


def test_a_rate_and_an_offset_in_one_line_are_read_right(load, tmp_path):
    manifest = write(tmp_path, {"offset": 0.5, "duration": 0.5, "sampling_rate": RATE})
    (conversation,) = load(manifest_filepath=manifest)
    expected, _ = soundfile.read(tmp_path / "a.wav", start=RATE // 2, dtype="float32")
    assert np.array_equal(conversation.audios[0].load().numpy(), expected)


@pytest.mark.parametrize(
    ("row", "section", "message"),
    [
        ({"_skipme": True}, {}, "every line is left out by its `_skipme`"),
        ({"validation_status": "fail"}, {}, "no line is left: all are of another validation_status than keep=pass"),
        ({"cer": 0.9}, {"max_cer": 0.5}, "no line is left: all are of a cer above max_cer=0.5"),
        ({}, {"max_duration": 0.5}, "no line is left: all are shorter than .* max_duration=0.5 s .1 of 1.$"),
        ({"task": "sing"}, {}, "m.jsonl:1: task: .*task 'sing' has no instruction"),
    ],
)
def test_lines_that_nemo_leaves_out_are_counted(load, tmp_path, nemo_log, row, section, message):
    with pytest.raises(ManifestError, match=message):
        load(manifest_filepath=write(tmp_path, row), **section)
    if row and "task" not in row:
        assert len(load(manifest_filepath=write(tmp_path, row, {}), **section)) == 1
        assert "1 of 2 lines" in nemo_log.text


def test_lines_that_come_again_and_silence_are_told_by_check_and_training_alike(load, tmp_path, nemo_log):
    manifest = write(tmp_path, {}, {}, {"text": "", "offset": 0.5, "duration": 0.5})
    (issue,) = check_manifest(manifest)[1]
    batches = load(manifest_filepath=manifest)
    assert [item.answer for item in batches].count("") == 1 and len(batches) == 3
    assert f"1 of 3 lines come again:\n{issue}" in nemo_log.text
    assert "1 of 3 lines are to be answered with nothing" in nemo_log.text


def test_audio_that_breaks_while_it_is_read_is_named_with_its_line(load, tmp_path):
    manifest = write(tmp_path, {}, {"audio_filepath": "loud.wav"})
    soundfile.write(tmp_path / "loud.wav", np.full(RATE, 1e30, np.float32), RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match=f"{manifest}:2: {tmp_path}/loud.wav: the audio holds samples up to 1e"):
        load(manifest_filepath=manifest)


@pytest.mark.parametrize("key", ["manifest_filepath", "cuts_path", "shar_path"])
@pytest.mark.parametrize("path", ["pipe:touch pwned", "https://example.org/m.jsonl", "ais://bucket/m.jsonl"])
def test_only_files_are_sources(load, tmp_path, monkeypatch, key, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"{key} .* is a command or an address, and only files are read"):
        load(**{key: path})
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("kind", ["command", "url"])
def test_no_cut_runs_a_command_or_opens_an_address(load, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    recording = Recording("r", [AudioSource(kind, [0], "touch pwned")], RATE, num_samples=RATE, duration=1.0)
    cut = MonoCut("cut", 0.0, 1.0, 0, [SupervisionSegment("s", "r", 0.0, 1.0, text="hello")], recording=recording)
    (tmp_path / "cuts.jsonl").write_text(json.dumps(cut.to_dict()) + "\n")
    with pytest.raises(AudioError, match=f"kind '{kind}' .*only files are"):
        load(cuts_path=str(tmp_path / "cuts.jsonl"))
    assert not (tmp_path / "pwned").exists()

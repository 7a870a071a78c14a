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

"""Utterances composed of recordings: real files in, real files out."""

import sys

import numpy as np
import pytest
import soundfile

from nemo_speechllm.command_line import exit_status
from nemo_speechllm.corpora.composition import compose, split_recordings, spoken_text
from nemo_speechllm.data.conversation import Audio
from nemo_speechllm.manifests.check import check_manifest
from nemo_speechllm.manifests.manifest import read_manifest, write_manifest


@pytest.fixture
def corpus(tmp_path, make_audio):
    """A manifest of 8 kHz recordings: 2 speakers say 10 digits each, given as digits or as words."""
    rows = []
    for number in range(20):
        name = f"{number}.flac"
        soundfile.write(tmp_path / name, make_audio(0.1 + number / 100, seed=number)[::2], 8000)
        text = str(number % 10) if number % 2 else ["zero", "two", "four", "six", "eight"][number % 10 // 2]
        row = {"audio_filepath": name, "duration": soundfile.info(tmp_path / name).duration, "text": text}
        rows.append(row | {"lang": "en", "speaker": "ab"[number // 10]})
    write_manifest(tmp_path / "corpus.jsonl", rows)
    return tmp_path / "corpus.jsonl"


@pytest.fixture
def run(load_compose, corpus, tmp_path, monkeypatch, capsys):
    """``run(*arguments)`` → the rows of each split."""

    def call(*arguments: str) -> dict[str, list[dict]]:
        out = tmp_path / "out"
        command = ["compose", str(corpus), "--out", str(out), "--train", "6", "--dev", "2", "--test", "3"]
        monkeypatch.setattr(sys, "argv", [*command, "--held-out", "0.2", *arguments])
        assert exit_status(load_compose.main) == 0
        return {name: read_manifest(out / f"{name}.jsonl", locate_audio=True) for name in ("train", "dev", "test")}

    return call


@pytest.fixture
def load_compose():
    from importlib.util import module_from_spec, spec_from_file_location
    from pathlib import Path

    path = Path(__file__).parents[2] / "examples/data/compose_utterances.py"
    spec = spec_from_file_location("compose_utterances", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_utterances_are_16_khz_files_of_one_speaker_with_their_words(run, corpus, tmp_path):
    splits = run("--words", "2", "2")
    assert [len(rows) for rows in splits.values()] == [6, 2, 3]
    spoken = {row["audio_filepath"]: row for row in read_manifest(corpus)}
    for name, rows in splits.items():
        assert check_manifest(tmp_path / "out" / f"{name}.jsonl", sample_rate=16000)[1] == []
        for row in rows:
            sources = [spoken[source] for source in row["sources"]]
            assert {source["speaker"] for source in sources} == {row["speaker"]} and row["lang"] == "en"
            assert row["text"].split() == [spoken_text(source["text"]) for source in sources]
            assert not any(character.isdigit() for character in row["text"])
            silence = row["duration"] - sum(source["duration"] for source in sources)
            assert 3 * 0.05 - 0.01 <= silence <= 3 * 0.3 + 0.01
    used = [{source for row in rows for source in row["sources"]} for rows in splits.values()]
    assert not (used[0] & used[1] or used[0] & used[2] or used[1] & used[2])


def test_the_audio_is_the_recordings_with_silence_around_them(run, corpus, tmp_path):
    row = run("--words", "1", "1", "--pauses", "0.1", "0.1")["train"][0]
    expected = np.pad(Audio.from_file(tmp_path / row["sources"][0]).load().numpy(), 1600)
    assert np.abs(soundfile.read(row["audio_filepath"])[0] - expected).max() < 1e-4


def test_the_same_seed_gives_the_same_set_and_keeps_what_is_there(run, tmp_path):
    first = run()
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("out/**/*.flac")}
    removed = first["train"][2]["audio_filepath"]
    (tmp_path / removed).unlink()
    assert run() == first
    again = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("out/**/*.flac")}
    assert [str(path) for path in written if again[path] != written[path]] == [removed]
    assert run("--seed", "1")["train"] != first["train"]


def test_a_larger_set_begins_with_the_smaller_one():
    rows = [{"audio_filepath": f"{i}.flac", "text": "one", "speaker": "a"} for i in range(9)]
    sets = [list(compose(rows, count, (2, 4), (0.1, 0.2), (0, "train"))) for count in (3, 5)]
    assert sets[1][:3] == sets[0]


def test_recordings_come_again_only_in_utterances_longer_than_their_number():
    rows = [{"audio_filepath": f"{i}.flac", "text": "one"} for i in range(4)]
    for composition in compose(rows, 20, (4, 4), (0.1, 0.2), (0,)):
        assert len({row["audio_filepath"] for row in composition.rows}) == 4
    (longer,) = compose(rows, 1, (6, 6), (0.1, 0.2), (0,))
    assert len(longer.rows) == 6 and len(longer.pauses) == 7


def test_too_few_recordings_for_a_split_are_an_error():
    (splits, row) = (split_recordings([{"audio_filepath": "a.flac"}], 0.1, 0.1), {"audio_filepath": "a.flac"})
    assert splits == {"train": [row], "dev": [], "test": []}
    with pytest.raises(ValueError, match="no recordings are left for dev"):
        next(compose(splits["dev"], 1, (1, 2), (0.1, 0.2), (0, "dev")))


def test_speakers_held_out_are_tested_alone_and_a_split_of_none_is_not_written(run, tmp_path):
    splits = run("--test-speakers", "b")
    assert {name: {row["speaker"] for row in rows} for name, rows in splits.items()} == {
        "train": {"a"},
        "dev": {"a"},
        "test": {"b"},
    }
    assert (
        len({source for row in run("--test-speakers", "b", "--test", "40")["test"] for source in row["sources"]}) == 10
    )
    for path in (tmp_path / "out").glob("*.jsonl"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="train.jsonl"):
        run("--test-speakers", "a", "b", "--train", "0", "--dev", "0")
    assert [path.name for path in (tmp_path / "out").glob("*.jsonl")] == ["test.jsonl"]
    with pytest.raises(ValueError, match=r"no recordings of \['c'\]; there are those of \['a', 'b'\]"):
        split_recordings([{"audio_filepath": "a.flac", "speaker": name} for name in "ab"], 0.1, 0.1, 0, ["c"])

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

"""Classification tasks in manifests and in Dynamic-SUPERB's layout."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

from nemo_speechllm.corpora.tasks import read_task_items, task_tables
from nemo_speechllm.data.conversation import AudioError

QUESTION = {"instruction": "Is it the same speaker?", "label": "yes"}


@pytest.fixture
def write_audio(tmp_path, make_audio):
    def write(name: str, seed: int = 0) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, make_audio(0.2, seed), 16000, subtype="FLOAT")
        return path

    return write


def write_parquet(path: Path, rows: list[dict], **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, **options)


def samples(item, channel=None) -> list[list[float]]:
    return [audio.load().tolist() for audio in item.open_audios(channel)]


def test_parquet_of_the_model_hub_is_read_row_by_row(tmp_path, write_audio, make_audio):
    contents = [write_audio(f"{seed}.wav", seed).read_bytes() for seed in range(3)]
    rows = [
        {"audio2": {"bytes": contents[(i + 1) % 3], "path": "other.wav"}}
        | {"file": f"{i}.wav", "audio": {"bytes": contents[i], "path": f"{i}.wav"}, **QUESTION, "label": str(i)}
        for i in range(3)
    ]
    folder = tmp_path / "hub" / "SpeakerVerification_VCTK"
    write_parquet(folder / "data/test-00000-of-00001.parquet", rows, row_group_size=2)
    write_parquet(folder / "data/train-00000-of-00001.parquet", rows)
    items = read_task_items(tmp_path / "hub")
    assert [item.row for item in items] == [
        {"task": "SpeakerVerification_VCTK", "category": "speaker", "file": f"{i}.wav", "audio_filepath": f"{i}.wav"}
        | QUESTION
        | {"label": str(i)}
        for i in range(3)
    ]
    for i in (2, 0, 1):
        assert samples(items[i]) == [make_audio(0.2, i).tolist(), make_audio(0.2, (i + 1) % 3).tolist()]
    assert items[0].open_audios(None)[0].name == "0.wav"
    assert [item.row for item in read_task_items(folder)] == [item.row for item in items]


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
def test_an_audio_folder_is_read(tmp_path, write_audio, make_audio, name):
    rows = [{"file_name": f"clips/{i}.wav", "audio2_file_name": "clips/9.wav", **QUESTION} for i in range(2)]
    for place, seed in (("clips/0", 0), ("clips/1", 1), ("clips/9", 9)):
        write_audio(f"MyTask/test/{place}.wav", seed)
    table = tmp_path / "MyTask/test" / name
    with open(table, "w", newline="") as output:
        if table.suffix == ".csv":
            writer = csv.DictWriter(output, rows[0])
            writer.writeheader()
            writer.writerows(rows)
        else:
            output.writelines(json.dumps(row) + "\n" for row in rows)
    items = read_task_items(tmp_path / "MyTask")
    assert [(item.row["task"], item.row["category"], item.row["label"]) for item in items] == [
        ("MyTask", None, "yes")
    ] * 2
    assert samples(items[1]) == [make_audio(0.2, 1).tolist(), make_audio(0.2, 9).tolist()]
    assert Path(items[1].row["audio_filepath"]) == tmp_path / "MyTask/test/clips/1.wav"


def test_a_manifest_is_read_as_ever(make_manifest):
    items = read_task_items(make_manifest((0.3, 0.4), **QUESTION))
    assert [item.place.rpartition(":")[2] for item in items] == ["1", "2"]
    (audio,) = items[1].open_audios(None)
    assert len(audio.load()) == 6400 and items[1].row["label"] == "yes"


def test_several_channels_are_selected(tmp_path):
    path = tmp_path / "two.wav"
    soundfile.write(path, torch.tensor([[0.5, 0.25]] * 100).numpy(), 16000, subtype="FLOAT")
    write_parquet(tmp_path / "task/test.parquet", [{"audio": {"bytes": path.read_bytes(), "path": None}, **QUESTION}])
    (item,) = read_task_items(tmp_path / "task")
    assert samples(item, 1) == [[0.25] * 100]
    with pytest.raises(AudioError, match="test.parquet:1: the audio has 2 channels"):
        samples(item)


def test_a_row_s_own_category_goes_first(tmp_path):
    row = {"audio": "a.wav", "category": "content", **QUESTION}
    write_parquet(tmp_path / "EmotionRecognition_X/default/test/0000.parquet", [row])
    write_parquet(tmp_path / "train-stations/0000.parquet", [row])  # a task's name is no split's
    items = read_task_items(tmp_path)
    assert [item.row["task"] for item in items] == ["EmotionRecognition_X", "train-stations"]
    assert [item.row["category"] for item in items] == ["content"] * 2


def test_defects_are_named(tmp_path, write_audio):
    with pytest.raises(FileNotFoundError, match="has no metadata.jsonl, metadata.csv or .parquet; give a manifest"):
        read_task_items(tmp_path)
    folder = tmp_path / "task"
    write_parquet(folder / "train.parquet", [{"audio": "a.wav", **QUESTION}])
    with pytest.raises(FileNotFoundError, match="parquet of a test split"):
        task_tables(folder)
    write_parquet(folder / "test.parquet", [QUESTION])
    with pytest.raises(ValueError, match="test.parquet: there is no recording; name it in `file_name`"):
        read_task_items(folder)
    write_parquet(folder / "test.parquet", [{"audio": {"bytes": b"", "path": None}, **QUESTION}])
    (item,) = read_task_items(folder)
    with pytest.raises(ValueError, match="test.parquet:1: audio: neither the content nor the path"):
        item.open_audios(None)
    (folder / "test.parquet").write_text("not a table")
    with pytest.raises(ValueError, match="test.parquet: not a Parquet file .*fetch it again"):
        read_task_items(folder)
    (folder / "test.parquet").unlink()
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "gone.wav", **QUESTION}) + "\n")
    with pytest.raises(FileNotFoundError, match="metadata.jsonl:1: file_name: there is no file .*gone.wav; correct"):
        read_task_items(folder)
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": None, **QUESTION}) + "\n")
    with pytest.raises(ValueError, match="metadata.jsonl:1: there is no recording; name it in `file_name`"):
        read_task_items(folder)
    (folder / "metadata.jsonl").write_text("{\n")
    with pytest.raises(ValueError, match="metadata.jsonl:1: .*invalid JSON"):
        read_task_items(folder)

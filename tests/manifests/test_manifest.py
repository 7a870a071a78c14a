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

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nemo_speechllm.manifests.check import check_manifest
from nemo_speechllm.manifests.manifest import ManifestError, read_manifest, require_words, write_manifest

ROOT = Path(__file__).parents[2]


def row(**changes):
    good = {"audio_filepath": "good.flac", "duration": 1.0, "text": "hello"}
    return {key: value for key, value in {**good, **changes}.items() if value is not ...}


def test_rows_come_back_as_written(tmp_path):
    rows = [row(text="Größe, да"), row(offset=0.5, keywords=["a", "b"])]
    write_manifest(tmp_path / "new" / "m.jsonl", rows)
    assert read_manifest(tmp_path / "new" / "m.jsonl") == rows
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["m.jsonl"]


def test_a_manifest_that_is_not_there_is_named_with_the_folder_it_was_looked_for_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"no manifest m.jsonl; the path counts from {tmp_path}"):
        read_manifest("m.jsonl")


def test_a_row_whose_audio_is_in_a_tar_file_says_so(tmp_path):
    write_manifest(tmp_path / "m.jsonl", [row(audio_filepath="in_the_tar.flac", shard_id=0)])
    _, (issue,) = check_manifest(tmp_path / "m.jsonl")
    assert "shard_id" in str(issue) and "tar file" in issue.problem and "unpack" in issue.remedy
    with pytest.raises(FileNotFoundError, match=r"m\.jsonl:1: .*in_the_tar\.flac.*shard_id.*tarred_audio_filepaths"):
        read_manifest(tmp_path / "m.jsonl", locate_audio=True)


def test_a_failed_write_keeps_the_old_manifest(tmp_path):
    write_manifest(tmp_path / "m.jsonl", [row()])
    with pytest.raises(TypeError):
        write_manifest(tmp_path / "m.jsonl", [row(text="new"), row(text=object())])
    assert read_manifest(tmp_path / "m.jsonl") == [row()]
    assert [file.name for file in tmp_path.iterdir()] == ["m.jsonl"]


@pytest.mark.parametrize(
    "line, message",
    [
        (b'{"text": "a"', "invalid JSON"),
        (b'{"text": "\xff"}', "invalid JSON"),
        (b"[1, 2]", "expected an object, got a JSON list"),
        (b" ", "NeMo cannot read a blank line"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"text": "fine"}\n{"text": "so is this"}\n' + line + b"\n")
    with pytest.raises(ValueError) as error:
        read_manifest(path)
    assert str(error.value).startswith(f"{path}:3: (line): {message}")
    clean, (issue,) = check_manifest(path)[0], check_manifest(path)[1][-1:]
    assert clean == [] and str(issue) == str(error.value)


def test_rows_that_are_to_have_words_are_named_where_they_have_none():
    rows = [row(), *[row(text=text) for text in ("", " ", ..., None, "")]]
    require_words("m.jsonl", rows[:1])
    with pytest.raises(ManifestError, match=r"m\.jsonl:2: text: nothing is said") as error:
        require_words("m.jsonl", rows)
    assert "has 5 defects" in str(error.value) and "and 2 more" in str(error.value)
    assert "check_manifest" not in str(error.value)  # to which silence is no defect


MISSPELT = {
    "keyword": "keywords",
    "instructions": "instruction",
    "source_langs": "lang",
    "text_": "text",
    "target_langs": "target_lang",
    "tasks": "task",
    "durations": "duration",
    "off_set": "offset",
    "skipme": "_skipme",
}
OWN = (
    "raw_text",
    "text_normalized",
    "pred_text",
    "language",
    "source_lang",
    "speaker_id",
    "label",
    "wer",
    "id",
    "ипа",
)


@pytest.mark.parametrize("key", MISSPELT)
def test_a_key_that_is_nearly_one_that_is_read_is_named_once(tmp_path, caplog, key):
    plain = {"audio_filepath": "good.flac"}
    write_manifest(tmp_path / "m.jsonl", [plain, plain | {key: "a"}, plain | {key: "b"}])
    for _ in range(2):
        read_manifest(tmp_path / "m.jsonl")
    (warning,) = caplog.messages
    assert warning.startswith(f"{tmp_path}/m.jsonl:2: {key}: ") and "in 1 more" in warning
    assert warning.endswith(f"did you mean {MISSPELT[key]!r}?")


def test_keys_of_the_users_own_are_not_mentioned(tmp_path, caplog):
    write_manifest(tmp_path / "m.jsonl", [row(**dict.fromkeys(OWN, "a")), row(text_="hello", text2="world")])
    read_manifest(tmp_path / "m.jsonl")
    assert not caplog.messages


def test_data_modules_are_light():
    code = (
        "import sys, nemo_speechllm.manifests.manifest, nemo_speechllm.corpora.telephone_prompts;"
        "print([name for name in ('torch', 'nemo.collections') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_written_lines_are_plain_utf8(tmp_path):
    write_manifest(tmp_path / "m.jsonl", [row(text="è")])
    assert json.loads((tmp_path / "m.jsonl").read_text("utf-8"))["text"] == "è"
    assert "è" in (tmp_path / "m.jsonl").read_text("utf-8")


def test_keywords_must_be_strings_and_a_byte_order_mark_is_named(tmp_path):
    manifest = tmp_path / "m.jsonl"
    manifest.write_text('{"audio_filepath": "a.wav", "duration": 1, "text": "a", "keywords": [1]}\n', "utf-8-sig")
    with pytest.raises(ValueError, match=r"m.jsonl:1: .*byte order mark.* without BOM"):
        read_manifest(manifest)
    manifest.write_text('{"audio_filepath": "a.wav", "duration": 1, "text": "a", "keywords": [1]}\n')
    assert "keywords" in {issue.key for issue in check_manifest(manifest)[1]}

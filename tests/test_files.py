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

"""Files appear whole or not at all, a journal survives a kill, and a folder has one writer."""

import subprocess
import sys
from pathlib import Path

import pytest

from nemo_speechllm.evaluation.predictions import PredictionLog
from nemo_speechllm.files import FolderInUse, FolderLock, Journal, claim_record, whole_folder, write_text
from nemo_speechllm.manifests.manifest import write_manifest

ROOT = Path(__file__).parent.parent
HOLDER = """
import os, sys, time
sys.path.insert(0, sys.argv[2])
from nemo_speechllm.files import FolderLock
lock = FolderLock(sys.argv[1], "training")
if os.fork() == 0:  # as a data loading worker, which outlives a kill for a while
    time.sleep(2)
    os._exit(0)
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path):
    """A process that holds the folder, and has a child."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path, ROOT], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_folder_in_use_is_refused_and_a_kill_frees_it(holder, tmp_path):
    for take in (lambda: FolderLock(tmp_path, "evaluation"), lambda: PredictionLog(tmp_path, {})):
        with pytest.raises(
            FolderInUse, match=rf"{tmp_path} is in use by another evaluation \(process {holder.pid} on "
        ):
            take()
    holder.kill()
    holder.wait()
    with FolderLock(tmp_path, "evaluation"):
        pass


def test_the_process_that_holds_a_folder_may_take_it_again(tmp_path):
    first = FolderLock(tmp_path, "evaluation")
    with FolderLock(tmp_path, "evaluation"), FolderLock(tmp_path, "evaluation", "-other"):
        assert is_refused(tmp_path, "") and is_refused(tmp_path, "-other")
    assert is_refused(tmp_path, "") and not is_refused(tmp_path, "-other")
    first.release()
    assert not is_refused(tmp_path, "")


def is_refused(folder: Path, name: str) -> bool:
    """Whether another process cannot take it."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[3]); from nemo_speechllm.files import FolderLock; "
        "FolderLock(*sys.argv[1:3], sys.argv[4])"
    )
    arguments = [folder, "evaluation", ROOT, name]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0 or "is in use by another evaluation" in done.stderr
    return done.returncode != 0


@pytest.mark.parametrize(
    "write", [lambda path: write_manifest(path, [{"text": "a"}]), lambda path: write_text(path, "a")]
)
def test_an_error_names_the_target(write, tmp_path):
    (tmp_path / "folder").mkdir()
    for path in ("/proc/out.jsonl", str(tmp_path / "folder")):
        with pytest.raises(OSError) as caught:
            write(path)
        assert caught.value.filename == path and ".part" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_an_error_of_what_is_written_stays_as_it_is(tmp_path):
    def rows():
        yield {"text": "a"}
        raise FileNotFoundError("a.wav does not exist")

    with pytest.raises(FileNotFoundError, match="^a.wav does not exist$"):
        write_manifest(tmp_path / "m.jsonl", rows())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({"scoring": "likelihood"}, {}, "scoring was 'likelihood', is not set"),
        ({"scoring": None}, {"scoring": "likelihood"}, "scoring was not set, is 'likelihood'"),
        ({"seed": 0}, {"seed": 0, "size": 1}, "size was not set, is 1"),
    ],
)
def test_a_record_that_differs_is_told_in_plain_words(before, after, told, tmp_path):
    claim_record(tmp_path / "run.json", before, "another evaluation")
    claim_record(tmp_path / "run.json", before, "another evaluation")
    with pytest.raises(ValueError, match=rf"holds another evaluation \({told}\); give another output_dir"):
        claim_record(tmp_path / "run.json", after, "another evaluation")


def test_takes_up_whole_lines_and_writes_on_after_a_torn_one(tmp_path):
    Journal(tmp_path / "new" / "rows.jsonl").append([{"id": "a\u2028b"}])
    path = tmp_path / "new" / "rows.jsonl"
    with open(path, "ab") as output:
        output.write('{"id": "ж'.encode()[:-1])
    journal = Journal(path)
    journal.append([{"id": "c"}])
    journal.append([{"id": "d"}, {"id": "e"}])
    assert journal.rows == Journal(path).rows == [{"id": id} for id in ("a\u2028b", "c", "d", "e")]


def test_reading_leaves_alone_what_another_process_is_writing(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": 1}\n{"id"')
    assert Journal(path).rows == [{"id": 1}]
    assert path.read_text() == '{"id": 1}\n{"id"'


def test_names_the_file_and_the_line_that_is_damaged(tmp_path):
    (tmp_path / "rows.jsonl").write_text("{}\noops\n")
    with pytest.raises(ValueError, match="rows.jsonl:2: not a finished row .*remove the folder"):
        Journal(tmp_path / "rows.jsonl", "a finished row")


class TestWholeFolder:
    def test_appears_at_the_end_also_in_the_place_of_an_empty_one(self, tmp_path):
        (tmp_path / "new").mkdir()
        for name in ("new", "above/new"):
            with whole_folder(tmp_path / name) as folder:
                write_text(folder / "a.txt", "a")
                assert folder != tmp_path / name and not (tmp_path / name / "a.txt").exists()
            assert [path.name for path in (tmp_path / name).iterdir()] == ["a.txt"]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["above", "new"]

    def test_is_not_there_after_an_error(self, tmp_path):
        with pytest.raises(RuntimeError, match="disk"), whole_folder(tmp_path / "new") as folder:
            write_text(folder / "a.txt", "a")
            raise RuntimeError("disk")
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("kind", ["file", "folder"])
    def test_keeps_what_is_there(self, tmp_path, kind):
        place = tmp_path / "mine" if kind == "file" else tmp_path
        (tmp_path / "mine").write_text("mine")
        with pytest.raises(FileExistsError, match="is there already; give the name of a new folder"):
            with whole_folder(place):
                pass
        assert (tmp_path / "mine").read_text() == "mine"

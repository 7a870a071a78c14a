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

import subprocess
import sys
from pathlib import Path

import pytest

from nemo_speechllm.folder_lock import FolderInUse, FolderLock
from nemo_speechllm.metrics.predictions import PredictionLog

ROOT = Path(__file__).parent.parent
HOLDER = """
import os, sys, time
sys.path.insert(0, sys.argv[2])
from nemo_speechllm.folder_lock import FolderLock
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
        "import sys; sys.path.insert(0, sys.argv[3]); from nemo_speechllm.folder_lock import FolderLock; "
        "FolderLock(*sys.argv[1:3], sys.argv[4])"
    )
    arguments = [folder, "evaluation", ROOT, name]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0 or "is in use by another evaluation" in done.stderr
    return done.returncode != 0

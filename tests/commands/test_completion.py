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

"""What the shell is told of the Tab key, asked as bash asks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def completions(line: str, cwd: Path) -> list[str]:
    """Answers to a line typed so far, by argcomplete's protocol with bash."""
    code = "import os; os.fdopen = lambda fd, mode, real=os.fdopen: real(1 if fd == 8 else 2, mode)\n"
    code += "from nemo_speechllm.__main__ import main; main()"
    asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "COMP_LINE": line, "COMP_POINT": str(len(line))}
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | asked | {"COMP_TYPE": "9", "_ARGCOMPLETE_COMP_WORDBREAKS": "", "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True)
    return [word.strip() for word in done.stdout.split("\n")]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("nemo-speechllm trans", ["transcribe"]),
        ("nemo-speechllm data check", ["check-manifest"]),
        ("nemo-speechllm data check-manifest --write", ["--write-clean"]),
        ("nemo-speechllm transcribe keywords_f", ["keywords_file="]),
        ("nemo-speechllm transcribe model=x audio=talk", ["audio=talk.wav"]),
        ("nemo-speechllm train --config-name salm/whisper_smollm2_fine", ["salm/whisper_smollm2_finetune"]),
        (
            "nemo-speechllm train --config-name salm/whisper_smollm2 model.train_ds.man",
            ["model.train_ds.manifest_filepath="],
        ),
        ("nemo-speechllm nothing", [""]),
    ],
)
def test_what_is_typed_so_far_is_completed(line, expected, tmp_path):
    (tmp_path / "talk.wav").touch()
    assert completions(line, tmp_path) == expected

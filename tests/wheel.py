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

"""Does what the description of the installed package and the README say, for `make test-wheel`; run with ``python -I``
outside the project's .venv."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import metadata
from pathlib import Path

import soundfile

import nemo_speechllm

ROOT = Path(__file__).resolve().parents[1]
RECORDINGS = ROOT / "tests/recordings"
SPOKEN = RECORDINGS / "digits_theo.flac"
EXPECTED = ["three one four one five"], ["five one four one three"]
TEXTS = {
    "author": "Author of the danger trail, Philip Steels, etc.",
    "digits_jackson": "nine zero two seven",
    "digits_theo": "three one four one five",
    "evening": "For the twentieth time that evening the two men shook hands.",
}


def blocks(text: str, language: str) -> list[str]:
    """Code blocks of a language in a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def run_python(code: str) -> list[object]:
    """Run statements and return what the expressions among them give, calls of `transcribe`."""
    scope, answers = {}, []
    for statement in ast.parse(code).body:
        if isinstance(statement, ast.Expr):
            answers.append(eval(ast.unparse(statement), scope))
        else:
            exec(ast.unparse(statement), scope)
    return answers


def as_commands(block: str) -> str:
    """A block of the README for someone who has the wheel and no checkout, with a training of two steps."""
    lines = [line for line in block.splitlines() if not line.startswith(("{", "make "))]
    commands = re.sub(
        r"(?:\.venv/bin/)?python examples/([\w/]+)\.py",
        lambda found: "nemo-speechllm " + found[1].replace("/", " ").replace("_", "-"),
        "\n".join(lines),
    )
    return commands.replace(" name=mine", " name=mine trainer.max_steps=2 trainer.val_check_interval=2")


def prepare(folder: Path) -> None:
    """Put the recordings that the pages name, and a manifest of them, into a folder."""
    shutil.copy(SPOKEN, folder / "digits.flac")
    (folder / "new.wav").symlink_to(SPOKEN)
    rows = []
    for path in sorted(RECORDINGS.glob("*.flac")):
        duration = soundfile.info(path).duration
        rows += [{"audio_filepath": str(path), "duration": duration, "text": TEXTS[path.stem]}]
    (folder / "all.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def main() -> int:
    """Run the description's Python and shell, and the README's shell, in an empty folder."""
    assert ROOT / "nemo_speechllm" not in Path(nemo_speechllm.__file__).parents, "this is the checkout, not the wheel"
    description, readme = metadata("nemo_speechllm").get_payload(), (ROOT / "README.md").read_text(encoding="utf-8")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        os.chdir(folder)
        for block in [*blocks(description, "bash"), *blocks(readme, "bash")]:
            commands = as_commands(block)
            print(f"\n{commands}", flush=True)
            subprocess.run(["bash", "-euxo", "pipefail", "-c", commands], env=os.environ | {"PATH": path}, check=True)
        answers = run_python(*blocks(description, "python"))
    print(*answers, sep="\n")
    return int(answers != list(EXPECTED))


if __name__ == "__main__":
    sys.exit(main())

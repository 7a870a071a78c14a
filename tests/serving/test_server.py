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

"""The command: it says where it serves, ends when it is told to, and names what is wrong before it loads a model."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from omegaconf import OmegaConf

from nemo_speechllm.serving.server import ServeArguments, bound, check_limits, serve
from tests.serving.conftest import DIGITS, client_of

ROOT = Path(__file__).resolve().parents[2]


def command(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "nemo_speechllm", "serve", *arguments],
        cwd=ROOT,
        env=os.environ | {"NEMO_SPEECHLLM_API_KEY": "secret"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def of_container(instruction: str) -> list[str]:
    """Return the words of an instruction of the Dockerfile's last lines, which are a JSON list."""
    found = re.search(
        rf"^(?:HEALTHCHECK \S+ )?{instruction} (\[.*\])$", (ROOT / "Dockerfile").read_text(), re.MULTILINE
    )
    return json.loads(found[1])


def is_healthy(port: int) -> bool:
    """What the container's check of health finds of a server on a port."""
    python, *arguments = of_container("CMD")
    assert python == "python" and f":{ServeArguments.port}/" in arguments[-1]
    arguments[-1] = arguments[-1].replace(f":{ServeArguments.port}/", f":{port}/")
    return subprocess.run([sys.executable, *arguments], capture_output=True).returncode == 0


def test_a_container_serves_until_it_is_told_to_end():
    program, name, *settings = of_container("ENTRYPOINT")
    assert (program, name) == ("nemo-speechllm", "serve")
    process = command(*settings, "model=instruct_las_digits", "port=0")
    try:
        told = process.stdout.readline()
        assert told.startswith("serving instruct_las_digits on http://0.0.0.0:")
        port = int(told.rpartition(":")[2])
        assert is_healthy(port) and not is_healthy(1)
        address = f"http://127.0.0.1:{port}"
        client = client_of(address, "secret")
        answer = client.audio.transcriptions.create(model="instruct_las_digits", file=DIGITS.open("rb"))
        assert answer.text == "three one four one five"
        assert httpx.get(f"{address}/v1/models").status_code == 401
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (out, process.returncode) == ("", 130) and err.splitlines()[-1] == "error: interrupted"


def test_an_address_that_is_taken_is_named_before_a_model_is_loaded():
    with bound("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"host=127.0.0.1 port={port} cannot be served on .*in use.*; give another"):
            bound("127.0.0.1", port)
    with pytest.raises(OSError, match="port=99999"):
        bound("127.0.0.1", 99999)
    with pytest.raises(OSError, match="host=no.such.host.invalid"):
        bound("no.such.host.invalid", 80)


@pytest.mark.parametrize(
    "name", ["batch_size", "max_requests", "max_megabytes", "max_seconds", "max_characters", "timeout"]
)
def test_limits_by_which_nothing_would_be_answered_are_named(name):
    with pytest.raises(ValueError, match=f"{name}=0.*must be above 0"):
        check_limits(OmegaConf.structured(ServeArguments(model="x", **{name: 0})))


def test_a_folder_of_reports_that_is_not_there_is_named_before_a_model_is_loaded(tmp_path):
    with pytest.raises(NotADirectoryError, match="reports=.* there is no such folder"):
        serve(OmegaConf.structured(ServeArguments(model="no_such_model", reports=str(tmp_path / "none"))))

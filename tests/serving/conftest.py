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

"""Real servers on free ports, with a shipped model of digits and a tiny SALM, asked by OpenAI's client."""

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import openai
import pytest
import soundfile
import uvicorn

from nemo_speechllm.models import load_model
from nemo_speechllm.models.speech_lm import SpeechLM
from nemo_speechllm.serving.app import App
from nemo_speechllm.serving.server import bound
from nemo_speechllm.serving.service import Limits, Service
from tests.tiny_models import *  # noqa: F403  # fixtures

RECORDINGS = Path(__file__).resolve().parents[1] / "recordings"
DIGITS = RECORDINGS / "digits_theo.flac"


@contextmanager
def serving(models: dict[str, SpeechLM], limits: Limits | None = None, **settings) -> Iterator[str]:
    """Serve models and give the address; ``settings`` are those of `App`."""
    service, listener = Service(models, limits), bound("127.0.0.1", 0)
    given = {"api_key": None, "max_bytes": 2_000_000, "timeout": 120.0} | settings
    config = uvicorn.Config(App(service, **given).starlette(), log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        service.close()


@pytest.fixture(scope="session")
def digits() -> SpeechLM:
    return load_model("instruct_las_digits")


@pytest.fixture(scope="session")
def short() -> SpeechLM:
    """The same, and every recording over 2 s is cut."""
    model = load_model("instruct_las_digits")
    model.cfg.generation.max_audio_seconds = 2.0
    return model


@pytest.fixture(scope="session")
def address(digits: SpeechLM, short: SpeechLM) -> Iterator[str]:
    with serving({"digits": digits, "short": short}, Limits(seconds=60.0)) as address:
        yield address


@pytest.fixture
def client(address: str) -> openai.OpenAI:
    return client_of(address)


def client_of(address: str, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0)


def audio_file(samples: np.ndarray, rate: int = 16000) -> bytes:
    """The content of a FLAC file."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="FLAC")
    return file.getvalue()


@pytest.fixture
def spoken() -> Callable[[int], bytes]:
    """``spoken(n)`` → a FLAC in which n times five digits are said."""

    def make(times: int) -> bytes:
        samples, rate = soundfile.read(DIGITS, dtype="float32")
        return audio_file(np.concatenate([samples, np.zeros(rate // 2, np.float32)] * times), rate)

    return make

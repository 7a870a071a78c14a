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

"""The names of models, and what is asked of them; what is answered: tests/serving/test_app.py."""

import asyncio

import pytest

from nemo_speechllm.models.transcription import SpeechLMTranscribeConfig
from nemo_speechllm.serving.batching import REQUESTS, SECONDS
from nemo_speechllm.serving.errors import RequestError
from nemo_speechllm.serving.service import Limits, Service, named
from nemo_speechllm.serving.upload import Upload
from tests.serving.conftest import DIGITS


def test_a_model_is_served_by_the_name_of_its_file():
    references = ["salm_whisper_smollm2", "runs/mine/mine.nemo", "int8:runs/mine/mine.nemo", "org/name"]
    assert [name for name, _ in named(references)] == ["salm_whisper_smollm2", "mine", "int8:mine", "name"]
    prefixed = ["with_whisper:runs/mine.nemo", "int8:with_whisper:runs/mine.nemo", "with_whisper:org/name"]
    assert [name for name, _ in named(prefixed)] == [
        "with_whisper:mine",
        "int8:with_whisper:mine",
        "with_whisper:name",
    ]
    with pytest.raises(ValueError, match="a/x.nemo and b/x.nemo would both be served as x"):
        dict(named(["a/x.nemo", "b/x.nemo"]))


def test_a_request_gives_back_its_place_also_where_it_fails(digits):
    service = Service({"digits": digits}, Limits(seconds=5.0))

    async def ask(content: bytes, name: str = "digits") -> str:
        async with service.transcribing(
            name, Upload("a.wav", content), SpeechLMTranscribeConfig(timestamps=False)
        ) as pending:
            assert service.admission.held == {REQUESTS: 1, SECONDS: pending.seconds}
            return (await pending.whole()).text

    try:
        assert asyncio.run(ask(DIGITS.read_bytes())) == "three one four one five"
        for content, name, error in ((b"x", "digits", RuntimeError), (b"x", "other", RequestError)):
            with pytest.raises(error):
                asyncio.run(ask(content, name))
        assert service.admission.held == {REQUESTS: 0, SECONDS: 0}
    finally:
        service.close()

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

"""What a client is told of an error."""

import logging
import re

import pytest

from nemo_speechllm.audio.errors import AudioError
from nemo_speechllm.errors import InputError
from nemo_speechllm.serving.errors import RequestError, as_request_error


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (AudioError("a.wav: cut short"), 400, "invalid_audio"),
        (InputError("beam_size\n is 0"), 400, None),
        (ValueError("/secret/place"), 500, "internal_error"),
        (TypeError("'NoneType' object has no attribute secret"), 500, "internal_error"),
        (NotImplementedError("secret"), 500, "internal_error"),
        (RequestError("later", status=429), 429, None),
        (RuntimeError("/secret/place"), 500, "internal_error"),
        (MemoryError(), 500, "internal_error"),
        (OSError("/secret/place"), 500, "internal_error"),
    ],
)
def test_a_users_error_is_told_and_a_defect_is_not(error, status, code):
    told = as_request_error(error)
    assert (told.status, told.code) == (status, code)
    assert "secret" not in str(told) and "\n" not in str(told)


def test_a_defect_is_found_in_the_log_by_the_number_that_the_client_has(caplog):
    with caplog.at_level(logging.ERROR, "nemo_speechllm.serving"):
        told = [str(as_request_error(ValueError(f"/secret/{n}"))) for n in range(2)]
    numbers = [re.search(r"as error (\w{12})$", text)[1] for text in told]
    assert len(set(numbers)) == 2 and "secret" not in "".join(told)
    for number, record in zip(numbers, caplog.records, strict=True):
        assert number in record.getMessage() and "secret" in str(record.exc_info[1])


def test_the_body_is_openais():
    body = RequestError("no", "file", 413, "too_large").body
    assert body == {"error": {"message": "no", "type": "invalid_request_error", "param": "file", "code": "too_large"}}
    assert RequestError("no", status=503).body["error"]["type"] == "server_error"

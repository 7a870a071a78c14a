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

"""What a client is told where a request cannot be answered, in OpenAI's form."""

import logging
import uuid
from typing import Any

from nemo_speechllm.audio.errors import AudioError
from nemo_speechllm.errors import InputError

logger = logging.getLogger(__name__)
TYPES = {401: "authentication_error", 429: "rate_limit_error"}


class RequestError(Exception):
    """A request that is not answered; the message says what is wrong and the remedy.

    Attributes:
        status: of HTTP.
        param: the field that is meant.
        code: a word for programs.
        headers: of the response.
    """

    def __init__(
        self,
        message: str,
        param: str | None = None,
        status: int = 400,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ):
        super().__init__(message)
        self.param, self.status, self.code, self.headers = param, status, code, headers or {}

    @property
    def body(self) -> dict[str, Any]:
        """The JSON of the response."""
        kind = TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


def as_request_error(error: Exception) -> RequestError:
    """Return what a client is told of an error.

    One that is not meant for it is a defect of the server: the client is told a number, under which it is logged.
    """
    if isinstance(error, RequestError):
        return error
    if isinstance(error, AudioError):
        return RequestError(str(error), "file", code="invalid_audio")
    if isinstance(error, InputError):
        return RequestError(" ".join(str(error).split()))
    number = uuid.uuid4().hex[:12]
    logger.error("error %s: a request failed", number, exc_info=error)
    return RequestError(
        f"the server failed on this request; its log has the cause, as error {number}",
        status=500,
        code="internal_error",
    )

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

"""The routes: OpenAI's interface, health, metrics, the page that uses them, and reports."""

import asyncio
import base64
import hmac
import json
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, cast

from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from nemo_speechllm.models.answers import Answer
from nemo_speechllm.serving.chat import AskedChat, read_chat
from nemo_speechllm.serving.errors import RequestError, as_request_error
from nemo_speechllm.serving.formats import body_of, event, remarks
from nemo_speechllm.serving.forms import Asked, read_form
from nemo_speechllm.serving.pages import Reports, main_page
from nemo_speechllm.serving.service import Pending, Service
from nemo_speechllm.serving.upload import Upload

MAX_FIELD_BYTES = 1 << 18
MAX_FIELDS = 256
PATIENCE = 4  # clients that are still sending do not look for an answer
CLIENT_GONE = 499  # nginx's: nobody reads the response
# → what asks for the key, and how it is sent; reports are opened by a link, and a browser asks for Basic's alone
SCHEMES = {
    "Bearer": ("Bearer", "send `Authorization: Bearer KEY`"),
    "Basic": ('Basic realm="reports", charset="UTF-8"', "give it as the password that the browser asks for"),
}
Handler = Callable[[Request], Awaitable[Response]]


class App:
    """Answers HTTP requests by a service.

    Args:
        service: the models.
        api_key: what clients must send as ``Authorization: Bearer KEY``; None: nothing.
        max_bytes: of a request's body.
        timeout: seconds from a request's first byte to its answer.
        reports: under ``/reports/``; None: there is no such path.
    """

    def __init__(
        self, service: Service, api_key: str | None, max_bytes: int, timeout: float, reports: Reports | None = None
    ):
        self.service, self.api_key, self.max_bytes, self.timeout = service, api_key, max_bytes, timeout
        self.reports = reports
        self.started = int(time.time())

    def starlette(self) -> Starlette:
        """Return the application."""
        guarded = {
            "/v1/audio/transcriptions": (self.transcriptions, "POST"),
            "/v1/audio/translations": (self.translations, "POST"),
            "/v1/chat/completions": (self.chat_completions, "POST"),
            "/v1/models": (self.models, "GET"),
            "/v1/models/{name}": (self.model, "GET"),
        }
        routes = [
            Route(path, self._told(path, handler, self.api_key), methods=[method])
            for path, (handler, method) in guarded.items()
        ]
        routes += [Route(f"/{handler.__name__}", self._told("", handler)) for handler in (self.health, self.metrics)]
        routes.append(Route("/", self._told("", self.page)))
        if self.reports:
            routes.append(Route("/reports/{name:path}", self._told("", self.report, self.api_key, "Basic")))
        return Starlette(routes=routes, exception_handlers={HTTPException: _no_route})

    async def transcriptions(self, request: Request) -> Response:
        """Answer OpenAI's form of a transcription."""
        return await self._of_form(request, translate=False)

    async def translations(self, request: Request) -> Response:
        """Answer OpenAI's form of a translation."""
        return await self._of_form(request, translate=True)

    async def chat_completions(self, request: Request) -> Response:
        """Answer a conversation."""
        try:
            body = json.loads(b"".join([part async for part in self._limited(request)]))
        except (ValueError, RecursionError) as error:
            raise RequestError(f"the body is no JSON: {error}") from error
        asked = read_chat(body)
        selector = self.service.limits.channel_selector
        conversing = self.service.conversing(
            asked.model, asked.parts, lambda: asked.conversation(selector), **asked.options
        )
        async with AsyncExitStack() as stack:
            pending = await stack.enter_async_context(conversing)
            answer = await _unless_gone(request, pending.whole())
        return _completion(asked, answer)

    async def models(self, request: Request) -> Response:
        """List the models."""
        return JSONResponse({"object": "list", "data": [self._model(name) for name in self.service.models]})

    async def model(self, request: Request) -> Response:
        """Describe a model."""
        self.service.model(request.path_params["name"])
        return JSONResponse(self._model(request.path_params["name"]))

    async def health(self, request: Request) -> Response:
        """Say whether requests are answered."""
        alive = self.service.batcher.alive
        return JSONResponse({"status": "ok" if alive else "no longer answering"}, 200 if alive else 503)

    async def metrics(self, request: Request) -> Response:
        """Show what Prometheus reads."""
        page, media_type = self.service.metrics.page()
        return Response(page, media_type=media_type)

    async def page(self, request: Request) -> Response:
        """Show the page that uses the routes."""
        return main_page(has_reports=self.reports is not None)

    async def report(self, request: Request) -> Response:
        """Show a report, or the list of them."""
        assert self.reports is not None, "else there is no such route"
        name = request.path_params["name"]
        page = await asyncio.to_thread(self.reports.page, name)
        if page is None:
            raise RequestError(f"there is no report {name[:200]!r}; /reports/ lists them", status=404)
        return page

    def _model(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self.started, "owned_by": "nemo_speechllm"}

    async def _of_form(self, request: Request, translate: bool) -> Response:
        upload, asked = await self._form(request, translate)
        async with AsyncExitStack() as stack:
            transcribing = self.service.transcribing(asked.model, upload, asked.settings)
            pending = await stack.enter_async_context(transcribing)
            if not asked.stream:
                return _response(
                    body_of(await _unless_gone(request, pending.whole()), asked, pending.seconds, translate)
                )
            await _unless_gone(request, asyncio.wait(pending.answers[:1]))
            pending.answers[0].result()  # what fails at once has its status
            return _Held(stack.pop_all(), _events(pending, asked, translate))

    async def _form(self, request: Request, translate: bool) -> tuple[Upload, Asked]:
        """Return the recording that was sent, and what is asked."""
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise RequestError("send multipart/form-data with the recording as `file`", "file")
        parser = MultiPartParser(
            request.headers,
            self._limited(request),
            max_files=1,
            max_fields=MAX_FIELDS,
            max_part_size=MAX_FIELD_BYTES,
        )
        try:
            form = await parser.parse()
        except MultiPartException as error:
            raise RequestError(f"the form cannot be read: {error.message}") from error
        try:
            files = [value for name, value in form.multi_items() if name == "file"]
            if len(files) != 1 or not isinstance(files[0], UploadFile):
                raise RequestError("send one recording as `file`, as an upload: its content with a file name", "file")
            upload = Upload.of_file(files[0].filename, await files[0].read())
            asked = read_form([item for item in form.multi_items() if item[0] != "file"], translate)
        finally:
            await form.close()
        if not upload.content:
            raise RequestError("file is empty", "file", code="invalid_audio")
        return upload, asked

    async def _limited(self, request: Request) -> AsyncGenerator[bytes, None]:
        """Yield the body; of one that is too large a few times as much is read, that its client reads the answer."""
        declared, received = int(request.headers.get("content-length") or 0), 0
        if declared <= PATIENCE * self.max_bytes:
            async for part in request.stream():
                received += len(part)
                if received > PATIENCE * self.max_bytes:
                    break
                if max(declared, received) <= self.max_bytes:
                    yield part
        received = max(declared, received)
        if received > self.max_bytes:
            raise RequestError(
                f"the request is larger than the {self.max_bytes} bytes that this server takes; send the recording "
                "in parts, or as FLAC or Opus",
                *("file", 413, "request_too_large"),
            )

    def _told(self, path: str, handler: Handler, api_key: str | None = None, scheme: str = "Bearer") -> Handler:
        """Return a handler that tells a client what went wrong, and the metrics what was answered."""

        async def told(request: Request) -> Response:
            began = time.perf_counter()
            try:
                _check_key(request, api_key, scheme)
                async with asyncio.timeout(self.timeout):
                    response = await handler(request)
            except Exception as error:
                response = self._failure(error)
            if path:
                self.service.metrics.requests.labels(path, response.status_code).inc()
                self.service.metrics.seconds.labels(path).observe(time.perf_counter() - began)
            return response

        return told

    def _failure(self, error: Exception) -> Response:
        if isinstance(error, ClientDisconnect):
            return Response(status_code=CLIENT_GONE)
        if isinstance(error, TimeoutError):
            error = RequestError(
                f"the request took longer than {self.timeout:g} s; try again later, or send less",
                *(None, 503, "timeout", {"Retry-After": "10"}),
            )
        told = as_request_error(error)
        return JSONResponse(told.body, told.status, told.headers)


class _Held(StreamingResponse):
    """Events of a request that is held until the last one is sent, or nobody reads on."""

    def __init__(self, held: AsyncExitStack, events: AsyncIterator[str]):
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._held:
            await super().__call__(scope, receive, send)


async def _events(pending: Pending, asked: Asked, translate: bool) -> AsyncIterator[str]:
    """Yield OpenAI's events of a transcription: the text of each piece when it is there, then the whole body."""
    whole = replace(asked, response_format="json") if asked.response_format == "text" else asked
    text = ""
    try:
        async for answer in pending.pieces():
            delta = f"{' ' if text and answer.text else ''}{answer.text}"
            text += delta
            if delta:
                yield event({"type": "transcript.text.delta", "delta": delta})
        body = body_of(await pending.whole(), whole, pending.seconds, translate)
        yield event({"type": "transcript.text.done"} | cast(dict[str, Any], body))
    except Exception as error:
        yield event(as_request_error(error).body)


def _completion(asked: AskedChat, answer: Answer) -> Response:
    """Return an answer as OpenAI's chat completion, or as its events."""
    reason = "length" if answer.truncated else "stop"
    told = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": asked.model}
    if not asked.stream:
        message = {"role": "assistant", "content": answer.text} | remarks(answer)
        choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
        return JSONResponse({"object": "chat.completion", "choices": [choice]} | told)
    deltas = [({"role": "assistant", "content": answer.text}, None), ({}, reason)]
    choices = [{"index": 0, "delta": delta, "finish_reason": ended} for delta, ended in deltas]
    events = [event({"object": "chat.completion.chunk", "choices": [choice]} | told) for choice in choices]
    return Response("".join([*events, event("[DONE]")]), media_type="text/event-stream")


def _response(body: dict[str, Any] | str) -> Response:
    return PlainTextResponse(body) if isinstance(body, str) else JSONResponse(body)


async def _unless_gone(request: Request, answer: Any) -> Any:
    """Return what is awaited, unless the client goes away before."""
    awaited = asyncio.ensure_future(answer)
    try:
        while not (await asyncio.wait([awaited], timeout=1.0))[0]:
            if await request.is_disconnected():
                raise ClientDisconnect
        return awaited.result()
    finally:
        awaited.cancel()


def _check_key(request: Request, api_key: str | None, scheme: str) -> None:
    given = request.headers.get("authorization", "")
    is_basic = scheme == "Basic" and given.startswith("Basic ")
    sent = _password(given) if is_basic else given.removeprefix("Bearer ").strip().encode()
    if api_key is not None and not hmac.compare_digest(sent, api_key.encode()):
        challenge, remedy = SCHEMES[scheme]
        raise RequestError(
            f"the API key is missing or wrong; {remedy}",
            *(None, 401, "invalid_api_key", {"WWW-Authenticate": challenge}),
        )


def _password(given: str) -> bytes:
    """Return the password of an ``Authorization: Basic``; nothing where it cannot be read."""
    try:
        return base64.b64decode(given.removeprefix("Basic "), validate=True).partition(b":")[2]
    except ValueError:
        return b""


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    told = RequestError(f"{request.method} {request.url.path[:200]}: {error.detail}", status=error.status_code)
    return JSONResponse(told.body, told.status, error.headers)

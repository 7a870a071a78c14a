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

"""A stand-in for a remote LLM: an OpenAI-compatible server on this machine."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Endpoint(ThreadingHTTPServer):
    """
    Attributes:
        script: (status, headers, body) of the next answers; after them, a description that depends on the message.
        seconds: an answer takes.
        requests: (path, body, authorization) of each.
        peak: most requests under way at a time.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.script, self.seconds, self.requests = [], 0.0, []
        self.under_way, self.peak, self.mutex = 0, 0, threading.Lock()

    def handle_error(self, request, client_address):
        """A client that was killed is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.mutex:
            self.server.requests.append((self.path, body, self.headers.get("Authorization")))
            self.server.under_way += 1
            self.server.peak = max(self.server.peak, self.server.under_way)
            status, headers, answer = self.server.script.pop(0) if self.server.script else (200, {}, None)
        time.sleep(self.server.seconds)
        with self.server.mutex:
            self.server.under_way -= 1
        content = json.dumps(answer or completion(describe(body["messages"][0]["content"]))).encode()
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


def describe(message: str) -> str:
    return f"I can hear a voice, {hashlib.sha1(message.encode()).hexdigest()[:8]}."


def completion(text: str, finish_reason: str = "stop") -> dict:
    return {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}]}


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()

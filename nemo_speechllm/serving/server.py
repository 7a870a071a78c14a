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

"""`nemo-speechllm serve`: loads the models and answers until it is stopped."""

import os
import socket
from dataclasses import dataclass
from typing import Any

from nemo.utils import logging
from omegaconf import MISSING, OmegaConf

from nemo_speechllm.command_line import emit
from nemo_speechllm.models import load_model

try:
    import uvicorn

    from nemo_speechllm.serving.app import App
    from nemo_speechllm.serving.pages import Reports
    from nemo_speechllm.serving.service import Limits, Service, named
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"the server needs {error.name}, which is not installed: pip install 'nemo_speechllm[serve]'"
    ) from error

API_KEY = "NEMO_SPEECHLLM_API_KEY"
LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass
class ServeArguments:
    """Which models are served, where, and what is taken."""

    model: Any = MISSING  # a model or a list: names of shipped checkpoints, .nemo files, hub ids
    host: str = "127.0.0.1"  # 0.0.0.0: also other machines
    port: int = 8000  # 0: any that is free
    api_key: str | None = None  # None: that of NEMO_SPEECHLLM_API_KEY, if any
    batch_size: int = 8  # pieces of recordings that are answered together
    max_requests: int = 64  # that wait or are being answered; further ones get 429
    max_megabytes: float = 25.0  # of a request
    max_seconds: float = 3600.0  # of audio in a request
    max_characters: int = 8000  # of text that the model reads in a request
    timeout: float = 600.0  # seconds for a request
    channel_selector: Any = "average"  # of recordings with several channels: a number or average
    reports: str | None = None  # folder of reports to be read under /reports/, those of folders beneath too


def serve(cfg: ServeArguments) -> None:
    """Load the models and answer requests until the process is told to end.

    Raises:
        ValueError: a setting cannot be.
        OSError: the address is taken.
        CheckpointError: a model cannot be restored.
        KeyboardInterrupt: it is told to.
    """
    check_limits(cfg)
    reports = Reports(cfg.reports) if cfg.reports else None
    listener = bound(cfg.host, cfg.port)
    references = list(cfg.model) if OmegaConf.is_list(cfg.model) else [str(cfg.model)]
    places = dict(named(references))
    key = cfg.api_key or os.environ.get(API_KEY) or None
    if key is None and cfg.host not in LOCAL:
        logging.warning(f"host={cfg.host} is open to other machines, and anyone may ask: set {API_KEY}")
    limits = Limits(cfg.batch_size, cfg.max_requests, cfg.max_seconds, cfg.channel_selector, cfg.max_characters)
    service = Service({name: load_model(reference, answers_only=True) for name, reference in places.items()}, limits)
    app = App(service, key, int(cfg.max_megabytes * 1e6), cfg.timeout, reports).starlette()
    host, port = listener.getsockname()[:2]
    emit(f"serving {', '.join(places)} on http://{host}:{port}")
    try:
        uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off")).run(sockets=[listener])
    finally:
        service.close()
    raise KeyboardInterrupt  # uvicorn ends by a signal alone and raises it again, where nobody may catch it


def check_limits(cfg: ServeArguments) -> None:
    """Refuse limits by which nothing would be answered.

    Raises:
        ValueError: one is not above 0; it is named.
    """
    for name in ("batch_size", "max_requests", "max_megabytes", "max_seconds", "max_characters", "timeout"):
        if not getattr(cfg, name) > 0:
            raise ValueError(f"{name}={getattr(cfg, name)} must be above 0")


def bound(host: str, port: int) -> socket.socket:
    """Return a socket at an address, before anything is loaded.

    Raises:
        OSError: the address is taken, or none of this machine; it is named.
    """
    try:
        if port not in range(1 << 16):  # which getaddrinfo would cut
            raise OSError("a port is a number from 0 to 65535")
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except (OSError, OverflowError) as error:
        raise OSError(
            f"host={host} port={port} cannot be served on ({error}); give another, port=0 for any"
        ) from error
    return listener

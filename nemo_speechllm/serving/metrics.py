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

"""What Prometheus reads of a server."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

PREFIX = "nemo_speechllm"
SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """Counts of one server: requests by path and status, their time, the audio in them, batches, what waits."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(f"{PREFIX}_requests", "Requests answered", ["path", "status"], registry=registry)
        self.seconds = Histogram(
            f"{PREFIX}_request_seconds",
            "Time from a request to its response",
            ["path"],
            registry=registry,
            buckets=SECONDS,
        )
        self.audio_seconds = Counter(f"{PREFIX}_audio_seconds", "Audio in requests answered", registry=registry)
        self.batch_size = Histogram(
            f"{PREFIX}_batch_pieces", "Pieces answered together", buckets=(1, 2, 4, 8, 16, 32, 64), registry=registry
        )

    def watch(self, requests: Callable[[], float], pieces: Callable[[], float]) -> None:
        """Show how many requests are in work, and how many pieces of theirs wait."""
        held = Gauge(f"{PREFIX}_requests_in_work", "Requests that wait or are being answered", registry=self.registry)
        waiting = Gauge(f"{PREFIX}_pieces_waiting", "Pieces that wait", registry=self.registry)
        held.set_function(requests)
        waiting.set_function(pieces)

    def page(self) -> tuple[bytes, str]:
        """Return what is exposed, and its type."""
        return generate_latest(self.registry), CONTENT_TYPE_PLAIN_0_0_4

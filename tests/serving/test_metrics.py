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

"""What Prometheus reads."""

from prometheus_client.parser import text_string_to_metric_families

from nemo_speechllm.serving.metrics import Metrics


def test_counts_are_those_of_one_server():
    metrics, other = Metrics(), Metrics()
    for each in (metrics, other):
        each.watch(lambda: 3, lambda: 5)
    metrics.requests.labels("/v1/models", 200).inc()
    metrics.batch_size.observe(2)
    page, media_type = metrics.page()
    values = {s.name: s.value for family in text_string_to_metric_families(page.decode()) for s in family.samples}
    assert values["nemo_speechllm_requests_total"] == 1 and values["nemo_speechllm_batch_pieces_sum"] == 2
    assert (values["nemo_speechllm_requests_in_work"], values["nemo_speechllm_pieces_waiting"]) == (3, 5)
    assert b"/v1/models" not in other.page()[0] and media_type.startswith("text/plain")

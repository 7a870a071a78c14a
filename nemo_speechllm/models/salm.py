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

"""SALM: Speech-augmented Language Model with In-context Learning (2310.09424)."""

from typing import ClassVar

from nemo_speechllm.models.ctc_head_lm import CTCHeadSpeechLM


class SALM(CTCHeadSpeechLM):
    """Audio encoder → conformer modality adapter → linear → frozen LLM with LoRA (2310.09424, section 2).

    The prompt is ``[audio][keywords][instruction]`` inside the LLM's chat template and the loss covers the answer;
    both ASR and translation are asked for by instruction. The encoder is any NeMo ASR encoder or Whisper's. CTC that
    aligns the adapter's output with the LLM's tokens (``loss.ctc_weight``), and a CTC head whose posteriors the LLM
    reads (``ctc_head``, ``ctc_posterior``), are this package's.
    """

    deaf_remedy: ClassVar[str] = (
        "teach the adapter by CTC first (conf/salm/whisper_smollm2_warmup.yaml), keep model.loss.ctc_weight above 0, "
        "let LoRA train only once the adapter is heard, train on more voices, or let the LLM read CTC's posteriors, "
        "which it learns from text alone (conf/salm/whisper_smollm2_posterior.yaml)"
    )

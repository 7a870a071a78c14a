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

"""Weights as they leave: with LoRA merged, and rounded."""

from collections.abc import Iterable
from typing import cast

import torch
from torch import nn

from nemo_speechllm.export.limits import refuse
from nemo_speechllm.models.salm import SALM
from nemo_speechllm.models.speech_lm import SpeechLM
from nemo_speechllm.modules.llm import merge_lora


def merged(model: SpeechLM, form: str, obstacles: Iterable[str], dtype: torch.dtype | None) -> SALM:
    """Return a SALM that can be exported with its LoRA merged and its weights rounded, in place.

    Args:
        form: the format, as it is asked for.
        obstacles: see `refuse`; there are some for what is no SALM.
        dtype: what the weights are rounded to; None: they stay as they are.

    Raises:
        ExportError: something stands in the way.
        ValueError: a weight is too large for ``dtype``.
    """
    refuse(model, form, obstacles)
    salm = cast(SALM, model)
    merge_lora(salm.llm)
    if dtype is not None:
        round_weights(salm.named_parameters(), dtype)
    return salm


def round_weights(parameters: Iterable[tuple[str, nn.Parameter]], dtype: torch.dtype) -> None:
    """Hold parameters, with their names, in another type; what is no floating-point number stays.

    Raises:
        ValueError: one has values that the type cannot hold.
    """
    for name, parameter in parameters:
        if parameter.is_floating_point():
            rounded = parameter.data.to(dtype)
            if not torch.isfinite(rounded).all():
                raise ValueError(f"{name} has values that {dtype} cannot hold; use dtype=bfloat16")
            parameter.data = rounded

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

"""Weights as they leave: rounded."""

from collections.abc import Iterable

import torch
from torch import nn


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

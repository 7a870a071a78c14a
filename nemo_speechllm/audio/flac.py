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

"""Recordings that are written whole or not at all."""

from pathlib import Path

import numpy as np
import soundfile

from nemo_speechllm.files import whole_file


def write_flac(target: Path, samples: np.ndarray, sample_rate: int) -> None:
    """Write (T,) samples as 16-bit FLAC under a temporary name, then rename it; the folder is made if missing.

    Args:
        samples: int16, or floats of full scale ±1.
        sample_rate: Hz.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as partial:
        soundfile.write(partial, samples, sample_rate, format="FLAC", subtype="PCM_16")

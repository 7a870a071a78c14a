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

"""Recordings are written whole, with the samples they were given."""

import numpy as np
import pytest
import soundfile

from nemo_speechllm.audio.flac import write_flac


@pytest.mark.parametrize("samples", [np.array([0, 1, -32768, 32767], np.int16), np.array([0.0, 0.5, -1.0, 0.25])])
def test_samples_come_back(samples, tmp_path):
    path = tmp_path / "new" / "a.flac"
    write_flac(path, samples, 8000)
    found, rate = soundfile.read(path, dtype="int16")
    wanted = samples if samples.dtype == np.int16 else samples * 32768
    assert (
        rate == 8000
        and found == pytest.approx(wanted, abs=1)
        and [file.name for file in path.parent.iterdir()] == ["a.flac"]
    )


def test_what_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(ValueError):
        write_flac(tmp_path / "a.flac", np.array(["no sound"]), 8000)
    assert list(tmp_path.iterdir()) == []

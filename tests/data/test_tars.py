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

"""Tar files of audio are looked into before a training, and what NeMo's filters leave out is named and counted."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nemo_speechllm.audio.errors import AudioError
from nemo_speechllm.data.tars import check_tars


def flac(seconds: float = 0.5) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.random.default_rng(0).normal(0, 0.1, round(16000 * seconds)), 16000, format="FLAC")
    return buffer.getvalue()


def tar_of(path: Path, **members: bytes) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name.replace("_", "."))
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_the_first_and_the_last_recording_are_decoded(tmp_path):
    good, cut = flac(), flac()[:-2000]
    check_tars([tar_of(tmp_path / "good.tar", a_json=b"{}", a_flac=good, b_flac=good, b_json=b"{}")])
    for name, members in {"first": {"a_flac": cut, "b_flac": good}, "last": {"a_flac": good, "b_flac": cut}}.items():
        wrong = "a" if name == "first" else "b"
        with pytest.raises(AudioError, match=rf"{name}\.tar: its member {wrong}\.flac"):
            check_tars([tar_of(tmp_path / f"{name}.tar", **members)])
    with pytest.raises(AudioError, match="its member a.flac: the audio cannot be read"):
        check_tars([tar_of(tmp_path / "text.tar", a_flac=b"no audio")])


def test_a_damaged_or_empty_tar_is_named(tmp_path):
    whole = tar_of(tmp_path / "a.tar", a_flac=flac(), b_flac=flac()).read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"x" * 5000, whole[:300]):
        (tmp_path / "a.tar").write_bytes(content)
        with pytest.raises(AudioError, match=r"a\.tar"):
            check_tars([tmp_path / "a.tar"])
    with pytest.raises(AudioError, match="holds no audio"):
        check_tars([tar_of(tmp_path / "a.tar", a_json=b"{}")])

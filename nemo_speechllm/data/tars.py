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

"""Looks into tar files of audio before a training: the first and the last recording of each is decoded, no more."""

import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import cast

from nemo_speechllm.audio.audio_file import read_audio
from nemo_speechllm.audio.errors import AudioError

NO_AUDIO = (".json", ".jsonl", ".txt", ".nodata", ".nometa")


def check_tars(paths: Iterable[str | Path]) -> None:
    """Decode the first and the last recording of each tar file.

    Raises:
        AudioError: a tar file is damaged or without audio, or one of the two cannot be read; file and member are
            named.
    """
    for path in paths:
        try:
            _check_tar(Path(path))
        except (tarfile.TarError, EOFError, OSError) as error:
            raise AudioError(
                f"{path} is no whole tar file ({type(error).__name__}: {error}); copy it again, or make it anew"
            ) from error


def _check_tar(path: Path) -> None:
    with tarfile.open(path) as tar:
        members = [member for member in tar if member.isfile() and not member.name.endswith(NO_AUDIO)]
        if not members:
            raise AudioError(f"{path} holds no audio; make it anew, or leave it out")
        for member in {members[0].name: members[0], members[-1].name: members[-1]}.values():
            content = cast(tarfile.ExFileObject, tar.extractfile(member)).read()
            name = f"{path}: its member {member.name}"
            if len(content) < member.size:
                raise AudioError(f"{name} ends early, as the tar file does; copy it again, or make it anew")
            read_audio(content, name=name)

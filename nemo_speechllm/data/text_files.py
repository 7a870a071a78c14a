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

"""Files with a text a line, of which models learn without audio: checked before NeMo opens them."""

from pathlib import Path


def check_text_file(path: str | Path) -> None:
    """Refuse a file of texts, a sentence or a JSON object a line, that cannot be read or holds none.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no text in UTF-8, or all of its lines are blank.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of texts {path}; the path counts from {Path.cwd()}")
    is_empty = True
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                is_empty = not line.decode().strip() and is_empty
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}:{number}: not UTF-8 ({error}); save it as UTF-8, `iconv -f latin1 -t utf8 OLD >NEW` say"
                ) from error
    if is_empty:
        raise ValueError(f"{path} has no text: its lines are blank, or there are none; write a sentence a line")

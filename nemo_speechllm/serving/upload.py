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

"""A recording that a client sends."""

from dataclasses import dataclass

MAX_NAME = 80  # characters of a name that are said


@dataclass(frozen=True)
class Upload:
    """The content of an audio file, and what messages call it; the name opens nothing.

    Attributes:
        name: of the file, or its place in the request.
        content: of any format that is read.
    """

    name: str
    content: bytes

    @classmethod
    def of_file(cls, filename: str | None, content: bytes) -> "Upload":
        """Return a file of a form, whose name is the client's to choose."""
        said = "".join(letter for letter in filename or "" if letter.isprintable())
        return cls(said[:MAX_NAME] or "file", content)

    def read(self) -> bytes:
        """Return the content, as an opened file does."""
        return self.content

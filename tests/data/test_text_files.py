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

"""Files with a text a line."""

import pytest

from nemo_speechllm.data.text_files import check_text_file


def test_what_is_no_text_is_named_with_its_remedy(tmp_path):
    path = tmp_path / "menu.txt"
    with pytest.raises(FileNotFoundError, match=f"there is no file of texts {path}; the path counts from"):
        check_text_file(path)
    for content in (b"", b"\n \n"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{path} has no text: .*; write a sentence a line"):
            check_text_file(path)
    path.write_bytes("A coffee.\nA café crème.\n".encode("latin-1"))
    with pytest.raises(ValueError, match=f"{path}:2: not UTF-8 .*; save it as UTF-8"):
        check_text_file(path)
    path.write_text("\nUn café crème.\n", encoding="utf-8")
    check_text_file(path)

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

"""What a recording is called that a client sends."""

import pytest

from nemo_speechllm.serving.upload import MAX_NAME, Upload


@pytest.mark.parametrize(
    ("filename", "said"),
    [
        ("call 7.wav", "call 7.wav"),
        ("zwölf.flac", "zwölf.flac"),
        ("a\n\x1b[31m\u202eb\ud800.wav", "a[31mb.wav"),
        ("x" * 300, "x" * MAX_NAME),
        ("\n", "file"),
        ("", "file"),
        (None, "file"),
    ],
)
def test_a_file_s_name_is_said_in_one_short_line(filename, said):
    upload = Upload.of_file(filename, b"content")
    assert (upload.name, upload.read()) == (said, b"content")

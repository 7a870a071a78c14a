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

"""A text file appears whole or not at all, and an error names it rather than what was written first."""

import pytest

from nemo_speechllm.data.manifest import write_manifest
from nemo_speechllm.metrics.report import write_text


@pytest.mark.parametrize(
    "write", [lambda path: write_manifest(path, [{"text": "a"}]), lambda path: write_text(path, "a")]
)
def test_an_error_names_the_target(write, tmp_path):
    (tmp_path / "folder").mkdir()
    for path in ("/proc/out.jsonl", str(tmp_path / "folder")):
        with pytest.raises(OSError) as caught:
            write(path)
        assert caught.value.filename == path and ".part" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_an_error_of_what_is_written_stays_as_it_is(tmp_path):
    def rows():
        yield {"text": "a"}
        raise FileNotFoundError("a.wav does not exist")

    with pytest.raises(FileNotFoundError, match="^a.wav does not exist$"):
        write_manifest(tmp_path / "m.jsonl", rows())
    assert not list(tmp_path.iterdir())

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

"""The journal of finished rows that survives a kill."""

import pytest

from nemo_speechllm.journal import Journal


def test_takes_up_whole_lines_and_writes_on_after_a_torn_one(tmp_path):
    Journal(tmp_path / "new" / "rows.jsonl").append([{"id": "a\u2028b"}])
    path = tmp_path / "new" / "rows.jsonl"
    with open(path, "ab") as output:
        output.write('{"id": "ж'.encode()[:-1])
    journal = Journal(path)
    journal.append([{"id": "c"}])
    journal.append([{"id": "d"}, {"id": "e"}])
    assert journal.rows == Journal(path).rows == [{"id": id} for id in ("a\u2028b", "c", "d", "e")]


def test_reading_leaves_alone_what_another_process_is_writing(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"id": 1}\n{"id"')
    assert Journal(path).rows == [{"id": 1}]
    assert path.read_text() == '{"id": 1}\n{"id"'


def test_names_the_file_and_the_line_that_is_damaged(tmp_path):
    (tmp_path / "rows.jsonl").write_text("{}\noops\n")
    with pytest.raises(ValueError, match="rows.jsonl:2: not a finished row .*remove the folder"):
        Journal(tmp_path / "rows.jsonl", "a finished row")

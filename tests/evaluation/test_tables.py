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

"""Tables of any report by one helper: columns in line, and a dash where there is no number."""

from nemo_speechllm.evaluation.tables import decimal, format_interval, markdown_table, percent, text_table


def test_columns_stand_in_line():
    table = text_table(["", "utts", "WER %"], [["en", "5", "12.30"], ["macro", "", "-"]])
    assert table.splitlines() == ["       utts  WER %", "en        5  12.30", "macro            -"]


def test_markdown_has_a_rule_below_the_head():
    assert markdown_table(["a", "b"], [["1", "2"]]).splitlines() == ["| a | b |", "|---|---|", "| 1 | 2 |"]
    assert markdown_table(["a"], []).splitlines() == ["| a |", "|---|"]


def test_what_is_not_known_is_a_dash():
    assert [percent(0.1234), percent(0.1234, 2), percent(None)] == ["12.3", "12.34", "-"]
    assert [decimal(1 / 3), decimal(None)] == ["0.33", "-"]
    assert [format_interval([0.1, 0.25]), format_interval(None)] == ["10.0–25.0", "-"]

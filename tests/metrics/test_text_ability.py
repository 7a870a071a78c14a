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

"""The count of tokens by which answers differ."""

import pytest

from nemo_speechllm.files import as_object
from nemo_speechllm.metrics.text_ability import differing_tokens, read_questions, text_ability_report


def test_the_package_s_questions_are_distinct():
    questions = read_questions()
    assert len(questions) == len(set(questions)) == 20


def test_a_file_without_a_question_is_refused(tmp_path):
    (tmp_path / "q.txt").write_text("\n \n")
    with pytest.raises(ValueError, match="q.txt has no question"):
        read_questions(tmp_path / "q.txt")


@pytest.mark.parametrize(
    "ids, others, differing",
    [([], [], 0), ([1, 2], [1, 2], 0), ([1, 2], [1, 3], 1), ([1], [1, 2, 3], 2), ([], [4], 1)],
)
def test_places_that_differ_are_counted(ids, others, differing):
    assert differing_tokens(ids, others) == differing_tokens(others, ids) == differing


def test_the_report_adds_up():
    answers = [{"llm_ids": [1, 2], "differing_tokens": 0}, {"llm_ids": [3], "differing_tokens": 2}]
    assert as_object(text_ability_report(answers)) == {
        "questions": 2,
        "tokens": 3,
        "differing_tokens": 2,
        "differing_answers": 1,
        "identical": False,
    }
    assert text_ability_report(answers[:1]).identical

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

"""What a judge is asked, how it is read, what is made of it."""

import pytest

from nemo_speechllm.evaluation.tables import format_judge_table
from nemo_speechllm.metrics.judge import ORDERS, judge_message, judge_report, read_prompt, read_scores

ROW = {
    "instruction": "Who speaks {first}?",
    "answer": "A woman.",
    "pred_text": "{question} A man.",
    "description": "Female.",
}


def test_both_orders_show_the_same_answers_in_other_places():
    first, second = (judge_message("{description}|{question}|{first}|{second}", ROW, order) for order in ORDERS)
    assert first == "Female.|Who speaks {first}?|A woman.|{question} A man."
    assert second == "Female.|Who speaks {first}?|{question} A man.|A woman."


def test_the_package_s_prompt_holds_everything_and_says_where_nothing_is_known():
    message = judge_message(read_prompt(), ROW | {"description": None}, "answer_first")
    assert all(text in message for text in (ROW["instruction"], ROW["answer"], ROW["pred_text"], "Nothing but what"))
    assert message.index(ROW["pred_text"]) < message.index(ROW["answer"])


def test_a_prompt_without_a_slot_is_refused(tmp_path):
    (tmp_path / "p.txt").write_text("{question} {first}")
    with pytest.raises(ValueError, match="p.txt: a judge's prompt needs {description}, {second}"):
        read_prompt(tmp_path / "p.txt")


@pytest.mark.parametrize(
    "text, scores",
    [
        ("8 5\nThe first is better.", (8, 5)),
        ("Here they are:\n\n 10, 7.5 \nBecause.", (10, 7.5)),
        ("9;1", (9, 1)),
        ("8 5\n3 3", (8, 5)),
        ("8", None),
        ("Scores: 8 5", None),
        ("0 5", None),
        ("11 5", None),
        ("8 5 3", None),
        ("85", None),
        ("", None),
    ],
)
def test_scores_are_a_line_of_two_numbers(text, scores):
    found = [read_scores(text, order) for order in ORDERS]
    if scores is None:
        assert found == [None, None]
    else:
        reference_first = dict(zip(("reference", "answer"), scores, strict=True))
        assert found == [reference_first, dict(zip(("answer", "reference"), scores, strict=True))]


def judged(index, reference_first, answer_first, category="speech"):
    """Two judgements; scores are (of the reference, of the answer)."""
    for order, scores in zip(ORDERS, (reference_first, answer_first), strict=True):
        named = scores and dict(zip(("reference", "answer"), scores, strict=True))
        yield {"index": index, "category": category, "order": order, "scores": named}


def test_orders_are_averaged_and_unparsed_judgements_counted():
    judgements = [*judged(0, (8, 4), (6, 6)), *judged(1, (8, 2), (8, 2)), *judged(2, (9, 9), None)]
    judgements += judged(3, None, None, "sound")
    report = judge_report(judgements)
    speech = report.categories["speech"]
    assert (speech.questions, speech.scored) == (3, 2)
    assert (speech.score, speech.reference_score, speech.order_difference) == (3.5, 7.5, 1.0)
    assert speech.ci == [2.0, 5.0] and speech.parse_failures == pytest.approx(1 / 6)
    sound = report.categories["sound"]
    assert (sound.score, sound.ci, sound.parse_failures) == (None, None, 1.0)
    assert report.all.score == 3.5 and report.all.parse_failures == pytest.approx(3 / 8)
    table = format_judge_table(report).splitlines()
    assert len(table) == 4 and "3.50" in table[-1] and "37.5" in table[-1]

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

"""Which label an answer names."""

import pytest

from nemo_speechllm.evaluation.tables import format_classification_table
from nemo_speechllm.metrics.classification import choose_label, classification_report

EMOTIONS = ("happy", "sad", "neutral")


@pytest.mark.parametrize(
    "answer, labels, choice",
    [
        ("The speaker sounds Happy!", EMOTIONS, "happy"),
        ("happy", EMOTIONS, "happy"),
        ("Happy. Very happy.", EMOTIONS, "happy"),
        ("I cannot tell.", EMOTIONS, None),
        ("", EMOTIONS, None),
        ("happy or sad", EMOTIONS, None),
        ("unhappy", EMOTIONS, None),
        ("A female voice.", ("male", "female"), "female"),
        ("It is not sarcastic.", ("sarcastic", "not sarcastic"), "not sarcastic"),
        ("It is sarcastic.", ("sarcastic", "not sarcastic"), "sarcastic"),
        ("not sarcastic? No: sarcastic", ("sarcastic", "not sarcastic"), None),
        ("Turn the lights on", ("turn the lights on", "turn the lights off"), "turn the lights on"),
        ("the lights, turn on", ("turn the lights on", "turn the lights off"), None),
        ('{"gender": "Female"}', ("Male", "Female"), "Female"),
        ("Это радость.", ("радость", "грусть"), "радость"),
        ("वह खुशी है।", ("खुश", "खुशी"), "खुशी"),
        ("说话人很高兴。", ("高兴", "悲伤"), "高兴"),
    ],
)
def test_an_answer_chooses_the_one_label_it_names(answer, labels, choice):
    assert choose_label(answer, labels) == choice


@pytest.mark.parametrize("labels", [("Yes", "yes!"), ("a", "...")])
def test_labels_that_cannot_be_told_apart_are_refused(labels):
    with pytest.raises(ValueError, match="each needs words of its own"):
        choose_label("yes", labels)


def answer(choice, label="happy", labels=EMOTIONS, task="emotion", category="paralinguistic"):
    return {"choice": choice, "label": label, "labels": labels, "task": task, "category": category}


def test_figures_are_given_by_task_and_category_against_chance():
    answers = [answer("happy")] * 30 + [answer("sad")] * 5 + [answer(None)] * 5
    answers += [answer("yes", "no", ("yes", "no"), "noise", "degradation")] * 4
    report = classification_report(answers)
    emotion = report.categories["paralinguistic"]
    assert emotion == report.tasks["emotion"]
    assert (emotion.answers, emotion.accuracy, emotion.undecided) == (40, 0.75, 0.125)
    assert emotion.chance == pytest.approx(1 / 3) and emotion.above_chance
    low, high = emotion.ci
    assert 0.5 < low < 0.75 < high < 0.95
    noise = report.tasks["noise"]
    assert (noise.accuracy, noise.ci, noise.chance, noise.above_chance) == (0.0, [0.0, 0.0], 0.5, False)
    assert report.all.answers == 44
    table = format_classification_table(report).splitlines()
    assert len(table) == 6 and table[-1].startswith("all") and "75.0" in table[1]

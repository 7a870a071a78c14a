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

"""Which label an answer names, or is likeliest to be."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from nemo_speechllm.evaluation.tables import format_classification_table
from nemo_speechllm.metrics.classification import choose_label, choose_likeliest, classification_report

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


def scored(label, log_probs, tokens=None, task="emotion"):
    tokens = tokens or dict.fromkeys(log_probs, 2)
    choice = choose_likeliest(log_probs, tokens)
    likelihoods = {"label_log_probs": log_probs, "label_tokens": tokens}
    return answer(choice, label, [*log_probs], task) | likelihoods


def test_the_likeliest_label_is_that_of_the_highest_mean_whatever_the_order():
    log_probs, tokens = {"happy": -4.0, "not happy at all": -5.0}, {"happy": 2, "not happy at all": 5}
    assert choose_likeliest(log_probs, tokens) == "not happy at all"
    assert choose_likeliest(dict(reversed(log_probs.items())), tokens) == "not happy at all"
    for labels in (("b", "a"), ("a", "b")):  # equal ones
        assert choose_likeliest(dict.fromkeys(labels, -1.0), dict.fromkeys(labels, 2)) == "a"
    (figures,) = classification_report([scored("not happy at all", log_probs, tokens)]).tasks.values()
    assert (figures.accuracy, figures.likelihood.accuracy_unnormalised) == (1.0, 0.0)


def test_what_is_no_number_chooses_nothing():
    with pytest.raises(ValueError, match="not finite"):
        choose_likeliest({"a": float("nan"), "b": -1.0}, {"a": 2, "b": 2})


def draw_scored(size, labels, seed=0):
    """Questions whose right label is somewhat likelier than the rest."""
    random = np.random.default_rng(seed)
    return [
        scored(right, {label: float(random.normal(-8 + 2 * (label == right), 2)) for label in labels})
        for right in random.choice(labels, size)
    ]


@pytest.mark.parametrize("labels", [EMOTIONS, EMOTIONS[:2]])
def test_auc_is_scikit_learn_s_one_against_the_rest_whatever_the_labels_order(labels):
    answers = draw_scored(60, labels)
    means = np.array([[row["label_log_probs"][label] / 2 for label in sorted(labels)] for row in answers])
    probabilities = np.exp(means) / np.exp(means).sum(1, keepdims=True)
    given = probabilities if len(labels) > 2 else probabilities[:, 1]
    expected = roc_auc_score([row["label"] for row in answers], given, multi_class="ovr", average="macro")
    figures = classification_report(answers).all
    assert figures.likelihood.auc == pytest.approx(expected) and 0.6 < expected < 1
    turned = [row | {"label_log_probs": dict(reversed(row["label_log_probs"].items()))} for row in answers]
    assert classification_report(turned).all == figures


def test_a_word_that_is_preferred_whatever_is_heard_costs_accuracy_and_no_auc():
    answers = [scored(right, {"a": -1.0, "b": -9.0 + (right == "b")}) for right in ("a", "b") * 10]
    figures = classification_report(answers).all
    assert (figures.accuracy, figures.undecided, figures.likelihood.auc) == (0.5, 0.0, 1.0)
    assert (figures.likelihood.accuracy_calibrated, figures.likelihood.ci_calibrated) == (1.0, [1.0, 1.0])


def test_batch_calibration_is_that_of_the_paper_task_by_task_and_knows_no_right_answer():
    """Zhou et al., 2309.17249: p(label | question) / mean over the batch, here by the formula's own words."""
    answers = draw_scored(40, EMOTIONS) + [row | {"task": "other"} for row in draw_scored(30, EMOTIONS[:2], seed=1)]
    right = 0
    for task in ("emotion", "other"):
        rows = [row for row in answers if row["task"] == task]
        exponentials = [{label: np.exp(value) for label, value in row["label_log_probs"].items()} for row in rows]
        shares = [{label: value / sum(of.values()) for label, value in of.items()} for of in exponentials]
        mean = {label: np.mean([of[label] for of in shares]) for label in shares[0]}
        for row, of in zip(rows, shares, strict=True):
            right += max(of, key=lambda label: of[label] / mean[label]) == row["label"]
    shuffled = [answers[index] for index in np.random.default_rng(2).permutation(len(answers))]
    for order in (answers, shuffled):
        figures = classification_report(order).all.likelihood
        assert figures.accuracy_calibrated == pytest.approx(right / 70)
        assert figures.ci_calibrated[0] < right / 70 < figures.ci_calibrated[1]


def test_auc_of_a_category_is_the_mean_of_its_tasks_and_of_one_right_label_there_is_none():
    told = [scored(right, {"a": -1.0 - (right == "b"), "b": -1.5}, task="told") for right in ("a", "b")]
    deaf = [scored(right, {"c": -1.0, "d": -2.0}, task="deaf") for right in ("c", "d")]
    same = [scored("a", {"a": -1.0, "b": -2.0}, task="same")] * 2
    report = classification_report(told + deaf + same)
    assert {task: figures.likelihood.auc for task, figures in report.tasks.items()} == {
        "told": 1.0,
        "deaf": 0.5,
        "same": None,
    }
    assert report.categories["paralinguistic"].likelihood.auc == report.all.likelihood.auc == 0.75


def test_calibration_compares_the_probability_of_the_whole_answer_with_how_often_it_is_right():
    """Three of four are right at three to one: as sure as it should be, though the means of two tokens say less."""
    log_probs = {"a": float(np.log(0.3)), "b": float(np.log(0.1))}
    figures = classification_report([scored(right, log_probs) for right in "aaab"]).all.likelihood
    assert figures.calibration_error == pytest.approx(0, abs=1e-6) and figures.bins == 15
    wrong = classification_report([scored("b", log_probs)] * 4).all.likelihood
    assert wrong.calibration_error == pytest.approx(0.75)
    halves = [scored("a", log_probs)] * 4 + [scored("a", {"a": -1.0, "b": -1.0 + 1e-9})] * 4
    assert classification_report(halves).all.likelihood.calibration_error == pytest.approx((0.25 + 0.5) / 2, abs=1e-6)


def test_the_table_has_columns_for_what_was_scored_alone():
    assert "AUC" not in format_classification_table(classification_report([answer("happy")] * 2))
    head, *rows = format_classification_table(classification_report(draw_scored(20, EMOTIONS))).splitlines()
    assert " ".join(head.split()).endswith("unnormalised % calibrated % 95 % CI AUC ECE %")
    assert all("0." in row for row in rows)
    same = format_classification_table(classification_report([scored("a", {"a": -1.0, "b": -2.0})])).splitlines()
    assert same[-1].split()[-2] == "-"

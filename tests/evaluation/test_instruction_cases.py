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

"""The test set of instructions is what the manifest and the seed say, and its targets are right."""

from collections import Counter

import numpy as np
import pytest

from nemo_speechllm.evaluation.instruction_cases import Case, CaseBuilder, CaseSizes, Speech
from nemo_speechllm.prompts.instruction_pools import SPLITS, folded, load_adversarial, load_pools
from nemo_speechllm.prompts.skills import RULES, SKILLS, slots_of
from nemo_speechllm.training.llm_targets import extractive_target

ROWS = [
    {"text": text, "speaker": speaker} for text, speaker in (("one two three", "a"), ("four", "a"), ("five six", "b"))
]
SIZES = CaseSizes(cell=4, trap=2, pairs=5)


def test_each_cell_has_its_number_of_cases():
    cases = CaseBuilder(ROWS).build(SIZES)
    cells = Counter((case.group, case.name, case.split) for case in cases if case.group == "skills")
    assert cells == {("skills", skill, split): 4 for skill in SKILLS for split in SPLITS}
    groups = Counter(case.group for case in cases)
    assert groups["adversarial"] == 2 * len(load_adversarial())
    assert groups["concatenated"] == groups["overlapped"] == 5
    assert len({case.speech for case in cases if case.name == "reverse" and case.split == "seen"}) >= 3


def test_the_set_depends_on_rows_and_seed():
    cases = CaseBuilder(ROWS).build(SIZES)
    assert CaseBuilder(ROWS).build(SIZES) == cases
    assert CaseBuilder(ROWS, seed=1).build(SIZES) != cases
    fewer = CaseBuilder(ROWS, skills=["reverse"]).build(SIZES)
    assert set(map(repr, fewer)) & set(map(repr, cases)) >= {repr(case) for case in fewer if case.group == "skills"}


def test_instructions_are_of_their_split():
    for case in CaseBuilder(ROWS).build(SIZES):
        templates = load_pools()[case.name].templates(case.split) if case.group != "adversarial" else ()
        if case.group == "skills" and not any(map(slots_of, templates)):
            assert folded(case.instruction) in map(folded, templates)
        assert not slots_of(case.instruction)


def test_pairs_are_of_different_speakers_where_there_are_several():
    pairs = [case.speech for case in CaseBuilder(ROWS).build(SIZES) if case.speech.mix]
    assert all(ROWS[speech.rows[0]]["speaker"] != ROWS[speech.rows[1]]["speaker"] for speech in pairs)
    one = [row | {"speaker": "a"} for row in ROWS]
    assert all(len(set(c.speech.rows)) == 2 for c in CaseBuilder(one).build(SIZES) if c.speech.mix)
    with pytest.raises(ValueError, match="at least two rows; set pairs=0"):
        CaseBuilder(ROWS[:1]).build(SIZES)
    assert CaseBuilder(ROWS[:1]).build(CaseSizes(1, 1, 0))


def test_two_speakers_are_written_one_after_the_other_or_when_they_overlap_in_any_order():
    assert Speech((0, 2), "concatenated").transcripts(ROWS) == ["one two three five six"]
    assert Speech((2, 1), "overlapped").transcripts(ROWS) == ["five six", "four", "five six four", "four five six"]


def test_two_speakers_sound_as_long_as_both_or_as_the_longer(make_audio):
    recordings = [make_audio(1.0), make_audio(0.4, seed=1)]
    joined = Speech((0, 1), "concatenated").samples(recordings)
    assert len(joined) == 16000 * 1.7 and np.array_equal(joined[:16000], recordings[0])
    mixed = Speech((0, 1), "overlapped").samples(recordings)
    assert len(mixed) == 16000 and np.abs(mixed).max() <= 1.0
    quiet, loud = mixed[6400:], mixed[:6400]
    assert np.mean(loud**2) > 2 * np.mean(quiet**2), "both speak at the beginning"


def test_any_expected_skill_is_a_target_and_has_its_own_arguments():
    expected = (("replace", {"replacement": "Paris"}), ("ignore", {}))
    arguments = {"word": "two", "replacement": "red", "k": "2", "refusal": ""}
    case = Case(Speech((0,)), "adversarial", "outside", "?", arguments, expected)
    assert case.targets(["one two"], extractive_target) == [("replace", "one Paris"), ("ignore", "")]
    candidates = case.candidates("one two", extractive_target)
    assert set(candidates) == set(SKILLS) > set(RULES)
    assert (candidates["replace"], candidates["reverse"], candidates["keywords"]) == (
        "one Paris",
        "two one",
        "one, two",
    )

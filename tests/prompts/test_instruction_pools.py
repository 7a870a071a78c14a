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

"""The instructions that come with the package: enough, filled, and honestly split."""

import numpy as np
import pytest

from nemo_speechllm.prompts.instruction_pools import SPLITS, load_adversarial, load_pools, near_duplicates, verbs_of
from nemo_speechllm.prompts.skills import RULES, SKILLS, apply_rule, slots_of

NEEDED = {skill: {"word"} for skill in ("delete_word", "repeat_word", "spell_word", "stop_after")}
NEEDED |= {"replace": {"word", "replacement"}, "first_k": {"k"}, "last_k": {"k"}}
POOLS = load_pools()


@pytest.mark.parametrize("skill", SKILLS)
class TestPool:
    def test_is_large_and_repeats_nothing(self, skill):
        pool = POOLS[skill]
        assert 100 <= len(pool.seen) <= 600 and len(pool.unseen) >= 20
        texts = [text.casefold() for text in (*pool.seen, *pool.unseen)]
        assert len(set(texts)) == len(texts)
        assert pool.complexity in ("word", "semantic")

    def test_every_instruction_names_the_arguments_of_its_skill(self, skill):
        for template in (*POOLS[skill].seen, *POOLS[skill].unseen):
            assert slots_of(template) - {"refusal"} == NEEDED.get(skill, set()), template

    def test_unseen_verbs_are_not_among_the_seen(self, skill):
        pool = POOLS[skill]
        assert [template for template in pool.unseen if not verbs_of(template, pool.unseen_verbs)] == []
        assert [template for template in pool.seen if verbs_of(template, pool.unseen_verbs)] == []


def test_no_near_duplicate_crosses_the_split():
    seen = [template for pool in POOLS.values() for template in pool.seen]
    unseen = [template for pool in POOLS.values() for template in pool.unseen]
    assert near_duplicates(seen, unseen) == []


def test_no_instruction_is_that_of_two_skills():
    texts = [template for pool in POOLS.values() for template in (*pool.seen, *pool.unseen)]
    assert len(set(texts)) == len(texts)


def test_near_duplicates_are_found():
    assert near_duplicates(["Reverse the words.", "Say it."], ["Reverse all words.", "REVERSE THE WORD."]) == [
        ("Reverse the words.", "REVERSE THE WORD.", pytest.approx(17 / 18))
    ]


def test_verbs_are_found_in_their_regular_forms_only():
    verbs = ("trim", "note", "list")
    for text in ("Trimming it", "it is trimmed", "notes", "Noting that", "listed"):
        assert verbs_of(text, verbs), text
    assert not verbs_of("Nothing to listen to, not a trimaran", verbs)


def test_draws_reach_most_of_a_split():
    for split in SPLITS:
        drawn = {POOLS["ignore"].draw(split, "three one", np.random.default_rng(seed))[0] for seed in range(400)}
        assert len(drawn) > len(POOLS["ignore"].templates(split)) / 2


def test_what_is_refused_with_is_what_the_instruction_says():
    for seed in range(200):
        instruction, arguments = POOLS["ignore"].draw("seen", "three one", np.random.default_rng(seed))
        target = apply_rule("ignore", "three one", arguments)
        assert target == arguments["refusal"] and target in instruction


def test_traps_expect_known_skills():
    categories = {entry["category"] for entry in load_adversarial()}
    assert categories == {"contradictory", "ambiguous", "outside", "nested", "odd"}
    for entry in load_adversarial():
        assert entry["expected"] and slots_of(entry["instruction"]) <= {"word", "replacement", "k"}
        for item in entry["expected"]:
            assert item["skill"] in SKILLS and set(item) <= {"skill", "arguments"}
            assert set(item.get("arguments", {})) <= {"replacement", "refusal"}
            if item["skill"] in RULES:  # what the target needs is in the instruction or in its own arguments
                known = slots_of(entry["instruction"]) | set(item.get("arguments", {}))
                assert NEEDED.get(item["skill"], set()) <= known, entry["instruction"]

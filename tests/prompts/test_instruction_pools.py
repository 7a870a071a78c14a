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

from nemo_speechllm.prompts.instruction_pools import (
    HELD_OUT_SHARE,
    SPLITS,
    InstructionPool,
    expand,
    folded,
    framed,
    grammar,
    is_clause,
    load_adversarial,
    load_pools,
    near_duplicates,
    verbs_of,
)
from nemo_speechllm.prompts.skills import RULES, SKILLS, apply_rule, slots_of

NEEDED = {skill: {"word"} for skill in ("delete_word", "repeat_word", "spell_word", "stop_after")}
NEEDED |= {"replace": {"word", "replacement"}, "first_k": {"k"}, "last_k": {"k"}}
POOLS = load_pools()


def trained_and_withheld(pool):
    return (*pool.seen, *pool.held_out)


@pytest.mark.parametrize("skill", SKILLS)
class TestPool:
    def test_is_large_and_repeats_nothing(self, skill):
        pool = POOLS[skill]
        meant = {split: {folded(text) for text in pool.templates(split)} for split in SPLITS}
        assert len(meant["seen"]) >= 200 and len(meant["held_out"]) >= 40 and len(meant["unseen"]) >= 20
        texts = [text for split in SPLITS for text in pool.templates(split)]
        assert len(set(texts)) == len(texts)
        assert pool.complexity in ("word", "semantic")

    def test_every_instruction_names_the_arguments_of_its_skill(self, skill):
        for template in (text for split in SPLITS for text in POOLS[skill].templates(split)):
            assert slots_of(template) - {"refusal"} == NEEDED.get(skill, set()), template

    def test_unseen_verbs_are_in_no_other_split(self, skill):
        pool = POOLS[skill]
        assert [template for template in pool.unseen if not verbs_of(template, pool.unseen_verbs)] == []
        assert [text for text in trained_and_withheld(pool) if verbs_of(text, pool.unseen_verbs)] == []

    def test_no_near_duplicate_of_what_is_seen_is_in_another_split(self, skill):
        seen, *others = ([*map(folded, POOLS[skill].templates(split))] for split in SPLITS)
        assert near_duplicates(seen, [text for texts in others for text in texts]) == []

    def test_a_share_of_the_wordings_is_withheld(self, skill):
        pool = POOLS[skill]
        assert abs(len(pool.held_out) / len(trained_and_withheld(pool)) - HELD_OUT_SHARE) < 0.1

    def test_nothing_is_left_of_the_grammar(self, skill):
        for template in trained_and_withheld(POOLS[skill]):
            assert not set("()|<>") & set(template) and template == " ".join(template.split()), template
            assert is_clause(template) or template[0].isupper() or template[0] in "{\"'", template


def test_no_near_duplicate_of_a_verb_unseen_is_seen_in_any_skill():
    seen = [template for pool in POOLS.values() for template in pool.seen]
    unseen = [template for pool in POOLS.values() for template in pool.unseen]
    assert near_duplicates(seen, unseen) == []


def test_a_courtesy_does_not_make_another_wording():
    frames = grammar()["frames"]
    assert len(frames) >= 20
    assert {folded(framed("drop {word} at once", frame)) for frame in frames} == {"drop {word} at once"}
    assert folded("Could you please drop '{word}', at ONCE?") == "drop {word} at once"
    assert folded("Drop the word {word}.") != folded("Drop {word}.")


def test_a_frame_makes_a_sentence_of_a_clause():
    assert framed("write it", "Please {clause}.") == "Please write it."
    assert framed("write it", "{clause}, please.") == "Write it, please."
    assert framed("write it", "{clause}") == "write it"


def test_a_line_stands_for_all_its_choices():
    assert sorted(expand("(write|type) it( (at|for) once|) {word} (now)")) == sorted(
        f"{verb} it{when} {{word}} (now)" for verb in ("write", "type") for when in (" at once", " for once", "")
    )
    assert expand("<say> it") == [f"{verb} it" for verb in grammar()["say"]]


def test_a_pool_of_ones_own_may_withhold_nothing(tmp_path):
    path = tmp_path / "initials.yaml"
    path.write_text("complexity: word\nseen: |\n  (a|b) it.\nunseen: |\n  Take it.\nunseen_verbs: [take]\n")
    pool = InstructionPool.read(path)
    assert pool.seen == ("(a|b) it.",) and pool.held_out == ()
    with pytest.raises(ValueError, match="the instructions of initials have nothing in the split held_out"):
        pool.draw("held_out", "one two", np.random.default_rng(0))


def test_no_instruction_is_that_of_two_skills():
    texts = [text for pool in POOLS.values() for text in {folded(template) for template in trained_and_withheld(pool)}]
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
        assert len(drawn) > min(200, len(POOLS["ignore"].templates(split)) / 2)


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

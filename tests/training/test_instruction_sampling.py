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

"""What a sample is asked in an epoch, in the proportions of the recipe and whoever loads the data."""

from collections import Counter

import pytest
import torch

from nemo_speechllm.data.conversation import Audio, Conversation
from nemo_speechllm.data.dataloader import build_dataloader
from nemo_speechllm.data.dataset import ConversationBatch, ConversationBuilder, ConversationDataset
from nemo_speechllm.prompts.instruction_pools import load_pools
from nemo_speechllm.prompts.skills import SKILLS, apply_rule
from nemo_speechllm.recipes.sections import InstructionSampling, Prompt
from nemo_speechllm.training.instruction_sampling import InstructionSampler

BUILDER = ConversationBuilder(Prompt({"asr": "Transcribe.", "ast": "Translate."}, keywords="Keywords: {keywords}. "))
SAMPLES = torch.zeros(160)


def sampler(**changes) -> InstructionSampler:
    return InstructionSampler(InstructionSampling(**changes))


def conversation(name: str, text: str = "three seven one", **metadata) -> Conversation:
    metadata = {"text": text} | metadata
    return BUILDER.conversation(Audio(SAMPLES), metadata, name, text)


def asked(batch_or_items) -> list[tuple[str, str, str]]:
    items = getattr(batch_or_items, "conversations", batch_or_items)
    return [(item.id, item.question.instruction, item.answer) for item in items]


def test_skills_come_in_proportion_to_their_weights():
    draw, count = sampler(), 8000
    found = Counter(draw.sample(conversation(str(i)), 0).metadata["skill"] for i in range(count))
    weights = {skill: {"transcribe": 56, "summarise": 4, "keywords": 4}.get(skill, 1) for skill in SKILLS}
    for skill, weight in weights.items():
        share = weight / sum(weights.values())
        assert abs(found[skill] - count * share) <= 3 * (count * share * (1 - share)) ** 0.5, skill


@pytest.mark.parametrize(
    "changes, skills", [({"skills": ["transcribe"]}, {"transcribe"}), ({"alpha": 0}, set(SKILLS[1:]))]
)
def test_only_the_skills_of_the_recipe_are_drawn(changes, skills):
    draw = sampler(**changes)
    assert {draw.sample(conversation(str(i)), 0).metadata["skill"] for i in range(600)} == skills


def test_the_answer_is_the_target_of_the_instruction():
    draw = sampler(alpha=1.0)
    for i in range(200):
        item = draw.sample(conversation(str(i)), 0)
        skill = item.metadata["skill"]
        if skill not in ("summarise", "keywords"):
            assert item.answer == apply_rule(skill, "three seven one", item.metadata["arguments"])
        assert item.metadata["text"] == "three seven one"
        assert item.task == ("asr" if skill == "transcribe" else skill)


def test_a_draw_depends_on_seed_epoch_and_sample_alone():
    one, items = sampler(), [conversation(str(i)) for i in range(50)]
    first = asked(one.sample(item, 3) for item in items)
    assert first == list(reversed(asked(sampler().sample(item, 3) for item in reversed(items))))
    assert first != asked(one.sample(item, 4) for item in items)
    assert first != asked(sampler(seed=1).sample(item, 3) for item in items)


def test_several_instructions_may_be_about_one_audio_in_a_batch():
    own = conversation("own", instruction="Who speaks?")
    batch = ConversationBatch([conversation("a"), own, conversation("b")], torch.arange(3.0)[:, None], torch.ones(3))
    drawn = sampler(alpha=1.0, per_audio=5)(batch, 2)
    assert [item.id for item in drawn.conversations] == ["a"] * 5 + ["own"] + ["b"] * 5
    assert drawn.audio[:, 0].tolist() == [0] * 5 + [1] + [2] * 5 and len(drawn.audio_lengths) == 11
    assert drawn.conversations[5] is own and len(set(asked(drawn)[:5])) > 1
    once = sampler(alpha=1.0)(batch, 2)
    assert asked(once) == [asked(drawn)[i] for i in (0, 5, 6)] and once.audio is batch.audio


def test_unseen_instructions_are_of_the_unseen_split():
    draw = sampler(skills=["reverse"], split="unseen")
    assert {draw.sample(conversation(str(i)), 0).question.instruction for i in range(300)} == set(
        load_pools()["reverse"].unseen
    )


def test_other_tasks_and_instructions_of_a_line_stay():
    draw = sampler()
    for item in (conversation("a", instruction="Who speaks?"), conversation("b", lang="en", target_lang="fr")):
        assert draw.sample(item, 0) is item


def test_keywords_stay_before_the_instruction():
    item = sampler().sample(conversation("a", keywords=["seven"]), 0)
    assert item.question.keywords == ["seven"]
    assert item.rendered("Keywords: {keywords}. ")[0].text == f"Keywords: seven. {item.question.instruction}"


def test_the_audio_of_a_batch_stays():
    batch = ConversationBatch([conversation("a"), conversation("b")], torch.zeros(2, 160), torch.tensor([160, 160]))
    changed = sampler()(batch, 0)
    assert changed.audio is batch.audio and changed.audio_lengths is batch.audio_lengths
    assert [item.id for item in changed.conversations] == ["a", "b"]
    assert asked(batch)[0] == ("a", "Transcribe.", "three seven one"), "the batch itself is left as it was"


@pytest.mark.parametrize("bucketing", [False, True])
def test_the_number_of_workers_changes_nothing(bucketing, shuffled_data):
    found = []
    for workers in (1, 4):
        loader = build_dataloader(shuffled_data(workers, bucketing), ConversationDataset(BUILDER), None, 0, 1)
        draw = sampler(alpha=1.0)
        found.append([])
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)
            found[-1] += [asked(draw(batch, epoch)) for batch in loader]
    assert found[0] == found[1] and len(sum(found[0], [])) == 14


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"skills": ["sing"]}, "no such skill as \\['sing'\\]"),
        ({"skills": ["transcribe"], "alpha": 0}, "leave no skill to draw"),
    ],
)
def test_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        sampler(**changes)

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

"""What a recipe does to its training batches, of which data, in which order."""

from dataclasses import replace

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from nemo_speechllm.data.conversation import Audio, Conversation
from nemo_speechllm.data.dataset import ConversationBatch, ConversationBuilder
from nemo_speechllm.data.keywords import words_of
from nemo_speechllm.recipes import sections
from nemo_speechllm.training.transforms import training_transforms

CFG = sections.KeywordContext(probability=1.0, words=8, positive_ratio=0.25, distractors_only=0.0)
BUILDER = ConversationBuilder(sections.Prompt({"asr": "Transcribe."}, keywords="Words: {keywords}. "))


def recipe(keyword_context=None, instruction_sampling=None) -> DictConfig:
    return OmegaConf.create({"instruction_sampling": instruction_sampling, "keyword_context": keyword_context})


def conversation(text: str = "Word3 word5, word7!", lang: str = "en") -> Conversation:
    return BUILDER.conversation(Audio(torch.zeros(160)), {"text": text, "lang": lang}, "a", text)


def test_the_vocabulary_is_that_of_the_training_manifests_or_of_a_file(make_manifest, tmp_path):
    train_ds = OmegaConf.create(
        {"manifest_filepath": [str(make_manifest(lang=None)), str(make_manifest(name="b.jsonl"))]}
    )
    cfg = recipe(replace(CFG, positive_ratio=0.0))
    (draw,) = training_transforms(cfg, train_ds)
    words = set(words_of("press one for support please hold the line thank you your call is important to us"))
    assert set(draw.pools) == {None, "en"} and set(draw.pools["en"].vocabulary.counts) == words
    (tmp_path / "words.txt").write_text("Ada\nBoston\n")
    cfg.keyword_context.vocabulary = str(tmp_path / "words.txt")
    (draw,) = training_transforms(cfg, train_ds)
    assert set(draw.sample(conversation(), 0).question.keywords) == {"Ada", "Boston"}


def test_the_training_texts_tell_what_is_rare_where_a_file_gives_the_distractors(make_manifest, tmp_path):
    train_ds = OmegaConf.create({"manifest_filepath": str(make_manifest((0.5, 0.5), text="call call Ada", lang="en"))})
    (tmp_path / "words.txt").write_text("Boston\ncall\n")
    changes = {"positive_ratio": 1.0, "max_count": 1, "distractors_only": 0, "vocabulary": str(tmp_path / "words.txt")}
    cfg = recipe(replace(CFG, **changes))
    (draw,) = training_transforms(cfg, train_ds)
    item = draw.sample(conversation("call Zoe"), 0)
    assert set(item.question.keywords) == {"Zoe", "Boston"}, "two training texts have 'call', said or not"


def test_data_whose_words_cannot_be_counted_want_a_file():
    shar = OmegaConf.create({"input_cfg": [{"type": "lhotse_shar", "shar_path": "x"}]})
    with pytest.raises(ValueError, match="type lhotse_shar.*keyword_context.vocabulary"):
        training_transforms(recipe(CFG), shar)


def test_without_a_section_nothing_is_drawn_and_no_data_are_read():
    assert training_transforms(recipe(), OmegaConf.create({"manifest_filepath": "/nowhere.jsonl"})) == []


def test_keywords_stand_beside_the_instruction_that_was_drawn(make_manifest):
    train_ds = OmegaConf.create({"manifest_filepath": str(make_manifest(lang="en"))})
    drawn = sections.InstructionSampling(skills=["transcribe"])
    transforms = training_transforms(recipe(replace(CFG, positive_ratio=0.0), drawn), train_ds)
    batch = ConversationBatch([conversation()], torch.zeros(1, 160), torch.tensor([160]))
    for transform in transforms:
        batch = transform(batch, 0)
    (item,) = batch.conversations
    assert len(transforms) == 2 and len(item.question.keywords) == 8
    assert item.question.instruction not in (None, "Transcribe.") and item.metadata["skill"] == "transcribe"

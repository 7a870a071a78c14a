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

"""What lists a sample is given in an epoch: how many words, which of them are said, and that nothing else decides
it."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from nemo_speechllm.data.conversation import Audio, Conversation
from nemo_speechllm.data.dataloader import build_dataloader
from nemo_speechllm.data.dataset import ConversationBuilder, ConversationDataset
from nemo_speechllm.data.keywords import Vocabulary
from nemo_speechllm.recipes import sections
from nemo_speechllm.training.keyword_context import KeywordContext
from nemo_speechllm.training.transforms import training_transforms

CFG = sections.KeywordContext(probability=1.0, words=8, positive_ratio=0.25, distractors_only=0.0)
INSTRUCTIONS = {"asr": "Transcribe.", "ast": "Translate."}
BUILDER = ConversationBuilder(sections.Prompt(INSTRUCTIONS, keywords="Words: {keywords}. "))
WORDS = [f"word{i}" for i in range(30)]
VOCABULARY = {None: Vocabulary.of_texts([" ".join(WORDS[i:]) for i in range(30)])}  # word i occurs in i + 1 texts


def context(vocabularies=VOCABULARY, **changes) -> KeywordContext:
    return KeywordContext(replace(CFG, **changes), vocabularies, vocabularies)


def conversation(name: str, text: str = "Word3 word5, word7!", **metadata) -> Conversation:
    metadata = {"text": text} | metadata
    return BUILDER.conversation(Audio(torch.zeros(160)), metadata, name, text)


def folded(words) -> set[str]:
    return {word.casefold() for word in words}


@settings(deadline=None, max_examples=60)
@given(
    answer=st.lists(st.sampled_from([*WORDS, "Ada", "Zoe"]), max_size=8),
    words=st.integers(1, 25),
    ratio=st.floats(0, 1),
    max_count=st.none() | st.integers(1, 30),
    seed=st.integers(0, 99),
)
def test_a_list_has_its_words_its_positives_and_no_other_word_of_the_answer(answer, words, ratio, max_count, seed):
    draw = context(words=words, positive_ratio=ratio, max_count=max_count, seed=seed)
    keywords = draw.sample(conversation("a", " ".join(answer)), 0).question.keywords
    counts, said = VOCABULARY[None].counts, folded(answer)
    rare = {word for word in {*folded(WORDS), "ada", "zoe"} if max_count is None or counts[word] <= max_count}
    positives = folded(keywords) & said
    assert len(folded(keywords)) == len(keywords) and folded(keywords) <= rare
    assert len(positives) == min(int(words * ratio), len(said & rare))
    assert len(keywords) - len(positives) == min(words - len(positives), len((rare & folded(WORDS)) - said))


def test_lists_come_with_their_probability_and_some_are_all_distractors():
    draw, count = context(probability=0.5, distractors_only=0.2, positive_ratio=0.25), 2000
    items = [draw.sample(conversation(str(i)), 0) for i in range(count)]
    lists = [item.question.keywords for item in items if item.question.keywords]
    assert abs(len(lists) - count / 2) < 3 * (count / 4) ** 0.5
    said = Counter(len(folded(keywords) & {"word3", "word5", "word7"}) for keywords in lists)
    assert set(said) == {0, 2} and abs(said[0] / len(lists) - 0.2) < 0.04
    assert {len(keywords) for keywords in lists} == {8}


def test_distractors_come_in_their_frequency_and_a_place_says_nothing():
    draw = context(words=4, positive_ratio=0.25)
    lists = [draw.sample(conversation(str(i), "word3"), 0).question.keywords for i in range(1500)]
    found = Counter(word for keywords in lists for word in keywords)
    assert found["word29"] > 3 * found["word2"] > 0
    places = Counter(keywords.index("word3") for keywords in lists)
    assert len(places) == 4 and min(places.values()) > 300


def test_words_are_written_as_the_vocabulary_writes_them_whether_said_or_not():
    vocabulary = {None: Vocabulary.of_texts(["please hold", "Please hold", "please", "Ada"])}
    item = context(vocabulary, positive_ratio=1.0).sample(conversation("a", "Please WAIT, ada"), 0)
    assert set(item.question.keywords) == {"please", "WAIT", "Ada", "hold"}


def test_the_question_has_the_list_before_the_instruction_and_the_answer_stays():
    item = context().sample(conversation("a"), 0)
    asked, _ = item.rendered("Words: {keywords}. ")
    assert asked.text == f"Words: {', '.join(item.question.keywords)}. Transcribe."
    assert item.answer == "Word3 word5, word7!" and len(item.audios) == 1


def test_words_are_of_the_language_of_the_answer():
    vocabularies = {"en": Vocabulary.of_texts(["one two"]), "fr": Vocabulary.of_texts(["un deux"])}
    draw = context(vocabularies, positive_ratio=0)
    lists = {
        key: set(draw.sample(conversation("a", **metadata), 0).question.keywords)
        for key, metadata in {
            "fr": {"lang": "fr"},
            "ast": {"lang": "fr", "target_lang": "en"},
            "other": {"lang": "it"},
        }.items()
    }
    assert lists == {"fr": {"un", "deux"}, "ast": {"one", "two"}, "other": set()}


def test_a_language_without_spaces_has_no_lists():
    item = conversation("a", "今日は いい 天気", lang="ja-JP")
    assert context({None: Vocabulary.of_texts(["one two"])}).sample(item, 0) is item


def test_own_keywords_and_own_instructions_stay():
    for item in (conversation("a", keywords=["Ada"]), conversation("b", instruction="Who speaks?")):
        assert context().sample(item, 0) is item


def test_a_draw_depends_on_seed_epoch_and_sample_alone():
    def draw(keyword_context: KeywordContext, epoch: int, names=range(20)) -> list[list[str]]:
        return [keyword_context.sample(conversation(str(i)), epoch).question.keywords for i in names]

    one = context()
    first = draw(one, 3)
    assert draw(context(), 3, reversed(range(20))) == first[::-1]
    assert draw(one, 4) != first and draw(context(seed=1), 3) != first


@pytest.mark.parametrize("bucketing", [False, True])
def test_the_number_of_workers_changes_nothing(bucketing, shuffled_data):
    found = []
    for workers in (1, 4):
        train_ds = shuffled_data(workers, bucketing)
        (draw,) = training_transforms(
            OmegaConf.create({"instruction_sampling": None, "keyword_context": CFG}), train_ds
        )
        loader = build_dataloader(train_ds, ConversationDataset(BUILDER), None, 0, 1)
        found.append([])
        for epoch in range(2):
            loader.sampler.set_epoch(epoch)
            found[-1] += [[(c.id, c.question.keywords) for c in draw(b, epoch).conversations] for b in loader]
    assert found[0] == found[1] and len(sum(found[0], [])) == 14

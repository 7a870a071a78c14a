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

"""Examples become conversations, and conversations batches."""

import pytest
import torch
from lhotse import Recording, SupervisionSegment

from nemo_speechllm.data.conversation import Audio, AudioError, Conversation, Turn
from nemo_speechllm.data.dataset import (
    ConversationBatch,
    ConversationBuilder,
    ConversationDataset,
    in_batches,
    task_of,
)
from nemo_speechllm.recipes.sections import Prompt
from tests.questions import cut_of, user_text

# conversations of cuts -----------------------------------------------------------------------------------------------


def test_audio_comes_before_the_instruction_of_the_task(builder, audio_file):
    conversation = builder.from_example(cut_of(audio_file, "hello", language="en"))
    audio, instruction = conversation.rendered()[0].parts
    assert isinstance(audio, Audio) and instruction == "Transcribe."
    assert [turn.role for turn in conversation.turns] == ["user", "assistant"]
    assert conversation.answer == "hello"
    assert conversation.metadata["text"] == "hello" and conversation.metadata["lang"] == "en"


def test_answer_goes_before_text_which_stays_in_the_metadata(builder, audio_file):
    conversation = builder.from_example(cut_of(audio_file, "two", {"answer": "zwei"}))
    assert conversation.answer == "zwei" and conversation.metadata["text"] == "two"


@pytest.mark.parametrize("key", ["instruction", "context", "question"])
def test_own_instruction_under_each_of_its_names(builder, audio_file, key):
    assert (
        user_text(builder.from_example(cut_of(audio_file, custom={key: "Is it a question?"}))) == "Is it a question?"
    )


def test_the_recipe_s_instruction_spelt_out_is_its_task(builder, audio_file):
    spelt_out = builder.from_example(cut_of(audio_file, custom={"instruction": "Transcribe."}))
    reworded = builder.from_example(cut_of(audio_file, custom={"instruction": "Write it down."}))
    assert (spelt_out.task, reworded.task) == ("asr", None)


def test_another_target_language_makes_it_translation(builder, audio_file):
    cut = cut_of(audio_file, language="en", custom={"target_lang": "de"})
    assert user_text(builder.from_example(cut)) == "Translate from en into de."
    cut = cut_of(audio_file, language="en", custom={"target_lang": "en"})
    assert user_text(builder.from_example(cut)) == "Transcribe."


@pytest.mark.parametrize(("code", "name"), [("de", "German"), ("pt-BR", "Portuguese"), ("tlh", "tlh")])
def test_the_target_language_has_a_name(audio_file, code, name):
    builder = ConversationBuilder(Prompt({"ast": "Say it in {target_language}."}))
    assert user_text(builder.from_example(cut_of(audio_file, custom={"target_lang": code}))) == f"Say it in {name}."


@pytest.mark.parametrize("keywords", ["Rhino, Zebra", ["Rhino", "Zebra"]])
def test_keywords_stand_before_the_instruction(builder, audio_file, keywords):
    text = user_text(builder.from_example(cut_of(audio_file, custom={"keywords": keywords})))
    assert text == "Keywords: Rhino, Zebra. Transcribe."


def test_keywords_without_a_place_are_warned_of(audio_file, nemo_log):
    builder = ConversationBuilder(Prompt({"asr": "Write."}))
    conversation = builder.from_example(cut_of(audio_file, custom={"keywords": ["Rhino"]}))
    assert conversation.rendered()[0].text == "Write."
    assert "prompt has no place for them (model.prompt.keywords)" in nemo_log.text


def test_what_a_caller_says_of_an_audio_is_left_as_it_is(builder):
    row = {"lang": "en", "target_lang": "de", "keywords": "Rhino"}
    given = dict(row)
    conversation = builder.conversation(Audio(torch.zeros(9)), given, "x", answer="Nashorn")
    question = conversation.question
    assert given == row and conversation.metadata == row and conversation.metadata is not given
    assert (question.task, question.keywords, question.instruction) == ("ast", ["Rhino"], "Translate from en into de.")
    assert conversation.answer == "Nashorn" and conversation.task == "ast"


def test_braces_in_a_manifest_line_are_text(builder, audio_file):
    text = user_text(builder.from_example(cut_of(audio_file, custom={"keywords": "{lang} {x}"})))
    assert text == "Keywords: {lang} {x}. Transcribe."


def test_unknown_task_names_the_known_ones(builder, audio_file):
    with pytest.raises(ValueError, match=r"manifest-0: task 'summary' has no instruction; known are \['asr', 'ast'\]"):
        builder.from_example(cut_of(audio_file, custom={"task": "summary"}))


def test_translation_without_its_language_names_the_missing_key(builder, audio_file):
    with pytest.raises(ValueError, match="manifest-0: .* needs the manifest key 'lang'"):
        builder.from_example(cut_of(audio_file, custom={"task": "ast", "target_lang": "de"}))


def test_line_without_answer_is_an_error(builder, audio_file):
    with pytest.raises(ValueError, match="neither `text` nor `answer`"):
        builder.from_example(cut_of(audio_file, text=None))


def test_cut_without_supervision_is_an_error(builder, audio_file):
    with pytest.raises(ValueError, match="manifest-0: the cut has no supervision"):
        builder.from_example(Recording.from_file(audio_file).to_cut())


def test_all_supervisions_of_a_long_cut_are_its_answer(builder, audio_file):
    cut = cut_of(audio_file)
    cut.supervisions = [
        SupervisionSegment("a", cut.recording_id, 0.0, 0.2, text="one"),
        SupervisionSegment("b", cut.recording_id, 0.2, 0.2, text="two"),
    ]
    assert builder.from_example(cut).answer == "one two"


# batches -------------------------------------------------------------------------------------------------------------


def spoken(samples: torch.Tensor, answer: str = "a") -> Conversation:
    return Conversation(answer, [Turn("user", [Audio(samples), "?"]), Turn("assistant", [answer])])


def test_collate_pads_with_zeros_and_keeps_true_lengths(builder):
    batch = ConversationDataset(builder).collate([spoken(torch.ones(3)), spoken(torch.ones(5))])
    assert batch.audio.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch.audio_lengths.tolist() == [3, 5]


def test_collate_takes_all_audios_of_a_conversation_and_none_of_another(builder):
    two = Conversation("two", [Turn("user", [Audio(torch.ones(2)), "and", Audio(torch.ones(4))])])
    none = Conversation("none", [Turn("user", ["?"])])
    batch = ConversationDataset(builder).collate([none, two])
    assert batch.audio_lengths.tolist() == [2, 4]
    assert ConversationDataset(builder).collate([none]).audio.shape == (0, 0)


def test_batch_moves_to_a_device(builder):
    batch = ConversationDataset(builder).collate([spoken(torch.ones(3))]).to(torch.device("meta"))
    assert isinstance(batch, ConversationBatch) and batch.audio.is_meta and batch.audio_lengths.is_meta


def test_bad_audio_is_an_error_by_default(builder):
    with pytest.raises(AudioError, match="NaN"):
        ConversationDataset(builder).collate([spoken(torch.full((4,), torch.nan))])


def test_skipped_audio_is_counted_and_named(builder, nemo_log):
    dataset = ConversationDataset(builder, skip_bad_audio=True)
    batch = dataset.collate([spoken(torch.tensor([torch.nan])), spoken(torch.ones(2), "good"), spoken(torch.ones(0))])
    assert [conversation.answer for conversation in batch.conversations] == ["good"]
    assert batch.audio_lengths.tolist() == [2] and dataset.skipped == 2
    assert "skipped (2 so far): audio given as samples" in nemo_log.text


def test_batch_of_nothing_but_bad_audio_is_an_error(builder):
    with pytest.raises(AudioError, match="not one audio.*The last of 1: audio given as samples: .*NaN"):
        ConversationDataset(builder, skip_bad_audio=True).collate([spoken(torch.tensor([torch.nan]))])


def test_batches_keep_the_order_and_refuse_a_size_below_one():
    assert list(in_batches([1, 2, 3, 4, 5], 2)) == [[1, 2], [3, 4], [5]] and list(in_batches([], 2)) == []
    for size in (0, -1, "2", 1.5, True, None):
        with pytest.raises(ValueError, match=f"batch_size is {size!r}; it must be a whole number, at least 1"):
            list(in_batches([1], size))


@pytest.mark.parametrize(
    ("row", "task"),
    [
        ({"lang": "en", "target_lang": "es"}, "ast"),
        ({"lang": "en", "target_lang": "en-US"}, "asr"),
        ({"lang": "eng", "target_lang": "English"}, "asr"),
        ({"lang": "zh", "target_lang": "cmn"}, "asr"),
        ({"lang": "de-CH", "target_lang": "de", "task": "ast"}, "ast"),
        ({"target_lang": "es"}, "ast"),
        ({"lang": "en"}, "asr"),
    ],
)
def test_a_translation_is_into_another_language_however_the_codes_are_written(row, task):
    assert task_of(row) == task

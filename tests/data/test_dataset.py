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

"""Every kind of input that NeMo's Lhotse dataloader reads becomes batches of conversations."""

import io
import json
import tarfile
from pathlib import Path

import pytest
import soundfile
import torch
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from nemo.collections.common.data.lhotse.nemo_adapters import LazyNeMoIterator
from omegaconf import OmegaConf

from nemo_speechllm.data.conversation import Audio, AudioError, Conversation, Turn
from nemo_speechllm.data.dataloader import build_dataloader
from nemo_speechllm.data.dataset import (
    ConversationBatch,
    ConversationBuilder,
    ConversationDataset,
    in_batches,
    task_of,
)
from nemo_speechllm.recipes.sections import Prompt

PROMPT = Prompt(
    {"asr": "Transcribe.", "ast": "Translate from {lang} into {target_lang}."}, keywords="Keywords: {keywords}. "
)
EPOCH = {"force_finite": True, "shuffle": False, "num_workers": 0, "sample_rate": 16000, "shard_seed": 0}


@pytest.fixture
def builder():
    return ConversationBuilder(PROMPT)


@pytest.fixture
def load(builder, tokenizer):
    """``load(**section, skip_bad_audio=False)`` → dataloader of one epoch."""

    def make(skip_bad_audio: bool = False, **section):
        cfg = OmegaConf.create(EPOCH | section)
        dataset = ConversationDataset(builder, skip_bad_audio)
        return build_dataloader(cfg, dataset, tokenizer, global_rank=0, world_size=1)

    return make


def conversations(batches) -> list[Conversation]:
    return [conversation for batch in batches for conversation in batch.conversations]


def cut_of(path: Path, text: str | None = "hello", custom: dict | None = None, **fields) -> MonoCut:
    cut = Recording.from_file(path).to_cut()
    cut.supervisions = [SupervisionSegment(cut.id, cut.recording_id, 0.0, cut.duration, text=text, **fields)]
    cut.custom = custom
    return cut


def user_text(conversation: Conversation) -> str:
    return conversation.rendered("Keywords: {keywords}. ")[0].text


@pytest.fixture
def audio_file(make_manifest, tmp_path) -> Path:
    make_manifest([0.5])
    return tmp_path / "manifest-0.flac"


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


# what NeMo reads -----------------------------------------------------------------------------------------------------


def test_nemo_manifest(load, make_manifest):
    manifest = make_manifest([0.5, 0.8, 1.0], rows=[{}, {"question": "Who?", "answer": "Ann"}, {"keywords": ["x"]}])
    batches = list(load(manifest_filepath=str(manifest), batch_size=2))
    assert [len(batch.conversations) for batch in batches] == [2, 1]
    assert batches[0].audio.shape == (2, 12800) and batches[0].audio_lengths.tolist() == [8000, 12800]
    found = conversations(batches)
    assert [user_text(c) for c in found] == ["Transcribe.", "Who?", "Keywords: x. Transcribe."]
    assert [c.answer for c in found] == ["press one for support", "Ann", "thank you"]


def test_offset_and_sampling_rate_of_a_line(load, tmp_path, make_audio):
    soundfile.write(tmp_path / "long.flac", make_audio(2.0), 8000)  # so it lasts 4 s
    row = {"audio_filepath": "long.flac", "offset": 1.0, "duration": 0.5, "text": "x"}
    (tmp_path / "m.jsonl").write_text(json.dumps(row) + "\n")
    (batch,) = load(manifest_filepath=str(tmp_path / "m.jsonl"), batch_size=1)
    assert batch.audio_lengths.tolist() == [8000]  # 0.5 s at 16 kHz


def make_tarred(manifest: Path, folder: Path) -> tuple[Path, Path]:
    """The manifest's audio as NeMo tars it: one shard, names relative to the tar."""
    rows = [json.loads(line) | {"shard_id": 0} for line in manifest.read_text().splitlines()]
    with tarfile.open(folder / "audio_0.tar", "w") as tar:
        for row in rows:
            content = (manifest.parent / row["audio_filepath"]).read_bytes()
            member = tarfile.TarInfo(row["audio_filepath"])
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    tarred = folder / "tarred_audio_manifest.json"
    tarred.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tarred, folder / "audio_0.tar"


def test_nemo_tarred(load, make_manifest, tmp_path):
    manifest, tar = make_tarred(make_manifest([0.5, 0.8], instruction="Write it down."), tmp_path)
    batches = list(load(manifest_filepath=str(manifest), tarred_audio_filepaths=str(tar), batch_size=2))
    (batch,) = batches
    assert sorted(batch.audio_lengths.tolist()) == [8000, 12800]
    assert {user_text(c) for c in batch.conversations} == {"Write it down."}
    assert {c.answer for c in batch.conversations} == {"press one for support", "please hold the line"}


def test_lhotse_shar(load, make_manifest, tmp_path):
    make_manifest([0.5, 0.8])
    cuts = [cut_of(tmp_path / f"manifest-{i}.flac", f"text {i}", {"instruction": f"do {i}"}) for i in range(2)]
    (tmp_path / "shar").mkdir()
    CutSet.from_cuts(cuts).to_shar(tmp_path / "shar", fields={"recording": "flac"}, shard_size=2)
    (batch,) = load(shar_path=str(tmp_path / "shar"), batch_size=2)
    assert sorted(batch.audio_lengths.tolist()) == [8000, 12800]
    assert sorted(c.answer for c in batch.conversations) == ["text 0", "text 1"]
    assert sorted(user_text(c) for c in batch.conversations) == ["do 0", "do 1"]


def test_lhotse_cuts(load, audio_file, tmp_path):
    CutSet.from_cuts([cut_of(audio_file, "hello")]).to_file(tmp_path / "cuts.jsonl.gz")
    (batch,) = load(cuts_path=str(tmp_path / "cuts.jsonl.gz"), batch_size=1)
    assert batch.conversations[0].answer == "hello" and batch.audio_lengths.tolist() == [8000]


@pytest.fixture
def dialogue_file(make_manifest, tmp_path) -> Path:
    """Four conversations of one question and answer more each; the audio of the i-th lasts 0.5, 0.8, 1.1, 1.4 s."""
    durations = [0.5, 0.8, 1.1, 1.4]
    make_manifest(durations)
    lines = []
    for i, duration in enumerate(durations):
        turns = [
            {"from": "User", "type": "text", "value": "Listen: "},
            {"from": "User", "type": "audio", "value": f"manifest-{i}.flac", "duration": duration},
            {"from": "Assistant", "type": "text", "value": f"answer {i}"},
        ]
        for question in range(i):
            turns += [
                {"from": "User", "type": "text", "value": f"And {question}?"},
                {"from": "Assistant", "type": "text", "value": "Yes, of course."},
            ]
        lines.append(json.dumps({"id": f"talk-{i}", "conversations": turns}))
    path = tmp_path / "dialogues.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_multimodal_conversations(load, dialogue_file):
    source = {"type": "multimodal_conversation", "manifest_filepath": str(dialogue_file)}
    found = conversations(load(input_cfg=[source], batch_size=2))
    assert [c.id for c in found] == ["talk-0", "talk-1", "talk-2", "talk-3"]
    talk = found[1]
    assert [turn.role for turn in talk.turns] == ["user", "assistant", "user", "assistant"]
    assert talk.turns[0].parts[0] == "Listen: " and isinstance(talk.turns[0].parts[1], Audio)
    assert talk.turns[2].text == "And 0?" and talk.answer == "Yes, of course."


def test_texts_of_one_speaker_in_turn_are_joined_by_a_space(load, tmp_path):
    said = [("User", "Once."), ("User", "Twice."), ("Assistant", "Yes,"), ("Assistant", "twice.")]
    turns = [{"from": role, "type": "text", "value": value} for role, value in said]
    (tmp_path / "talk.jsonl").write_text(json.dumps({"id": "talk", "conversations": turns}) + "\n")
    source = {"type": "multimodal_conversation", "manifest_filepath": str(tmp_path / "talk.jsonl")}
    (talk,) = conversations(load(input_cfg=[source], batch_size=1))
    assert [(turn.role, turn.text) for turn in talk.turns] == [("user", "Once. Twice."), ("assistant", "Yes, twice.")]


def test_sources_are_mixed_by_input_cfg_with_their_tags(load, make_manifest):
    first, second = make_manifest([0.5, 0.5], "a.jsonl", lang="en"), make_manifest([0.5], "b.jsonl", lang="en")
    sources = [
        {"type": "nemo", "manifest_filepath": str(first), "weight": 0.5},
        {"type": "nemo", "manifest_filepath": str(second), "weight": 0.5, "tags": {"target_lang": "fr"}},
    ]
    found = conversations(load(input_cfg=sources, batch_size=3))
    assert sorted(user_text(c) for c in found) == ["Transcribe.", "Transcribe.", "Translate from en into fr."]


# batching by tokens --------------------------------------------------------------------------------------------------

BY_TOKENS = {"use_multimodal_sampling": True, "token_equivalent_duration": 0.08}


def tokens_of(conversation: Conversation, tokenizer) -> int:
    """Text of all turns and one token per 80 ms of audio."""
    text = sum(
        len(tokenizer(turn.text, add_special_tokens=False).input_ids)
        for turn in conversation.rendered(PROMPT.keywords)
    )
    return text + sum(-(-round(audio.duration * 1000) // 80) for audio in conversation.audios)


def assert_batches_hold(batches: list[ConversationBatch], limit: int, tokenizer) -> None:
    """A batch counts as its longest item times its items; Lhotse closes it before or with the item that is too
    much."""
    for batch in batches:
        *others, _ = [tokens_of(c, tokenizer) for c in batch.conversations]
        assert max(others, default=0) * len(batch.conversations) <= limit
    assert 1 < max(len(batch.conversations) for batch in batches) < len(conversations(batches))


def assert_lengths_are_known(batches: list[ConversationBatch], tokenizer) -> None:
    """NeMo leaves what it measured in the example."""
    for conversation in conversations(batches):
        assert conversation.metadata["num_tokens"] == tokens_of(conversation, tokenizer)


@pytest.mark.parametrize("bucketing", [{}, {"use_bucketing": True, "num_buckets": 2}])
def test_manifest_batched_by_tokens(load, make_manifest, tokenizer, bucketing):
    keywords = {"keywords": "one, two, three, four, five, six, seven, eight"}
    manifest = make_manifest([0.4, 0.4, 0.5, 0.5, 2.0, 2.2], rows=[{}] * 5 + [keywords])
    batches = list(load(manifest_filepath=str(manifest), batch_tokens=70, **BY_TOKENS, **bucketing))
    assert len(conversations(batches)) == 6
    assert_batches_hold(batches, 70, tokenizer)
    assert_lengths_are_known(batches, tokenizer)


@pytest.mark.parametrize("bucketing", [{}, {"use_bucketing": True, "num_buckets": 2}])
def test_conversations_batched_by_tokens(load, dialogue_file, tokenizer, bucketing):
    source = {"type": "multimodal_conversation", "manifest_filepath": str(dialogue_file)}
    batches = list(load(input_cfg=[source], batch_tokens=80, **BY_TOKENS, **bucketing))
    assert sorted(c.id for c in conversations(batches)) == ["talk-0", "talk-1", "talk-2", "talk-3"]
    assert_batches_hold(batches, 80, tokenizer)
    assert_lengths_are_known(batches, tokenizer)


def test_batching_by_tokens_needs_the_length_of_one(load, make_manifest):
    with pytest.raises(ValueError, match="token_equivalent_duration"):
        load(manifest_filepath=str(make_manifest([0.5])), batch_tokens=100, use_multimodal_sampling=True)


def test_bucketing_by_duration(load, make_manifest):
    manifest = make_manifest([0.4, 2.0, 0.5, 2.1, 0.45, 2.2])
    section = {"use_bucketing": True, "bucket_duration_bins": [1.0], "batch_duration": 7.0}
    batches = list(load(manifest_filepath=str(manifest), **section))
    for batch in batches:
        assert batch.audio_lengths.max() < 1.3 * batch.audio_lengths.min()
    assert len(conversations(batches)) == 6


# filters and augmentation --------------------------------------------------------------------------------------------


def test_duration_filter_says_what_it_leaves_out(load, make_manifest, nemo_log):
    manifest = make_manifest([0.2, 0.5, 1.0, 3.0])
    batches = load(manifest_filepath=str(manifest), batch_size=4, min_duration=0.3, max_duration=2.0)
    assert f"{manifest}: 2 of 4 lines (3.2 s) are left out" in nemo_log.text
    assert sorted(c.audios[0].duration for c in conversations(batches)) == [0.5, 1.0]


def test_a_part_without_a_sample_is_named_with_its_line(load, make_manifest):
    manifest = make_manifest([0.5, 0.5], rows=[{}, {"offset": 0.001, "duration": 1e-9}])
    with pytest.raises(ValueError, match=f"{manifest}:2: the part of .* is shorter than one sample"):
        load(manifest_filepath=str(manifest), batch_size=1)


def test_filter_that_leaves_nothing_is_an_error(load, make_manifest):
    manifest = make_manifest([0.2])
    with pytest.raises(ValueError, match=f"{manifest}: no line is left: all are shorter than min_duration"):
        load(manifest_filepath=str(manifest), batch_size=1, min_duration=1.0)


def test_noise_is_mixed_in_and_the_speech_keeps_its_text(load, make_manifest):
    speech = make_manifest([0.5, 0.8], instruction="Write.")
    noise = make_manifest([2.0], "noise.jsonl", rows=[{"text": "-", "instruction": None}])
    clean = load(manifest_filepath=str(speech), batch_size=2)
    section = {"noise_path": {"manifest_filepath": str(noise)}, "noise_mix_prob": 1.0, "noise_snr": [0.0, 5.0]}
    noisy = load(manifest_filepath=str(speech), batch_size=2, **section)
    (clean,), (noisy,) = clean, noisy
    assert noisy.audio.shape == clean.audio.shape and not torch.allclose(noisy.audio, clean.audio, atol=1e-2)
    assert [c.answer for c in noisy.conversations] == [c.answer for c in clean.conversations]
    assert {user_text(c) for c in noisy.conversations} == {"Write."}


def test_speed_perturbation_gives_three_lengths(load, make_manifest):
    batches = load(manifest_filepath=str(make_manifest([0.9])), batch_size=1, perturb_speed=True)
    lengths = sorted(int(batch.audio_lengths[0]) for batch in batches)
    assert lengths == [13091, 14400, 16000]


# what users get wrong ------------------------------------------------------------------------------------------------


def test_missing_manifest_is_named(load, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"manifest_filepath {tmp_path}/nowhere.jsonl does not exist"):
        load(manifest_filepath=str(tmp_path / "nowhere.jsonl"), batch_size=1)


def test_missing_manifest_in_a_group_is_named(load, make_manifest, tmp_path):
    present = {"type": "nemo", "manifest_filepath": str(make_manifest([0.5]))}
    absent = {"type": "nemo", "manifest_filepath": str(tmp_path / "nowhere.jsonl")}
    with pytest.raises(FileNotFoundError, match="nowhere.jsonl"):
        load(input_cfg=[present, {"type": "group", "input_cfg": [absent]}], batch_size=1)


def test_missing_shard_is_named(load, make_manifest, tmp_path):
    manifest, tar = make_tarred(make_manifest([0.5]), tmp_path)
    tars = str(tar).replace("_0.tar", "__OP_0..1_CL_.tar")
    with pytest.raises(FileNotFoundError, match="audio_1.tar"):
        load(manifest_filepath=str(manifest), tarred_audio_filepaths=tars, batch_size=1)


@pytest.mark.parametrize("weight", [[], [0.5]])
def test_nested_list_of_manifests_points_to_input_cfg(load, make_manifest, weight):
    with pytest.raises(ValueError, match="manifest.jsonl.*input_cfg"):
        load(manifest_filepath=[[str(make_manifest([0.5])), *weight]], batch_size=1)


def test_list_of_manifests(load, make_manifest):
    paths = [str(make_manifest([0.5], f"{name}.jsonl")) for name in "ab"]
    assert len(conversations(load(manifest_filepath=paths, batch_size=2))) == 2


def test_broken_line_is_named_by_file_and_number(load, make_manifest):
    manifest = make_manifest([0.5])
    manifest.write_text(manifest.read_text() + '{"audio_filepath": \n')
    with pytest.raises(ValueError, match=f"{manifest}:2: .*invalid JSON"):
        load(manifest_filepath=str(manifest), batch_size=1)


def test_line_without_duration_is_named(load, make_manifest):
    manifest = make_manifest([0.5], duration=None)
    with pytest.raises(ValueError, match=rf"{manifest}:1: duration: the key is missing"):
        load(manifest_filepath=str(manifest), batch_size=1)


def test_blank_line_which_nemo_cannot_read_is_named(load, make_manifest):
    manifest = make_manifest([0.5])
    manifest.write_text(manifest.read_text() + "\n")
    with pytest.raises(ValueError):
        list(LazyNeMoIterator(str(manifest)))
    with pytest.raises(ValueError, match=f"{manifest}:2: .*blank line"):
        load(manifest_filepath=str(manifest), batch_size=1)


@pytest.fixture
def damaged_manifest(make_manifest, tmp_path) -> Path:
    """Four lines; the audio of the second is missing, that of the third is no audio."""
    manifest = make_manifest([0.5, 0.6, 0.7, 0.8])
    (tmp_path / "manifest-1.flac").unlink()
    (tmp_path / "manifest-2.flac").write_text("this is no audio")
    return manifest


def test_missing_audio_is_named_by_manifest_and_line(load, damaged_manifest):
    with pytest.raises(FileNotFoundError, match=f"{damaged_manifest}:2: audio file manifest-1.flac does not exist"):
        load(manifest_filepath=str(damaged_manifest), batch_size=1)


@pytest.mark.parametrize("how", ["path", "input_cfg", "YAML file"])
def test_lines_with_bad_audio_are_skipped_and_named(load, damaged_manifest, tmp_path, nemo_log, how):
    before = damaged_manifest.read_bytes()
    section = {"manifest_filepath": str(damaged_manifest)}
    if how != "path":
        section = {"input_cfg": [section | {"type": "nemo"}]}
    if how == "YAML file":
        OmegaConf.save(OmegaConf.create(section["input_cfg"]), tmp_path / "sources.yaml")
        section = {"input_cfg": str(tmp_path / "sources.yaml")}
    batches = load(skip_bad_audio=True, batch_size=4, **section)
    assert f"{damaged_manifest}: skipped 2 of 4 lines" in nemo_log.text
    assert f"{damaged_manifest}:2: audio file manifest-1.flac does not exist" in nemo_log.text
    assert f"{damaged_manifest}:3: {tmp_path}/manifest-2.flac: the audio cannot be read" in nemo_log.text
    assert sorted(c.audios[0].duration for c in conversations(batches)) == [0.5, 0.8]
    assert damaged_manifest.read_bytes() == before


def test_skipping_every_line_is_an_error(load, make_manifest, tmp_path):
    manifest = make_manifest([0.5])
    (tmp_path / "manifest-0.flac").unlink()
    with pytest.raises(ValueError, match=f"{manifest}: not one audio file"):
        load(skip_bad_audio=True, manifest_filepath=str(manifest), batch_size=1)


def test_lines_that_nemo_passes_over_need_no_audio(load, make_manifest, tmp_path):
    manifest = make_manifest([0.5, 0.6], rows=[{}, {"_skipme": True}])
    (tmp_path / "manifest-1.flac").unlink()
    assert len(conversations(load(manifest_filepath=str(manifest), batch_size=2))) == 1


def test_fewer_recordings_than_buckets_is_an_error_that_says_what_to_do(load, make_manifest):
    with pytest.raises(ValueError, match="number of buckets.*set use_bucketing=false"):
        load(manifest_filepath=str(make_manifest((1.0, 1.2, 1.4))), batch_size=2, use_bucketing=True, num_buckets=10)


def test_batches_keep_the_order_and_refuse_a_size_below_one():
    assert list(in_batches([1, 2, 3, 4, 5], 2)) == [[1, 2], [3, 4], [5]] and list(in_batches([], 2)) == []
    for size in (0, -1):
        with pytest.raises(ValueError, match=f"batch_size is {size}; it must be at least 1"):
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

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

"""Every kind of input that NeMo's Lhotse dataloader reads becomes batches of conversations, or is named."""

import io
import json
import tarfile
from pathlib import Path

import pytest
import soundfile
import torch
from lhotse import CutSet
from nemo.collections.common.data.lhotse.nemo_adapters import LazyNeMoIterator
from omegaconf import OmegaConf

from nemo_speechllm.data.conversation import Audio
from tests.questions import conversations, cut_of, user_text


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


def test_a_channel_is_chosen_by_number_as_nemo_does(load, make_manifest):
    manifest = str(make_manifest([0.5]))
    assert len(list(load(manifest_filepath=manifest, batch_size=1, channel_selector=0))) == 1
    with pytest.raises(ValueError, match="jsonl:1: the audio has 1 channels, and channel_selector is 1"):
        load(manifest_filepath=manifest, batch_size=1, channel_selector=1)
    with pytest.raises(ValueError, match="channel_selector is 'average'.*takes the number of a channel; .*mix"):
        load(manifest_filepath=manifest, batch_size=1, channel_selector="average")


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


def test_a_part_without_a_sample_is_named_with_its_line(load, make_manifest):
    manifest = make_manifest([0.5, 0.5], rows=[{}, {"offset": 0.001, "duration": 1e-9}])
    with pytest.raises(ValueError, match=f"{manifest}:2: the part of .* is shorter than one sample"):
        load(manifest_filepath=str(manifest), batch_size=1)


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


def test_missing_shard_is_named(load, make_manifest, tmp_path):
    manifest, tar = make_tarred(make_manifest([0.5]), tmp_path)
    tars = str(tar).replace("_0.tar", "__OP_0..1_CL_.tar")
    with pytest.raises(FileNotFoundError, match="audio_1.tar"):
        load(manifest_filepath=str(manifest), tarred_audio_filepaths=tars, batch_size=1)


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

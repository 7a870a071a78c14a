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

"""The files that a data section names, each of which is there."""

import pytest
from omegaconf import OmegaConf

from nemo_speechllm.data.source_paths import paths_of, refuse_addresses, shar_cuts, shar_recordings
from tests.questions import conversations


def test_missing_manifest_is_named(load, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"manifest_filepath {tmp_path}/nowhere.jsonl does not exist"):
        load(manifest_filepath=str(tmp_path / "nowhere.jsonl"), batch_size=1)


def test_missing_manifest_in_a_group_is_named(load, make_manifest, tmp_path):
    present = {"type": "nemo", "manifest_filepath": str(make_manifest([0.5]))}
    absent = {"type": "nemo", "manifest_filepath": str(tmp_path / "nowhere.jsonl")}
    with pytest.raises(FileNotFoundError, match="nowhere.jsonl"):
        load(input_cfg=[present, {"type": "group", "input_cfg": [absent]}], batch_size=1)


@pytest.mark.parametrize("weight", [[], [0.5]])
def test_nested_list_of_manifests_points_to_input_cfg(load, make_manifest, weight):
    with pytest.raises(ValueError, match="manifest.jsonl.*input_cfg"):
        load(manifest_filepath=[[str(make_manifest([0.5])), *weight]], batch_size=1)


def test_list_of_manifests(load, make_manifest):
    paths = [str(make_manifest([0.5], f"{name}.jsonl")) for name in "ab"]
    assert len(conversations(load(manifest_filepath=paths, batch_size=2))) == 2


@pytest.mark.parametrize("value", ["pipe:ls", "https://example.org/a.jsonl", "s3://bucket/a.jsonl", "ais://b/a.jsonl"])
@pytest.mark.parametrize("inside", ["alone", "a list with weights", "a part of a group"])
def test_a_command_or_an_address_is_named_with_its_key_wherever_it_stands(value, inside):
    section = {"cuts_path": [[value, 0.5]] if inside == "a list with weights" else value, "batch_size": 2}
    section = {"input_cfg": [{"type": "group", "input_cfg": [section]}]} if inside == "a part of a group" else section
    with pytest.raises(ValueError, match=f"cuts_path {value} is a command or an address"):
        refuse_addresses(section, "train_ds")
    refuse_addresses({"manifest_filepath": "data/a.jsonl", "shuffle": True, "noise_path": None}, "train_ds")


def test_shards_are_expanded_as_nemo_expands_them():
    source = OmegaConf.create(
        {"manifest_filepath": "a__OP_0..2_CL_.jsonl", "tarred_audio_filepaths": [["b.tar", 0.5]]}
    )
    assert paths_of(source, "manifest_filepath") == ["a_0.jsonl", "a_1.jsonl", "a_2.jsonl"]
    assert paths_of(source, "tarred_audio_filepaths") == ["b.tar"]
    assert paths_of(source, "cuts_path") == []


@pytest.mark.parametrize("form", ["a folder", "folders with weights", "files of each field"])
def test_shar_is_named_by_its_folders_or_its_files(tmp_path, form):
    for name in ("cuts.000000.jsonl.gz", "recording.000000.tar", "other.txt"):
        (tmp_path / name).touch()
    named = {
        "a folder": str(tmp_path),
        "folders with weights": [[str(tmp_path), 0.5]],
        "files of each field": {
            "cuts": [str(tmp_path / "cuts.000000.jsonl.gz")],
            "recording": [str(tmp_path / "recording.000000.tar"), "pipe:touch pwned"],
        },
    }
    source = OmegaConf.create({"shar_path": named[form]})
    assert shar_cuts(source) == [str(tmp_path / "cuts.000000.jsonl.gz")]
    assert shar_recordings(source) == [str(tmp_path / "recording.000000.tar")]

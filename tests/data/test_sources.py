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

"""What the sources of a data section ask for."""

import pytest
from lhotse import CutSet
from omegaconf import OmegaConf

from nemo_speechllm.data.sources import translations_of


@pytest.fixture
def section(make_manifest):
    """``section(*rows, **settings)`` → a data section of one manifest."""

    def make(*rows: dict, name: str = "a.jsonl", **settings):
        manifest = make_manifest([0.5] * len(rows), name, list(rows))
        return OmegaConf.create({"manifest_filepath": str(manifest)} | settings)

    return make


def languages_of(cfg) -> set[str | None]:
    return {language for language, _ in translations_of(cfg)}


def test_languages_are_those_of_translations(section):
    rows = [{"target_lang": "ja"}, {"target_lang": "en"}, {"task": "ast", "target_lang": "ko"}, {}]
    assert languages_of(section(*rows)) == {"ja", "ko"}
    assert languages_of(section({"lang": None, "language": "ja", "target_lang": "ja"}, lang_field="language")) == set()


def test_tags_of_sources_and_of_groups_are_among_them(section, tmp_path):
    plain = section({}, {"lang": "ko"})
    member = {"type": "nemo", "manifest_filepath": plain.manifest_filepath, "tags": {"target_lang": "ko"}}
    group = {"type": "group", "input_cfg": [member | {"tags": {}}], "tags": {"target_lang": "ja"}}
    assert languages_of(OmegaConf.create({"input_cfg": [member]})) == {"ko"}
    assert languages_of(OmegaConf.create({"input_cfg": [group]})) == {"ja"}
    (tmp_path / "sources.yaml").write_text(OmegaConf.to_yaml([group]))
    assert languages_of(OmegaConf.create({"input_cfg": str(tmp_path / "sources.yaml")})) == {"ja"}


def test_cuts_are_read_as_well(make_manifest, tmp_path):
    recording = {"id": "r", "sampling_rate": 16000, "num_samples": 8000, "duration": 0.5, "channel_ids": [0]}
    recording["sources"] = [{"type": "file", "channels": [0], "source": "r.flac"}]
    speech = {
        "id": "s",
        "recording_id": "r",
        "start": 0,
        "duration": 0.5,
        "channel": 0,
        "text": "hi",
        "language": "en",
    }
    cut = {"id": "c", "start": 0, "duration": 0.5, "channel": 0, "supervisions": [speech], "recording": recording}
    cuts = CutSet.from_dicts([cut | {"type": "MonoCut", "custom": {"target_lang": "ja"}}])
    cuts.to_file(tmp_path / "cuts.jsonl.gz")
    assert languages_of(OmegaConf.create({"cuts_path": str(tmp_path / "cuts.jsonl.gz")})) == {"ja"}
    cuts.to_file(tmp_path / "cuts.000000.jsonl.gz")
    assert languages_of(OmegaConf.create({"shar_path": [[str(tmp_path), 1.0]]})) == {"ja"}


def test_texts_are_the_references(section):
    rows = [{"target_lang": "ja", "answer": "はい", "text": "yes"}, {"task": "ast", "text": "да", "lang": None}]
    assert list(translations_of(section(*rows))) == [("ja", "はい"), (None, "да")]


def test_commands_are_not_run(tmp_path):
    source = {"type": "nemo", "manifest_filepath": f"pipe:touch {tmp_path / 'ran'}"}
    assert languages_of(OmegaConf.create(source)) == set() and not (tmp_path / "ran").exists()

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

"""A model, a baseline or a cascade by one name."""

import pytest

from nemo_speechllm.checkpointing.errors import CheckpointError
from nemo_speechllm.models import SALM, load_model, load_system, loading


def test_systems_have_names(monkeypatch):
    made = []
    for name in ("load_model", "WhisperBaseline", "Cascade"):
        monkeypatch.setattr(loading, name, lambda *args, name=name: made.append((name, *args)) or name)
    assert load_system("x.nemo") == "load_model" and load_system("whisper:tiny") == "WhisperBaseline"
    load_system("cascade:whisper:tiny+a/b")
    load_system("cascade:x.nemo+llm")
    assert made[-3:] == [
        ("Cascade", "WhisperBaseline", "a/b"),
        ("load_model", "x.nemo"),
        ("Cascade", "load_model", "llm"),
    ]


@pytest.mark.parametrize("name", ["cascade:whisper:whisper-base", "cascade:x.nemo+", "cascade:+llm"])
def test_a_cascade_has_two_parts(name):
    with pytest.raises(ValueError, match="give a cascade as cascade:ASR.LLM"):
        load_system(name)


def test_load_model_gives_the_class_of_the_checkpoint(tiny_nemo):
    model = load_model(tiny_nemo)
    assert type(model) is SALM and not model.training


def test_load_model_of_an_unknown_name_lists_what_there_is(tmp_path, monkeypatch):
    (tmp_path / "salm_first.nemo").touch()
    monkeypatch.setattr("nemo_speechllm.models.shipped.CHECKPOINT_FOLDER", tmp_path)
    with pytest.raises(CheckpointError, match="'salm_frist' is no model.*salm_first"):
        load_model("salm_frist")


def test_load_model_of_a_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match="gone.nemo does not exist"):
        load_model(tmp_path / "gone.nemo")

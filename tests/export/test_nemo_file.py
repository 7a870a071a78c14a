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

"""What is exported says nothing of the machine that it was made on."""

import getpass
import json
import shutil
import tarfile
from pathlib import Path

import pytest
import torch

from nemo_speechllm.checkpointing.errors import CheckpointError
from nemo_speechllm.export.nemo_file import export_nemo_file
from nemo_speechllm.models import SALM, load_model


def content(path: Path) -> tuple[list[tarfile.TarInfo], dict[str, bytes]]:
    """Headers and files of an archive."""
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        return members, {Path(m.name).name: archive.extractfile(m).read() for m in members if m.isreg()}


@pytest.mark.parametrize("save_full", [False, True])
def test_no_path_and_no_name_of_the_machine(tiny_nemo, tmp_path, tiny_llm_folder, save_full):
    output = tmp_path / "out" / "small.nemo"
    export(tiny_nemo, output, save_full)
    headers, files = content(output)
    assert {(member.uid, member.gid, member.uname, member.gname) for member in headers} == {(0, 0, "", "")}
    for place in (tmp_path, tiny_llm_folder, tiny_llm_folder.parent, Path.home(), Path.cwd()):
        holding = [name for name, text in files.items() if str(place).encode() in text and len(str(place)) > 5]
        assert not holding, (place, holding)
    assert getpass.getuser() not in {member.uname for member in headers}


def test_a_local_llm_s_name_stays_and_an_override_finds_it(tiny_nemo, tmp_path, tiny_llm_folder, tiny_whisper_folder):
    output = tmp_path / "small.nemo"
    export(tiny_nemo, output, save_full=False)
    with pytest.raises(CheckpointError, match=rf"small.nemo refers to .*{tiny_llm_folder.name}.*override"):
        load_model(output)
    override = {
        "llm": {"pretrained": str(tiny_llm_folder)},
        "perception": {"encoder": {"pretrained": str(tiny_whisper_folder)}},
    }
    restored = SALM.restore_from(output, override=override)
    original = load_model(tiny_nemo)
    rounded = {name: tensor.half().float() for name, tensor in original.state_dict().items()}
    assert all(torch.equal(tensor, rounded[name]) for name, tensor in restored.state_dict().items())


def test_a_tokenizer_s_place_is_left_out(make_salm_nemo, tmp_path):
    output = tmp_path / "small.nemo"
    export(make_salm_nemo({"name_or_path": str(tmp_path)}), output, save_full=True)
    _, files = content(output)
    settings = json.loads(next(text for name, text in files.items() if name.endswith("tokenizer_config.json")))
    assert "name_or_path" not in settings


@pytest.fixture
def make_salm_nemo(tiny_salm_config, tiny_llm_folder, tmp_path):
    """``make_salm_nemo(settings)`` → a ``.nemo`` whose tokenizer's config has ``settings`` as well."""

    def make(settings: dict) -> str:
        folder = shutil.copytree(tiny_llm_folder, tmp_path / "llm")
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))
        tiny_salm_config.model.llm.pretrained = str(folder)
        SALM(tiny_salm_config.model).save_to(tmp_path / "m.nemo")
        return str(tmp_path / "m.nemo")

    return make


def export(model: str, output: Path, save_full: bool) -> None:
    export_nemo_file(load_model(model), output, torch.float16, save_full)

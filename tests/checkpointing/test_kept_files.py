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


"""Every checkpoint holds what its model cannot be built without, wherever the model came from."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from nemo_speechllm.checkpointing.errors import CheckpointError
from nemo_speechllm.models.speech_lm import SpeechLM

HEAD = "ctc_head.tokenizer"


@pytest.fixture
def kinds(make_instruct_las, make_ctc_prompted, make_salm, ctc_tokenizer_folder) -> dict[str, Callable[[], SpeechLM]]:
    """By name what makes a model that has files of its own, and a key of one of them."""
    head = {"ctc_head": {"tokenizer": str(ctc_tokenizer_folder / "tokenizer.model")}}
    return {
        "instruct_las": (make_instruct_las, "tokenizer.model_file"),
        "ctc_prompted": (make_ctc_prompted, HEAD),
        "salm": (lambda: make_salm(**head, loss={"encoder_ctc_weight": 0.1}), HEAD),
    }


@pytest.fixture
def of_this_process(tmp_path, monkeypatch) -> Path:
    """The folder of temporary files, which the test may delete, as the end of a process does."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def save_ckpt(make_trainer, tmp_path) -> Callable[[SpeechLM], Path]:
    """``save_ckpt(model)`` → a Lightning checkpoint of it."""

    def save(model: SpeechLM) -> Path:
        trainer = make_trainer()
        trainer.strategy.connect(model)
        trainer.save_checkpoint(tmp_path / "m.ckpt")
        return tmp_path / "m.ckpt"

    return save


def emptied(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize("kind", ["instruct_las", "ctc_prompted", "salm"])
def test_a_ckpt_of_a_restored_model_is_loaded_after_its_process(
    kinds, kind, of_this_process, save_ckpt, make_audio, tmp_path
):
    make, key = kinds[kind]
    model, samples = make(), make_audio(1.1)
    expected = [model.transcribe(samples, verbose=False, decoder=decoder) for decoder in ("llm", "ctc")]
    model.save_to(tmp_path / "m.nemo")
    path = save_ckpt(type(model).restore_from(tmp_path / "m.nemo"))
    (tmp_path / "m.nemo").unlink()
    emptied(of_this_process)
    config = OmegaConf.create(torch.load(path, weights_only=True)["hyper_parameters"]["cfg"])
    assert OmegaConf.select(config, key) == f"nemo:{key}"
    again = type(model).load_from_checkpoint(path)
    assert [again.transcribe(samples, verbose=False, decoder=decoder) for decoder in ("llm", "ctc")] == expected
    path = save_ckpt(again)
    del again
    emptied(of_this_process)
    type(model).load_from_checkpoint(path).save_to(tmp_path / "again.nemo")
    assert type(model).restore_from(tmp_path / "again.nemo").transcribe(samples, verbose=False) == expected[0]


@pytest.mark.parametrize("kind", ["instruct_las", "salm"])
def test_a_ckpt_of_an_earlier_version_names_the_recipe_s_file(
    kinds, kind, save_ckpt, instruction_tokenizer_folder, ctc_tokenizer_folder, make_audio
):
    make, key = kinds[kind]
    model, samples = make(), make_audio(1.1)
    path = save_ckpt(model)
    checkpoint = torch.load(path, weights_only=True)
    config = OmegaConf.create(checkpoint.pop("hyper_parameters"))
    named = {HEAD: str(ctc_tokenizer_folder / "tokenizer.model"), "tokenizer.model_file": "/tmp/gone/tokenizer.model"}
    OmegaConf.update(config, f"cfg.{key}", named[key])
    del checkpoint["files"]
    torch.save(checkpoint | {"hyper_parameters": OmegaConf.to_container(config)}, path)
    again = type(model).load_from_checkpoint(path)
    assert again.transcribe(samples, verbose=False) == model.transcribe(samples, verbose=False)


FORGED = {"none": None, "a list": [1], "another file": {"x": b""}, "no bytes": {"tokenizer.model_file": "text"}}


@pytest.mark.parametrize("files", FORGED.values(), ids=FORGED)
def test_a_ckpt_without_the_file_that_it_names_is_refused(files, make_instruct_las, save_ckpt):
    path = save_ckpt(make_instruct_las())
    torch.save(torch.load(path, weights_only=True) | {"files": files}, path)
    with pytest.raises(CheckpointError, match=r"m\.ckpt: its (config says tokenizer.model_file|'files' are a)"):
        type(make_instruct_las()).load_from_checkpoint(path)


def test_a_ckpt_names_no_file_outside_itself(make_instruct_las, save_ckpt, instruction_tokenizer_folder):
    path = save_ckpt(make_instruct_las())
    checkpoint = torch.load(path, weights_only=True)
    tokenizer = instruction_tokenizer_folder / "tokenizer.model"
    checkpoint["hyper_parameters"]["cfg"]["tokenizer"]["model_file"] = f"nemo:{tokenizer}"
    torch.save(checkpoint, path)
    with pytest.raises(CheckpointError, match=r"m\.ckpt: .*no file of the checkpoint"):
        type(make_instruct_las()).load_from_checkpoint(path)

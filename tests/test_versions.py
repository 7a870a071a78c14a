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

"""An argument that a library would ignore is an error, and versions that were not tested are named."""

import warnings
from importlib import metadata

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from transformers import T5ForConditionalGeneration, WhisperConfig, WhisperFeatureExtractor
from transformers.models.bert.modeling_bert import BertEncoder
from transformers.models.whisper.modeling_whisper import WhisperEncoderLayer

from nemo_speechllm.modules.encoders import WhisperEncoder
from nemo_speechllm.modules.las_decoder import build_las_decoder
from nemo_speechllm.modules.qformer import QFormer
from nemo_speechllm.versions import (
    UntestedVersionWarning,
    cache_argument,
    named,
    untested_versions,
    warn_of_untested_versions,
)


class Swallows(nn.Module):
    """Takes whatever it is given, as Hugging Face's models do."""

    def forward(self, states, cache=None, **kwargs):
        return cache


class SwallowsSettings:
    def __init__(self, size=1, **kwargs):
        self.size = size

    def __call__(self, cache=None, **kwargs):
        return cache


@pytest.mark.parametrize(
    "callee", [Swallows(), Swallows().forward, SwallowsSettings().__call__], ids=["module", "its forward", "method"]
)
def test_an_argument_that_is_not_named_is_an_error(callee):
    assert named(callee, cache=3) == {"cache": 3}
    with pytest.raises(TypeError, match="takes no argument past_key_values and would ignore it"):
        named(callee, past_key_values=3, cache=3)


def test_of_a_class_the_settings_are_checked():
    assert SwallowsSettings(**named(SwallowsSettings, size=2)).size == 2
    with pytest.raises(TypeError, match="SwallowsSettings takes no argument width"):
        named(SwallowsSettings, width=2)


def test_the_library_its_version_and_the_remedy_are_named():
    from transformers import BertConfig

    with pytest.raises(TypeError, match=r"transformers.* takes no argument wide and .*pip install 'transformers\S*'"):
        named(BertConfig, wide=True)


class OfOlderVersions(nn.Module):
    def forward(self, inputs_embeds=None, past_key_values=None, **kwargs):
        return past_key_values


@pytest.mark.parametrize("llm", [Swallows(), OfOlderVersions()], ids=["cache", "past_key_values"])
def test_a_cache_is_given_by_the_name_that_the_llm_has_for_it(llm):
    assert llm(torch.ones(1), **cache_argument(llm, 3)) == 3


def test_an_llm_that_names_no_cache_is_refused():
    with pytest.raises(TypeError, match="takes no argument past_key_values"):
        cache_argument(nn.Identity(), 3)


def use_qformer():
    QFormer(d_model=24, n_taps=1, n_layers=1, n_queries=2, n_heads=2)(torch.randn(1, 4, 24), torch.tensor([4]))


def use_whisper():
    config = WhisperConfig(d_model=16, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=16)
    WhisperEncoder(config, WhisperFeatureExtractor())(torch.randn(1, 1600), torch.tensor([1600]))


def use_las_decoder():
    cfg = OmegaConf.create({"n_layers": 1, "d_model": 16, "n_heads": 2, "ff_expansion_factor": 2, "dropout": 0.0})
    ids = torch.tensor([[3, 4]])
    build_las_decoder(cfg, 10, 1)(ids, torch.ones_like(ids), 2, inputs_embeds=torch.randn(1, 4, 16))


@pytest.mark.parametrize(
    ("library_class", "use"),
    [(BertEncoder, use_qformer), (WhisperEncoderLayer, use_whisper), (T5ForConditionalGeneration, use_las_decoder)],
)
def test_a_version_that_renamed_an_argument_is_found_at_its_first_use(library_class, use, monkeypatch):
    def with_other_names(self, *args, **kwargs):
        pytest.fail("it was called, and ignored what it was given")

    use()
    monkeypatch.setattr(library_class, "forward", with_other_names)
    with pytest.raises(TypeError, match="takes no argument .* and would ignore it without a word"):
        use()


@pytest.fixture
def installed(monkeypatch):
    """``installed(torch="1.0")`` → as if that were installed; None: as if it were not."""
    versions_of = {}

    def version(name: str) -> str:
        found = versions_of.get(name, "2.5")
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(metadata, "requires", lambda name: ["torch<3,>=2", "peft==2.5", 'ruff<1; extra == "dev"'])
    monkeypatch.setattr(metadata, "version", version)
    warn_of_untested_versions.cache_clear()
    yield versions_of.update
    warn_of_untested_versions.cache_clear()


@pytest.mark.parametrize(
    ("version", "is_tested"),
    [("2.0", True), ("2.9.1+cpu", True), ("2.1.0a0+git", True), ("3.0", False), ("3.0rc1", False), ("1.9", False)]
    + [("2.0rc1", False), (None, False)],
)
def test_what_lies_outside_the_tested_range_is_named_once(installed, version, is_tested):
    installed({"torch": version})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_untested_versions()
        warn_of_untested_versions()
    assert len(caught) == (not is_tested)
    for warning in caught:
        assert warning.category is UntestedVersionWarning
        said = str(warning.message)
        assert f"torch {version or 'missing'}" in said and "<3,>=2" in said and "pip install 'torch<3,>=2'" in said
        assert "peft" not in said and "ruff" not in said


def test_without_metadata_nothing_is_claimed(monkeypatch):
    def requires(name: str):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    assert untested_versions() == []

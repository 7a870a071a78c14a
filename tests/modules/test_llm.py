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

"""LLM loading, LoRA, freezing by pattern, fingerprints."""

import json
import shutil

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from nemo_speechllm import assets
from nemo_speechllm.modules import fingerprint
from nemo_speechllm.modules.fingerprint import matches_fingerprint, sampled_fingerprint, weight_fingerprint
from nemo_speechllm.modules.llm import add_lora, freeze_by_pattern, load_llm, merge_lora
from nemo_speechllm.recipes.sections import LoRA


def lora(*targets: str):
    return LoRA(r=4, alpha=8, target_modules=list(targets))


def test_weights_are_loaded_or_random(tiny_llm_folder):
    expected = AutoModelForCausalLM.from_pretrained(tiny_llm_folder).state_dict()
    loaded = load_llm(tiny_llm_folder).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())
    random = load_llm(tiny_llm_folder, "bfloat16", with_weights=False)
    assert random.dtype == torch.bfloat16
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(random.state_dict()[name].float(), expected[name])


@pytest.mark.parametrize("dtype", ["float33", "nn"])
def test_unknown_dtype(tiny_llm_folder, dtype):
    with pytest.raises(ValueError, match=f"model.llm.dtype is '{dtype}'"):
        load_llm(tiny_llm_folder, dtype)


def test_only_lora_trains_once_the_llm_is_frozen(tiny_llm_folder):
    llm = load_llm(tiny_llm_folder)
    llm.requires_grad_(False)
    add_lora(llm, lora("q_proj", "down_proj"))
    trainable = [name for name, parameter in llm.named_parameters() if parameter.requires_grad]
    assert len(trainable) == 2 * 2 * 2  # layers × modules × (A, B)
    assert all(".lora_" in name for name in trainable)
    frozen = {name: p.clone() for name, p in llm.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.SGD([p for p in llm.parameters() if p.requires_grad], lr=1.0)
    ids = torch.arange(6)[None]
    before = llm(ids).logits
    llm(ids, labels=ids).loss.backward()
    optimizer.step()
    assert not torch.equal(llm(ids).logits, before)
    assert all(torch.equal(p, frozen[name]) for name, p in llm.named_parameters() if name in frozen)


def test_lora_alone_leaves_the_rest_trainable_and_the_output_unchanged(tiny_llm_folder):
    llm = load_llm(tiny_llm_folder)
    ids = torch.arange(6)[None]
    before = llm(ids).logits
    add_lora(llm, lora("v_proj"))
    assert all(parameter.requires_grad for parameter in llm.parameters())
    assert torch.equal(llm(ids).logits, before)  # B starts at zero


def test_lora_weights_are_float32_beside_a_bfloat16_llm(tiny_llm_folder):
    llm = load_llm(tiny_llm_folder, "bfloat16")
    add_lora(llm, lora("q_proj"))
    dtypes = {".lora_" in name: parameter.dtype for name, parameter in llm.named_parameters()}
    assert dtypes == {True: torch.float32, False: torch.bfloat16}


def test_unknown_lora_target_names_the_known_ones(tiny_llm_folder):
    with pytest.raises(ValueError, match=r"names \['query'\], which LlamaForCausalLM does not have.*'q_proj'"):
        add_lora(load_llm(tiny_llm_folder), lora("query", "q_proj"))


@pytest.fixture
def module() -> nn.Module:
    return nn.ModuleDict({"encoder": nn.Linear(2, 2), "llm": nn.Linear(2, 2), "my_llm": nn.Linear(2, 2)})


def test_patterns_freeze_what_they_match_from_the_start_of_the_name(module):
    freeze_by_pattern(module, [r"encoder\.", r"llm\.(?!bias)"])
    frozen = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    assert frozen == {"encoder.weight", "encoder.bias", "llm.weight"}


def test_pattern_that_matches_nothing_shows_how_names_start(module):
    with pytest.raises(ValueError, match=r"'\^audio' matches no parameter; names start with \['encoder.bias'"):
        freeze_by_pattern(module, [r"encoder\.", r"^audio"])


def test_fingerprint_survives_lora_and_precision_but_no_training(tiny_llm_folder):
    llm = load_llm(tiny_llm_folder)
    expected = weight_fingerprint(llm)
    assert weight_fingerprint(load_llm(tiny_llm_folder, "bfloat16")) == expected
    add_lora(llm, lora("q_proj", "gate_proj"))
    assert weight_fingerprint(llm) == expected
    with torch.no_grad():
        llm.model.norm.weight.mul_(1.1)
    assert weight_fingerprint(llm) != expected
    assert weight_fingerprint(load_llm(tiny_llm_folder, with_weights=False)) != expected


def test_every_value_counts(tiny_llm_folder):
    llm = load_llm(tiny_llm_folder)
    before, sample = weight_fingerprint(llm), sampled_fingerprint(llm)
    embeddings = llm.get_input_embeddings().weight
    with torch.no_grad():
        embeddings.flatten()[1] += 1.0  # none of those that a sample takes
    assert sampled_fingerprint(llm) == sample
    assert weight_fingerprint(llm) != before
    assert before.startswith("sha256:") and len(before) == 71


def test_an_older_checkpoint_s_fingerprint_is_known(tiny_llm_folder):
    llm = load_llm(tiny_llm_folder)
    found = weight_fingerprint(llm)
    assert matches_fingerprint(llm, sampled_fingerprint(llm), found) and matches_fingerprint(llm, found, found)
    assert not matches_fingerprint(llm, "0" * 32, found) and not matches_fingerprint(llm, "sha256:" + "0" * 64, found)


def test_a_fingerprint_is_remembered_while_files_and_weights_are_the_same(tiny_llm_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "REMEMBERED_BYTES", 0)
    monkeypatch.setenv("NEMO_SPEECHLLM_CACHE", str(tmp_path / "cache"))
    computed = []
    whole = fingerprint._whole_fingerprint
    monkeypatch.setattr(fingerprint, "_whole_fingerprint", lambda module: computed.append(1) or whole(module))
    folder = shutil.copytree(tiny_llm_folder, tmp_path / "llm")
    for _ in range(2):  # as two processes would
        first = weight_fingerprint(load_llm(folder), assets.weight_files(folder))
    assert len(computed) == 1 and first == whole(load_llm(folder))
    (folder / "model.safetensors").touch()
    llm = load_llm(folder)
    assert weight_fingerprint(llm, assets.weight_files(folder)) == first == weight_fingerprint(llm)
    assert len(computed) == 2
    llm.model.norm.weight.data = llm.model.norm.weight.data * 2
    assert weight_fingerprint(llm) != first


@pytest.mark.timeout(60)
@pytest.mark.parametrize("pattern", [r"(l+l+)+X", r"(.*.*.*)*X", r"([a-z.]+)*\d$", r"(a|e|l|m|.|.)*Z"])
def test_a_pattern_that_takes_for_ever_is_named(tiny_llm_folder, monkeypatch, pattern):
    monkeypatch.setattr("nemo_speechllm.modules.llm.PATTERN_SECONDS", 0.5)
    module = nn.Module()
    for letter in "lme":
        module.register_parameter(letter * 60, nn.Parameter(torch.zeros(1)))
    with pytest.raises(ValueError, match="model.freeze_params: the pattern"):
        freeze_by_pattern(module, [pattern])


def test_a_broken_pattern_is_named(module):
    with pytest.raises(ValueError, match=r"model.freeze_params: '\(' is no regular expression"):
        freeze_by_pattern(module, ["("])


@pytest.mark.parametrize("with_weights", [True, False])
def test_code_in_a_folder_is_not_run(tiny_llm_folder, tmp_path, with_weights):
    folder = shutil.copytree(tiny_llm_folder, tmp_path / "llm")
    config = json.loads((folder / "config.json").read_text())
    remote = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "evil", "auto_map": remote}))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')")
    with pytest.raises(ValueError, match="trust_remote_code"):
        load_llm(folder, with_weights=with_weights)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_merged_lora_computes_the_same_in_ordinary_layers(tiny_llm_folder, dtype):
    llm = load_llm(tiny_llm_folder, dtype).eval()
    names = [name for name, _ in llm.named_parameters()]
    add_lora(llm, lora("q_proj", "down_proj"))
    for name, parameter in llm.named_parameters():
        if ".lora_" in name:
            nn.init.normal_(parameter, std=0.2)
    ids = torch.arange(20)[None]
    expected = llm(ids).logits
    merge_lora(llm)
    assert [name for name, _ in llm.named_parameters()] == names and llm.dtype == getattr(torch, dtype)
    torch.testing.assert_close(llm(ids).logits, expected, atol=1e-5 if dtype == "float32" else 0.02, rtol=0)

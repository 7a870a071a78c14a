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

"""Linear layers that oneDNN multiplies compute what PyTorch's do, forward and backward, and stay what they were."""

import copy
import os
import pickle
import subprocess
import sys

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from nemo_speechllm.modules import linear
from nemo_speechllm.modules.linear import OneDNNLinear, PackedLinear, is_packed, pack_weights, use_onednn
from nemo_speechllm.modules.quantization import to_int8

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch was built without oneDNN")
SHAPES = [(64,), (1, 64), (7, 64), (3, 5, 64), (2, 0, 64)]


@pytest.fixture(autouse=True)
def faster(monkeypatch):
    """A processor on which oneDNN is the faster, whatever this one is."""
    monkeypatch.setattr(linear, "is_faster", lambda: True)


def layers(bias: bool = True) -> tuple[nn.Linear, nn.Linear]:
    """A layer, and the same that oneDNN multiplies."""
    torch.manual_seed(0)
    plain = nn.Linear(64, 48, bias=bias)
    other = copy.deepcopy(plain)
    use_onednn(other)
    assert type(other) is OneDNNLinear
    return plain, other


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("frozen", [True, False])
def test_outputs_and_gradients_are_pytorchs(bias, shape, frozen):
    plain, other = layers(bias)
    inputs, found = torch.randn(shape), []
    for layer in (plain, other):
        layer.requires_grad_(not frozen)
        given = inputs.clone().requires_grad_()
        outputs = layer(given)
        outputs.cos().sum().backward()
        found.append([outputs.detach(), given.grad, *(weight.grad for weight in layer.parameters())])
    for expected, actual in zip(*found, strict=True):
        assert (expected is None) == (actual is None)
        torch.testing.assert_close(actual, expected)


def test_inputs_may_lie_anyhow_and_a_frozen_layer_keeps_none_of_them():
    plain, other = layers()
    inputs = torch.randn(5, 64, 6).transpose(1, 2)
    torch.testing.assert_close(other(inputs), plain(inputs))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.shape), lambda _: None):
        other.requires_grad_(False)(inputs.clone().requires_grad_())
    assert kept == [other.weight.shape]


def test_no_gradient_is_asked_of_inference():
    plain, other = layers()
    with torch.inference_mode():
        inputs = torch.randn(3, 64)
        torch.testing.assert_close(other(inputs), plain(inputs))


@pytest.mark.parametrize("where", ["autocast", "bfloat16", "off"])
def test_other_types_and_who_switches_it_off_get_pytorchs_own(where, monkeypatch):
    plain, other = layers()
    monkeypatch.setattr(linear, "_product", lambda *_: pytest.fail("oneDNN was called"))
    inputs = torch.randn(3, 64)
    if where == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(other(inputs), plain(inputs)) and other(inputs).dtype == torch.bfloat16
    elif where == "bfloat16":
        assert torch.equal(other.bfloat16()(inputs.bfloat16()), plain.bfloat16()(inputs.bfloat16()))
    else:
        with torch.backends.mkldnn.flags(enabled=False):
            assert torch.equal(other(inputs), plain(inputs))


def test_names_weights_and_copies_stay(tmp_path):
    plain, other = layers()
    assert list(other.state_dict()) == list(plain.state_dict()) and isinstance(other, nn.Linear)
    for copied in (copy.deepcopy(other), pickle.loads(pickle.dumps(other))):
        assert type(copied) is OneDNNLinear and torch.equal(copied.weight, plain.weight)
    inputs = torch.randn(4, 64)
    torch.testing.assert_close(torch.compile(other, backend="eager")(inputs), plain(inputs))
    for changed in (torch.jit.trace(other, inputs), torch.fx.symbolic_trace(other), torch.func.vmap(other)):
        torch.testing.assert_close(changed(inputs), plain(inputs))
    torch.testing.assert_close(torch.func.jacrev(other)(inputs[0]), plain.weight)


def test_lora_and_8_bits_go_by_it_too():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 48), nn.Linear(48, 8))
    inject_adapter_in_model(LoraConfig(r=4, target_modules=["0"], init_lora_weights=False), model)
    expected = model(inputs := torch.randn(6, 64))
    use_onednn(model)
    assert sum(type(module) is OneDNNLinear for module in model.modules()) == 4
    torch.testing.assert_close(model(inputs), expected)
    to_int8(model)
    assert not any(isinstance(module, nn.Linear) for module in model.modules())


class TestPacked:
    """`pack_weights`: weights laid out once."""

    @pytest.fixture
    def pair(self) -> tuple[nn.Linear, nn.Linear]:
        plain, packed = layers()
        pack_weights(packed)
        assert type(packed) is PackedLinear and is_packed(packed)
        return plain, packed

    @pytest.mark.parametrize("shape", SHAPES)
    def test_outputs_are_pytorchs(self, pair, shape):
        plain, packed = pair
        inputs = torch.randn(shape)
        with torch.inference_mode():
            torch.testing.assert_close(packed(inputs), plain(inputs))

    @pytest.mark.parametrize("bias", [True, False])
    def test_copies_answer_alike(self, bias):
        _, packed = layers(bias)
        pack_weights(packed)
        inputs = torch.randn(3, 64)
        with torch.inference_mode():
            for copied in (copy.deepcopy(packed), pickle.loads(pickle.dumps(packed))):
                assert type(copied) is PackedLinear and torch.equal(copied(inputs), packed(inputs))

    def test_states_are_those_of_before(self, pair):
        plain, packed = (layer.state_dict() for layer in pair)
        assert list(plain) == list(packed) and all(torch.equal(plain[name], packed[name]) for name in plain)

    def test_other_weights_may_be_put_into_it(self, pair):
        _, packed = pair
        other, inputs = nn.Linear(64, 48), torch.randn(3, 64)
        packed.load_state_dict(other.state_dict())
        with torch.inference_mode():
            torch.testing.assert_close(packed(inputs), other(inputs))
        assert type(packed) is PackedLinear

    def test_it_stays_where_nothing_changes_and_is_ordinary_again_of_another_type(self, pair):
        plain, packed = pair
        assert type(packed.to("cpu").float()) is PackedLinear
        packed.bfloat16()
        assert type(packed) is OneDNNLinear and torch.equal(packed.weight, plain.bfloat16().weight)

    def test_a_layer_that_shares_its_weights_leaves_them_to_the_other(self):
        embedding, head = nn.Embedding(48, 64), nn.Linear(64, 48, bias=False)
        head.weight = embedding.weight
        use_onednn(head)
        pack_weights(head)
        assert type(embedding.weight) is nn.Parameter and embedding.weight.layout == torch.strided

    def test_no_gradient_is_lost_in_silence(self, pair):
        inputs = torch.randn(3, 64, requires_grad=True)
        with pytest.raises(RuntimeError, match="no gradients.*without answers_only"):
            pair[1](inputs)
        with torch.no_grad():
            torch.testing.assert_close(pair[1](inputs), pair[0](inputs))
        with pytest.raises(RuntimeError, match="no gradients"):
            pair[1].requires_grad_()(inputs.detach())


@pytest.mark.parametrize(
    ("capability", "cpu", "expected"),
    [("AVX512", "AuthenticAMD", True), ("AVX512", "GenuineIntel", False), ("AVX2", "AuthenticAMD", False)],
)
def test_it_is_for_processors_whose_avx512_mkl_does_not_use(capability, cpu, expected, monkeypatch, tmp_path):
    monkeypatch.undo()
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor\t: 0\nvendor_id\t: {cpu}\n")
    monkeypatch.setattr(linear, "CPU_INFO", info)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    assert linear.is_faster.__wrapped__() is expected


def test_ever_new_lengths_take_no_ever_more_memory():
    code = """
import torch
from nemo_speechllm.modules import linear
from nemo_speechllm.modules.memory import give_back_free_memory
resident = lambda: int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20
give_back_free_memory()
weight = torch.randn(1536, 576)
for length in range(10, 620, 2):
    linear._product(torch.randn(length, 576), weight, None)
    if length == 210:
        give_back_free_memory()
        before = resident()
give_back_free_memory()
print(resident() - before)
"""
    environment = {name: value for name, value in os.environ.items() if not name.endswith("CACHE_CAPACITY")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 30

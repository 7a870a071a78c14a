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

"""Packed and padded rows cost the same, and teach the same; so does what is taken part by part."""

import pytest
import torch

from nemo_speechllm.modules import answer_loss
from nemo_speechllm.modules.answer_loss import answer_nats, cross_entropy
from nemo_speechllm.modules.llm import add_lora, checkpoint_activations, load_llm
from nemo_speechllm.modules.segments import IGNORE_INDEX, join_segments
from nemo_speechllm.prompts.segments import AudioSegment, TextSegment
from nemo_speechllm.recipes.sections import LoRA


@pytest.fixture
def llm(tiny_llm_folder):
    llm = load_llm(tiny_llm_folder)
    llm.requires_grad_(False)
    torch.manual_seed(0)
    add_lora(llm, LoRA(r=4, target_modules=["q_proj", "v_proj", "up_proj"]))
    with torch.no_grad():
        for name, parameter in llm.named_parameters():
            if ".lora_" in name:
                parameter.normal_(std=0.3)
    return llm


def taught(llm, counts=(9, 2, 30)) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """Each row's nats and tokens, and the gradients of audio and LoRA."""
    generator = torch.Generator().manual_seed(0)
    audio = [torch.randn(n, llm.config.hidden_size, generator=generator, requires_grad=True) for n in counts]
    prompts = [
        [TextSegment([5, 6]), AudioSegment(0), TextSegment([7]), TextSegment([11, 12, 2][: 1 + n % 3], loss=True)]
        for n in counts
    ]
    prompts[1].insert(0, TextSegment([3], loss=True))  # which nothing predicts
    inputs = join_segments(prompts, [[item] for item in audio], llm.get_input_embeddings())
    nats, tokens = answer_nats(llm, inputs)
    learned = [parameter for parameter in llm.parameters() if parameter.requires_grad]
    return nats, tokens, torch.autograd.grad(nats.sum() / tokens.sum(), [*audio, *learned])


def test_packed_rows_teach_what_padded_rows_do(llm):
    packed = taught(llm)
    llm.set_attn_implementation("sdpa")
    padded = taught(llm)
    assert packed[1].tolist() == padded[1].tolist() == [1, 3, 1]
    torch.testing.assert_close(packed[0], padded[0], rtol=1e-5, atol=1e-5)
    assert max(float(gradient.abs().max()) for gradient in packed[2]) > 1e-3
    for got, expected in zip(packed[2], padded[2], strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", None])
def test_a_row_costs_the_same_in_any_batch(llm, attention):
    if attention:
        llm.set_attn_implementation(attention)
    together = taught(llm)[0]
    torch.testing.assert_close(together[:1], taught(llm, (9,) + (2,))[0][:1], rtol=1e-5, atol=1e-5)


def test_only_the_answers_logits_are_computed(llm, monkeypatch):
    seen = []
    monkeypatch.setattr(
        answer_loss, "cross_entropy", lambda logits, labels: seen.append(logits.shape) or cross_entropy(logits, labels)
    )
    _, tokens, _ = taught(llm)
    assert seen == [(int(tokens.sum()), llm.config.vocab_size)]


def test_a_large_vocabulary_is_taken_part_by_part(monkeypatch):
    logits = torch.randn(7, 50, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.arange(7)
    whole = cross_entropy(logits, labels)
    (expected,) = torch.autograd.grad(whole.sum(), logits)
    monkeypatch.setattr(answer_loss, "LOGITS_AT_ONCE", 100)
    parts = cross_entropy(logits, labels)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(torch.autograd.grad(parts.sum(), logits)[0], expected)


def test_without_an_answer_there_is_nothing_to_predict(llm):
    inputs = join_segments([[TextSegment([5, 6])]], [[]], llm.get_input_embeddings())
    assert (inputs.labels == IGNORE_INDEX).all()
    nats, tokens = answer_nats(llm, inputs)
    assert nats.tolist() == [0.0] and tokens.tolist() == [0]


def test_checkpointed_activations_give_the_same_gradients_and_take_less_memory(llm):
    weights = {parameter.untyped_storage().data_ptr() for parameter in llm.parameters()}

    def saved() -> int:
        sizes = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            result.append(taught(llm))
        return sum(sizes.values())

    result: list = []
    llm.train()
    whole = saved()
    checkpoint_activations(llm)
    of_logits = 4 * llm.config.vocab_size * int(result[0][1].sum())
    assert saved() - of_logits < (whole - of_logits) / 2
    torch.testing.assert_close(result[1], result[0])

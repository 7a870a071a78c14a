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

"""An LLM in this process: batches change nothing."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from nemo_speechllm.engines.engine import Completion, Request
from nemo_speechllm.engines.transformers_engine import TransformersEngine

SEED = '[00:00:00 - 00:00:02]: "Go." (Gender:Male, Emotion: neutral)'
REQUESTS = [Request(str(i), f"{SEED}\n" + "What can you hear? " * (1 + 3 * i)) for i in range(5)]


@pytest.fixture
def llm(tiny_llm_folder):
    """Weights so large that an answer depends on all of its prompt."""
    llm = AutoModelForCausalLM.from_pretrained(tiny_llm_folder)
    torch.manual_seed(0)
    for weight in llm.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.3)
    return llm


def test_answers_do_not_depend_on_the_batch(llm, tokenizer):
    alone = dict(TransformersEngine(llm, tokenizer, batch_size=1, max_new_tokens=12)(REQUESTS))
    assert len({completion.text for completion in alone.values()}) > 1
    for batch_size in (2, 5):
        assert dict(TransformersEngine(llm, tokenizer, batch_size, 12)(REQUESTS[::-1])) == alone


def test_an_answer_is_what_the_llm_says_to_the_rendered_chat(llm, tokenizer):
    chat = [{"role": "user", "content": REQUESTS[1].message}]
    prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    ids = llm.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt.input_ids.shape[1] :]
    ((id, completion),) = TransformersEngine(llm, tokenizer, max_new_tokens=12)(REQUESTS[1:2])
    assert (id, completion) == ("1", Completion(tokenizer.decode(ids, skip_special_tokens=True).strip(), True))


def test_an_answer_that_ends_is_not_truncated(llm, tokenizer):
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    llm.lm_head = torch.nn.Linear(64, len(tokenizer))
    torch.nn.init.zeros_(llm.lm_head.weight)
    llm.lm_head.bias.data = torch.nn.functional.one_hot(torch.tensor(end), len(tokenizer)).float()
    assert dict(TransformersEngine(llm, tokenizer)(REQUESTS[:1])) == {"0": Completion("", False)}

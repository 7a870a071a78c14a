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

"""Generation from embedded prompts through Hugging Face's ``generate``."""

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from nemo_speechllm.decoding.joint import JointCTCScores
from nemo_speechllm.modules.segments import LLMInputs


@torch.no_grad()
def generate_ids(
    llm: PreTrainedModel,
    inputs: LLMInputs,
    end_token_id: int,
    max_new_tokens: int = 128,
    beam_size: int = 1,
    repetition_penalty: float = 1.0,
    joint: JointCTCScores | None = None,
) -> tuple[list[list[int]], Tensor]:
    """Greedy (``beam_size`` 1) or beam search.

    Args:
        llm: the language model.
        inputs: left-padded embeddings and their mask; labels are not read.
        end_token_id: ends an answer.
        max_new_tokens: an answer that reaches it without an end token is cut there and reported.
        joint: CTC's say in each next token; None: the LLM decides alone.

    Returns:
        ids of each answer without its end token, and a bool tensor (B,) that is true where the answer was cut.
    """
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        num_beams=beam_size,
        do_sample=False,
        repetition_penalty=repetition_penalty,
        eos_token_id=end_token_id,
        pad_token_id=end_token_id,
    )
    ids = llm.generate(
        inputs_embeds=inputs.embeddings,
        attention_mask=inputs.attention_mask,
        generation_config=config,
        logits_processor=[joint] if joint else [],
    )
    ended = ids == end_token_id
    answers = []
    for row, row_ended in zip(ids, ended):
        length = int(row_ended.float().argmax()) if row_ended.any() else len(row)
        answers.append(row[:length].tolist())
    return answers, ~ended.any(dim=1)

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

"""Generation through Hugging Face's ``generate``: from embedded prompts, and from text beside encoder states."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, PreTrainedModel, RepetitionPenaltyLogitsProcessor

from nemo_speechllm.decoding.greedy import Scores, greedy_ids
from nemo_speechllm.decoding.joint import JointCTCScores
from nemo_speechllm.modules.las_decoder import DecoderText
from nemo_speechllm.modules.packing import can_pack
from nemo_speechllm.modules.segments import LLMInputs

# what an LLM's own generation_config.json may ask of its answers, which Hugging Face's ``generate`` heeds
OWN_RULES = (
    *("no_repeat_ngram_size", "bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "sequence_bias"),
    *("forced_bos_token_id", "forced_eos_token_id", "min_length", "min_new_tokens"),
    "exponential_decay_length_penalty",
)


@torch.no_grad()
def generate_ids(
    llm: PreTrainedModel,
    inputs: LLMInputs,
    end_token_id: int,
    max_new_tokens: int = 128,
    beam_size: int = 1,
    repetition_penalty: float = 1.0,
    joint: JointCTCScores | None = None,
    drafts: list[list[int]] | None = None,
) -> tuple[list[list[int]], Tensor]:
    """Generate answers by greedy (``beam_size`` 1) or beam search.

    Greedy search is this package's own where the LLM can read packed rows and has no `OWN_RULES`; else Hugging Face's.

    Args:
        llm: the language model.
        inputs: left-padded embeddings and their mask; labels are not read.
        end_token_id: ends an answer.
        max_new_tokens: an answer that reaches it without an end token is cut there and reported.
        repetition_penalty: by which a token that is in the answer already becomes less likely; 1: it does not. What
            was asked does not count.
        joint: CTC's say in each next token; None: the LLM decides alone.
        drafts: what each answer may be, for greedy search to be faster; see `greedy_ids`.

    Returns:
        ids of each answer without its end token, and a bool tensor (B,) that is true where the answer was cut.
    """
    if beam_size == 1 and can_pack(llm) and not any(getattr(llm.generation_config, rule, None) for rule in OWN_RULES):
        scores = _scores(repetition_penalty, joint)
        rows = greedy_ids(llm, inputs, end_token_id, max_new_tokens, scores, drafts)
        cut = torch.tensor([row[-1] != end_token_id for row in rows])
        return [row if is_cut else row[:-1] for row, is_cut in zip(rows, cut, strict=True)], cut
    generate = cast(Callable[..., Tensor], llm.generate)  # ids alone where nothing else is asked for
    ids = generate(
        inputs_embeds=inputs.embeddings,
        attention_mask=inputs.attention_mask,
        generation_config=_search(end_token_id, max_new_tokens, beam_size),
        logits_processor=_penalty(repetition_penalty) + ([joint] if joint else []),
    )
    return _until_end(ids, end_token_id)


@torch.no_grad()
def generate_text_ids(
    decoder: PreTrainedModel,
    states: Tensor,
    states_mask: Tensor,
    text: DecoderText,
    end_token_id: int,
    max_new_tokens: int = 128,
    beam_size: int = 1,
    repetition_penalty: float = 1.0,
) -> tuple[list[list[int]], Tensor]:
    """Generate answers with a decoder that attends to audio.

    Arguments that are not named here and the result are `generate_ids`'s.

    Args:
        decoder: from `nemo_speechllm.modules.las_decoder.build_las_decoder`.
        states: (B, T, d_model), states_mask (B, T).
        text: the instructions, without answers.
    """
    config = _search(end_token_id, max_new_tokens, beam_size)
    # Hugging Face puts this token before a text that begins with another; here nothing stands before the instruction
    config.decoder_start_token_id = text.ids[:, 0].tolist()
    generate = cast(Callable[..., Tensor], decoder.generate)
    ids = generate(
        inputs_embeds=states,
        attention_mask=states_mask,
        decoder_input_ids=text.ids,
        decoder_attention_mask=text.attention_mask,
        decoder_answer_start=text.answer_start,
        generation_config=config,
        logits_processor=_penalty(repetition_penalty, text.ids.shape[1]),
    )
    return _until_end(ids[:, text.ids.shape[1] :], end_token_id)


def _search(end_token_id: int, max_new_tokens: int, beam_size: int) -> GenerationConfig:
    config = GenerationConfig()
    unknown = config.update(
        max_new_tokens=max_new_tokens,
        num_beams=beam_size,
        do_sample=False,
        repetition_penalty=1.0,  # see `_penalty`; unset, it would be that of the LLM's own generation_config.json
        eos_token_id=end_token_id,
        pad_token_id=end_token_id,
    )
    if unknown:  # given to its constructor, they would be kept and not read
        raise TypeError(f"transformers' GenerationConfig has no {sorted(unknown)}")
    return config


def _penalty(factor: float, n_asked: int | None = None) -> list[LogitsProcessor]:
    """Return Hugging Face's repetition penalty, after so many tokens of a question.

    Not by ``GenerationConfig``: of embedded prompts that leaves out as many tokens of the answer as the prompt is
    padded by.
    """
    return [] if factor == 1 else [RepetitionPenaltyLogitsProcessor(float(factor), prompt_ignore_length=n_asked)]


def _scores(repetition_penalty: float, joint: JointCTCScores | None) -> Scores | None:
    """Return what chooses the next token of a row beside the LLM, if anything does."""
    penalty = _penalty(repetition_penalty)
    if not penalty and joint is None:
        return None

    def scores(row: int, ids: list[int], logits: Tensor) -> Tensor:
        written = torch.tensor([ids], dtype=torch.long, device=logits.device)
        for processor in penalty:
            logits = processor(written, logits[None])[0]
        return logits if joint is None else joint.of_row(row, ids, logits)

    return scores


def _until_end(ids: Tensor, end_token_id: int) -> tuple[list[list[int]], Tensor]:
    """Return generated ids (B, L) up to each row's end token, and where there is none (B,)."""
    ended = ids == end_token_id
    answers = []
    for row, row_ended in zip(ids, ended, strict=True):
        length = int(row_ended.float().argmax()) if row_ended.any() else len(row)
        answers.append(row[:length].tolist())
    return answers, ~ended.any(dim=1)

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

"""The tokenizer and chat template that an exported model is asked by, in which a token stands for an audio."""

import copy
import json
from typing import cast

import torch
from transformers import PreTrainedTokenizerBase

from nemo_speechllm.data.conversation import Audio, Conversation, Turn
from nemo_speechllm.export.limits import ExportError
from nemo_speechllm.models.decoder_only import DecoderOnlySpeechLM
from nemo_speechllm.prompts.segments import TextSegment

AUDIO = "<|audio|>"  # what NeMo's vLLM plugin takes, and no other

# Before a model's own template: messages whose content is a list of parts, as processors and vLLM give them, and the
# recipe's system prompt.
PREAMBLE = """\
{%- set heard = namespace(messages=SYSTEM) -%}
{%- for message in messages -%}
{%- if message['content'] is string -%}{%- set text = message['content'] -%}{%- else -%}
{%- set text -%}{%- for part in message['content'] -%}
{%- if part['type'] == 'text' -%}{{- part['text'] -}}{%- else -%}{{- 'AUDIO' -}}{%- endif -%}
{%- endfor -%}{%- endset -%}{%- endif -%}
{%- set heard.messages = heard.messages + [{'role': message['role'], 'content': text}] -%}
{%- endfor -%}
{%- set messages = heard.messages -%}
"""


def exported_tokenizer(model: DecoderOnlySpeechLM) -> PreTrainedTokenizerBase:
    """Return a model's tokenizer with the token `AUDIO`, and a template that asks as the model was asked.

    Its end token is the one that ends an answer, its padding one that no prompt holds: NeMo takes every padding token
    in a prompt for padding.

    Raises:
        ExportError: no token is left for padding, or the template is not read as the model reads it.
    """
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": [AUDIO]}, replace_extra_special_tokens=False)
    tokenizer.chat_template = chat_template(model.prompt.chat_template, model.prompt.system_prompt)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(model.prompt.end_token_id)
    instructions = sorted({"", *map(str, model.cfg.prompt.instructions.values())})
    prompts = [expected_ids(model, tokenizer, instruction) for instruction in instructions]
    tokenizer.pad_token = _unwritten(tokenizer, {token for ids in prompts for token in ids})
    for instruction, ids in zip(instructions, prompts, strict=True):
        if asked_ids(tokenizer, instruction) != ids:
            raise ExportError(
                f"model.prompt: with the audio's token in it, {instruction!r} is read by the tokenizer of "
                f"{type(tokenizer).__name__} as other tokens than this model was asked by; format=nemo keeps them"
            )
    return tokenizer


def chat_template(template: str, system_prompt: str | None) -> str:
    """Return a chat template that also takes content in parts, and begins with a system prompt where none is given."""
    system = "[]"
    if system_prompt is not None:
        turn = f"[{{'role': 'system', 'content': {json.dumps(system_prompt, ensure_ascii=False)}}}]"
        system = f"[] if messages[0]['role'] == 'system' else {turn}"
    return PREAMBLE.replace("SYSTEM", system).replace("AUDIO", AUDIO) + template


def asked_ids(tokenizer: PreTrainedTokenizerBase, instruction: str) -> list[int]:
    """Return how the tokenizer's template asks about an audio."""
    messages = [{"role": "user", "content": AUDIO + instruction}]
    return list(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))


def expected_ids(model: DecoderOnlySpeechLM, tokenizer: PreTrainedTokenizerBase, instruction: str) -> list[int]:
    """Return how the model itself asks about an audio, with the audio's token in its place."""
    audio = cast(int, tokenizer.convert_tokens_to_ids(AUDIO))
    turn = Turn("user", [Audio(torch.zeros(1)), instruction])
    segments = model.prompt.segments(Conversation("export", [turn]))
    return [token for segment in segments for token in (segment.ids if isinstance(segment, TextSegment) else [audio])]


def _unwritten(tokenizer: PreTrainedTokenizerBase, written: set[int]) -> str:
    """Return a token that the LLM has and that is in no prompt: the padding token, or another special one."""
    taken = {*written, tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(AUDIO)}
    special = {index: token for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    candidates = [tokenizer.pad_token_id, *special]
    for index in candidates:
        if index is not None and index not in taken:
            return str(tokenizer.convert_ids_to_tokens(index))
    raise ExportError(
        f"model.llm.pretrained: every special token of the tokenizer of {tokenizer.name_or_path} stands in the "
        "prompt, and NeMo needs one for padding that does not"
    )

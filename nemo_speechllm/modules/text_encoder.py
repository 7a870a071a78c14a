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

"""A pretrained sentence encoder, frozen, that tells a decoder what an instruction means (2005.09382).

A decoder from scratch knows the words of its training alone. An encoder that has read much text has a place for every
word, near those that mean about the same: an instruction with a new verb looks like one that was learned.
"""

from typing import cast

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer, PreTrainedModel

from nemo_speechllm import assets
from nemo_speechllm.errors import InputError


class TextEncoder(nn.Module):
    """frozen sentence encoder → linear → states that a decoder attends to beside those of the audio.

    Args:
        cfg: the recipe's ``model.text_encoder`` section.
        d_model: width of the decoder.

    Raises:
        nemo_speechllm.assets.AssetError: the pretrained model cannot be found.
    """

    def __init__(self, cfg: DictConfig, d_model: int):
        super().__init__()
        folder = assets.resolve(cfg.pretrained)
        self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, padding_side="right")
        pretrained = AutoModel.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)
        self.encoder = cast(PreTrainedModel, pretrained).eval().requires_grad_(False)
        self.projection = nn.Linear(self.encoder.config.hidden_size, d_model)
        # of zeros, so that a decoder that was trained without it goes on from what it knows
        nn.init.zeros_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)

    def forward(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Return states (B, L, d_model) of B texts and where there are some, (B, L).

        Raises:
            ValueError: a text is longer than the encoder reads.
        """
        tokens = self.tokenizer(texts, padding=True, return_tensors="pt").to(self.projection.weight.device)
        limit = getattr(self.encoder.config, "max_position_embeddings", None)
        if limit is not None and tokens.input_ids.shape[1] > limit:
            raise InputError(
                f"the instruction {max(texts, key=len)[:80]!r}… has {tokens.input_ids.shape[1]} tokens, more than the "
                f"{limit} that the text encoder (model.text_encoder.pretrained) reads; shorten it"
            )
        with torch.no_grad():
            states = self.encoder(**tokens).last_hidden_state
        return self.projection(states), tokens.attention_mask.bool()

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

"""What the speech LMs are compared with has in common."""

from abc import abstractmethod

import torch
from omegaconf import OmegaConf
from torch import nn

from nemo_speechllm.data.conversation import Conversation
from nemo_speechllm.data.dataset import ConversationBuilder
from nemo_speechllm.models.answers import Answer, generation_options
from nemo_speechllm.modules.linear import use_onednn
from nemo_speechllm.recipes.generation import Generation
from nemo_speechllm.recipes.sections import Prompt


class Baseline(nn.Module):
    """A system with the ``cfg``, ``builder`` and ``generate`` of a speech LM. It is evaluated, not trained.

    Args:
        max_new_tokens: of an answer, unless it is asked for otherwise.
        instructions: by task.
        parts: the modules.
    """

    def __init__(self, max_new_tokens: int, instructions: dict[str, str], **parts: nn.Module):
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part.eval())
        use_onednn(self)
        # NeMo restores its models onto the GPU where there is one
        self.to("cuda" if torch.cuda.is_available() else "cpu")
        prompt, generation = Prompt(instructions=instructions), Generation(max_new_tokens=max_new_tokens)
        self.cfg = OmegaConf.create({"prompt": prompt, "generation": generation})
        self.builder = ConversationBuilder(self.cfg.prompt)

    @abstractmethod
    def generate(
        self,
        conversations: list[Conversation],
        batch_size: int = 8,
        max_new_tokens: int | None = None,
        beam_size: int | None = None,
        decoder: str | None = None,
    ) -> list[Answer]:
        """Return answers in order; arguments are those of `SpeechLM.generate`."""

    def generation_limits(
        self, max_new_tokens: int | None, beam_size: int | None, decoder: str | None
    ) -> dict[str, int]:
        """Return ``max_new_tokens`` and ``beam_size``, where they are None the baseline's own.

        Raises:
            ValueError: a number is less than 1, or a ``decoder`` was asked for.
        """
        if decoder is not None:
            raise ValueError(
                f"decoder={decoder}: {type(self).__name__} has its own decoder and no other; leave it unset"
            )
        options = generation_options(self.cfg.generation, max_new_tokens, beam_size)
        return {name: options[name] for name in ("max_new_tokens", "beam_size")}

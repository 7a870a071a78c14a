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

"""Asks a speech LM about audio, or just asks it.

    python examples/chat.py model=salm_whisper_smollm2 audio=x.wav prompt="Transcribe the speech."
    python examples/chat.py model=x.nemo 'audio=[a.wav,b.wav]' prompt="Do both say the same?"
    python examples/chat.py model=x.nemo prompt="Who wrote Hamlet?"

Without ``prompt`` it is a conversation: a line is a turn, an empty line ends it. The audio comes before the first
question. ``model`` is the name of a shipped checkpoint, a ``.nemo`` file or a hub id.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nemo.core.config import hydra_runner
from omegaconf import MISSING, OmegaConf

from nemo_speechllm.command_line import check_settings, emit, run_command
from nemo_speechllm.data.conversation import Audio, Conversation, Turn
from nemo_speechllm.models import load_model


@dataclass
class ChatArguments:
    """Which model is asked, about which audio, and how it answers."""

    model: str = MISSING
    audio: Any = None  # a file or a list of files
    prompt: str | None = None
    max_new_tokens: int | None = None  # None: the recipe's
    beam_size: int | None = None


def prompts(prompt: str | None) -> Iterator[str]:
    """Yield the one prompt that was given, or what is typed until an empty line."""
    if prompt is not None:
        yield prompt
        return
    if not sys.stdin.isatty():
        raise ValueError('give prompt="…", or start chat.py in a terminal to type there')
    while line := input("> ").strip():
        yield line


@hydra_runner(config_name="ChatArguments", schema=ChatArguments)
def main(cfg: ChatArguments) -> None:
    """Print the answer to the one prompt, or to each line of a conversation."""
    check_settings(cfg)
    if cfg.prompt is not None and not cfg.prompt.strip():  # which no model was taught, and answers with something
        raise ValueError("prompt= is empty; is a shell variable unset? For a transcript there is transcribe.py")
    named = [] if cfg.audio is None else cfg.audio if OmegaConf.is_list(cfg.audio) else [cfg.audio]
    files = [str(file) for file in named]  # Hydra reads a name of digits as a number
    audios = [Audio.from_file(file) for file in files]
    model = load_model(cfg.model, answers_only=True)
    turns: list[Turn] = []
    for prompt in prompts(cfg.prompt):
        turns.append(Turn("user", [prompt] if turns else [*audios, prompt]))
        conversation = Conversation("chat", turns)
        (answer,) = model.generate([conversation], 1, cfg.max_new_tokens, cfg.beam_size)
        emit(answer.text + (" […]" if answer.truncated else ""))
        turns.append(Turn("assistant", [answer.text]))


if __name__ == "__main__":
    run_command(main)

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

"""How likely a text decoder finds answers that it is given, in the place of what it would write by itself."""

from typing import Protocol, cast, runtime_checkable

from omegaconf import DictConfig
from torch import nn

from nemo_speechllm.data.conversation import Conversation
from nemo_speechllm.decoding.rescoring import AnswerScore


@runtime_checkable
class ScoresAnswers(Protocol):
    """What has a text decoder that reads what is asked: each `SpeechLM` of this package, and a `Cascade`."""

    def score_answers(self, conversations: list[Conversation], answers: list[list[str]]) -> list[list[AnswerScore]]:
        """Return how likely each answer is that each of B conversations might have, in the order given.

        Audio is encoded once, however many answers there are. A score depends neither on its batch nor on the other
        answers, and is minus the `SpeechLM.answer_losses` of the same answer, times its tokens (of an InstructLAS with
        ``loss.instruction_weight`` 0).

        Args:
            conversations: taken together; their own answers, if any, are not read.
            answers: texts, as the training data have them, at least one of each conversation.
        """


def require_answer_scores(model: nn.Module) -> ScoresAnswers:
    """Return a speech LM or a baseline that can tell how likely an answer is.

    Raises:
        ValueError: it has no text decoder that reads what is asked, or one that never learned to read the audio.
    """
    if not isinstance(model, ScoresAnswers):
        raise ValueError(
            f"{type(model).__name__} has no text decoder that reads an instruction, so no answer to it is likely or "
            "unlikely; use scoring=text, or give a speech LM or a cascade"
        )
    if "loss" in cast(DictConfig, model.cfg):  # a baseline was trained elsewhere
        require_trained_decoder(model)
    return model


def require_trained_decoder(model: nn.Module) -> None:
    """Refuse a model that was trained by CTC alone.

    Raises:
        ValueError: it was, ``loss.lm_weight`` is 0.
    """
    if cast(DictConfig, model.cfg).loss.lm_weight == 0:
        raise ValueError(
            f"this {type(model).__name__} was trained by CTC alone (model.loss.lm_weight is 0): its decoder has no "
            "loss and finds no answer likely or unlikely"
        )

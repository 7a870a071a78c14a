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

"""Training on instructions: whenever a transcript comes, a skill is drawn and its target computed (2309.09843)."""

from dataclasses import replace

from nemo.utils import logging
from nemo.utils.nemo_logging import LogMode

from nemo_speechllm.data.conversation import Conversation
from nemo_speechllm.data.dataset import ConversationBatch
from nemo_speechllm.prompts.instruction_pools import POOLS, load_pools
from nemo_speechllm.prompts.skills import SKILLS, WRITTEN, apply_rule
from nemo_speechllm.randomness import named_random
from nemo_speechllm.recipes.sections import InstructionSampling
from nemo_speechllm.training.llm_targets import Targets, build_targets


class InstructionSampler:
    """Rewrites instruction and answer of the transcription tasks in a batch.

    What is drawn depends on (seed, epoch, id of the sample, number of the draw) and nothing else: the number of
    workers and of ranks, the batch and a resumption do not change it. A conversation with an instruction of its own,
    or of another task, stays as it is.

    Args:
        cfg: the recipe's ``model.instruction_sampling`` section.

    Raises:
        ValueError: an unknown skill, or weights that leave nothing to draw.
    """

    def __init__(self, cfg: InstructionSampling):
        self.skills = list(cfg.skills or SKILLS)
        unknown = set(self.skills) - set(POOLS)
        if unknown:
            raise ValueError(
                f"instruction_sampling.skills: no such skill as {sorted(unknown)}; there are {list(POOLS)}"
            )
        weights = {"transcribe": cfg.alpha} | dict.fromkeys(WRITTEN, cfg.beta)
        drawn = [weights.get(skill, 1.0) for skill in self.skills]
        if min(drawn) < 0 or sum(drawn) <= 0:
            raise ValueError(f"instruction_sampling: the weights {drawn} leave no skill to draw; see alpha and beta")
        self.shares = [weight / sum(drawn) for weight in drawn]
        self.split = cfg.split
        self.seed = cfg.seed
        self.per_audio = cfg.per_audio
        self.target_of: Targets = build_targets(cfg.targets)
        self._epoch: int | None = None
        self._seen: set[str] = set()

    def __call__(self, batch: ConversationBatch, epoch: int) -> ConversationBatch:
        """Return the batch with other instructions and answers, ``per_audio`` of them about each audio."""
        if epoch != self._epoch:
            self._epoch, self._seen = epoch, set()
        return batch.asked([self._samples(item, epoch) for item in batch.conversations])

    def _samples(self, conversation: Conversation, epoch: int) -> list[Conversation]:
        first = self.sample(conversation, epoch)
        if first is conversation:  # which has an instruction of its own
            return [conversation]
        self._check_repetition(conversation.id, epoch)
        return [first, *(self.sample(conversation, epoch, draw) for draw in range(1, self.per_audio))]

    def sample(self, conversation: Conversation, epoch: int, draw: int = 0) -> Conversation:
        """Return the conversation as an epoch asks and answers it; ``metadata`` tells ``skill`` and ``arguments``."""
        transcript = conversation.answer
        if conversation.question is None or conversation.task != "asr" or transcript is None:
            return conversation
        random = named_random((self.seed, epoch, conversation.id, *([draw] if draw else [])))
        skill = self.skills[random.choice(len(self.skills), p=self.shares)]
        instruction, arguments = load_pools()[skill].draw(self.split, transcript, random)
        target = self.target_of(skill, transcript) if skill in WRITTEN else apply_rule(skill, transcript, arguments)
        task = "asr" if skill == "transcribe" else skill
        asked = conversation.with_question(instruction=instruction, task=task).with_answer(target)
        return replace(asked, metadata=conversation.metadata | {"skill": skill, "arguments": arguments})

    def _check_repetition(self, name: str, epoch: int) -> None:
        if name in self._seen:
            logging.warning(
                f"{name} comes again in epoch {epoch}, with the same instruction: give each line an audio or offset "
                "of its own; where the data never end, set trainer.limit_train_batches, so that they have epochs",
                mode=LogMode.ONCE,
            )
        self._seen.add(name)

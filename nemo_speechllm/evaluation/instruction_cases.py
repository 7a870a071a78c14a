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

"""A test set of instructions over plain recordings, the same whenever it is built of the same manifest and seed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import permutations

import numpy as np

from nemo_speechllm.corpora.conditions import join_recordings, mix_at_snr
from nemo_speechllm.prompts.instruction_pools import SPLITS, load_adversarial, load_pools
from nemo_speechllm.prompts.skills import RULES, SKILLS, WRITTEN, apply_rule, draw_arguments, fill
from nemo_speechllm.randomness import named_random
from nemo_speechllm.training.llm_targets import Targets

CONCATENATED, OVERLAPPED = "concatenated", "overlapped"
PAUSE = 0.3  # seconds between two speakers


@dataclass(frozen=True)
class Speech:
    """What is listened to: one manifest row, or two that are ``concatenated`` or ``overlapped``.

    Attributes:
        rows: numbers of the rows, from 0.
        mix: how two of them are put together.
    """

    rows: tuple[int, ...]
    mix: str | None = None

    def transcripts(self, rows: Sequence[dict]) -> list[str]:
        """Return what may be written down: of overlapping speakers either one alone, or both in any order."""
        texts = [rows[index]["text"] for index in self.rows]
        if self.mix == OVERLAPPED:
            return [*texts, *(" ".join(order) for order in permutations(texts))]
        return [" ".join(texts)]

    def samples(self, recordings: Sequence[np.ndarray]) -> np.ndarray:
        """Its rows' samples at 16 kHz as one recording; overlapping speakers are equally loud."""
        if self.mix == OVERLAPPED:
            size = max(map(len, recordings))
            one, other = (np.pad(samples, (0, size - len(samples))) for samples in recordings)
            return mix_at_snr(one, other, snr=0.0)
        return join_recordings(recordings, PAUSE)


@dataclass(frozen=True)
class Case:
    """An instruction about a speech.

    Attributes:
        speech: what it is about.
        group: ``skills``, ``adversarial``, ``concatenated`` or ``overlapped``.
        name: the skill, or the category of a trap.
        split: of the instruction, one of `SPLITS`; a trap has none.
        complexity: ``word`` or ``semantic``; a trap has none.
        expected: skills of which any one is right, each with arguments that go before the case's own.
        arguments: of every slot.
    """

    speech: Speech
    group: str
    name: str
    instruction: str
    arguments: dict[str, str]
    expected: tuple[tuple[str, dict[str, str]], ...]
    split: str | None = None
    complexity: str | None = None

    def targets(self, transcripts: Sequence[str], target_of: Targets) -> list[tuple[str, str]]:
        """Return what is right where this was said: pairs of skill and text."""
        return [
            (skill, self._target(skill, transcript, arguments, target_of))
            for skill, arguments in self.expected
            for transcript in transcripts
        ]

    def candidates(self, transcript: str, target_of: Targets) -> dict[str, str]:
        """Return what each skill would make of a transcript, with this case's arguments."""
        arguments = dict(self.expected)
        return {skill: self._target(skill, transcript, arguments.get(skill, {}), target_of) for skill in SKILLS}

    def _target(self, skill: str, transcript: str, arguments: dict[str, str], target_of: Targets) -> str:
        if skill in WRITTEN:
            return target_of(skill, transcript)
        return apply_rule(skill, transcript, self.arguments | arguments)


@dataclass
class CaseSizes:
    """How many cases there are of each kind.

    ``cell`` for each skill and split, ``trap`` for each adversarial instruction, ``pairs`` of recordings to
    concatenate, and as many to overlap.
    """

    cell: int = 20
    trap: int = 2
    pairs: int = 28


@dataclass
class CaseBuilder:
    """Builds the cases of a manifest.

    Args:
        rows: with ``text`` and, if known, ``speaker``: two speakers are to be different ones.
        seed: of all draws.
        skills: to be tested.
    """

    rows: Sequence[dict]
    seed: int = 0
    skills: Sequence[str] = field(default=SKILLS)

    def build(self, sizes: CaseSizes) -> list[Case]:
        """All cases, in a fixed order.

        Raises:
            ValueError: there are too few rows for the pairs.
        """
        cases = [
            self._instructed(Speech((row,)), skill, split, "skills", number)
            for skill in self.skills
            for split in SPLITS
            for number, row in enumerate(self._draw_rows(sizes.cell, skill, split))
        ]
        for trap, entry in enumerate(load_adversarial()):
            cases += [self._trapped(entry, row, trap) for row in self._draw_rows(sizes.trap, "trap", trap)]
        rules = [skill for skill in self.skills if skill in RULES]
        for mix in (CONCATENATED, OVERLAPPED):
            pairs = self._draw_pairs(sizes.pairs if rules else 0, mix)
            cases += [
                self._instructed(Speech(pair, mix), rules[number % len(rules)], "seen", mix, number)
                for number, pair in enumerate(pairs)
            ]
        return cases

    def _instructed(self, speech: Speech, skill: str, split: str, group: str, number: int) -> Case:
        random = named_random((self.seed, group, skill, split, number))
        pool = load_pools()[skill]
        transcript = speech.transcripts(self.rows)[-1]  # of overlapping speakers both
        instruction, arguments = pool.draw(split, transcript, random)
        return Case(speech, group, skill, instruction, arguments, ((skill, {}),), split, pool.complexity)

    def _trapped(self, entry: dict, row: int, trap: int) -> Case:
        arguments = draw_arguments(self.rows[row]["text"], named_random((self.seed, "trap", trap, row)))
        expected = tuple((item["skill"], item.get("arguments", {})) for item in entry["expected"])
        instruction = fill(entry["instruction"], arguments)
        return Case(
            Speech((row,)), "adversarial", entry["category"], instruction, arguments | {"refusal": ""}, expected
        )

    def _draw_rows(self, count: int, *name: object) -> list[int]:
        """Rows at random; none comes again before all have come."""
        order = named_random((self.seed, "rows", *name)).permutation(len(self.rows))
        return [int(order[i % len(order)]) for i in range(count)]

    def _draw_pairs(self, count: int, mix: str) -> list[tuple[int, int]]:
        order = named_random((self.seed, mix)).permutation(len(self.rows)).tolist()
        speakers = [row.get("speaker") for row in self.rows]
        several = len(set(speakers)) > 1
        pairs = []
        for number in range(count):
            first = order[number % len(order)]
            others = order[(number + 1) % len(order) :] + order
            fit = (i for i in others if i != first and (not several or speakers[i] != speakers[first]))
            second = next(fit, None)
            if second is None:
                raise ValueError("pairs of recordings need a manifest of at least two rows; set pairs=0")
            pairs.append((first, second))
        return pairs

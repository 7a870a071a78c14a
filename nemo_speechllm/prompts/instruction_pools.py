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

"""Pools of free-form instructions, one for each skill, in two splits that share neither a template nor a main verb.

They are the files of ``instructions/``: templates line by line under ``seen`` and ``unseen``, the main verbs of the
latter under ``unseen_verbs``, and ``complexity``: ``word`` where words are counted, found or moved, ``semantic`` where
they are understood.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist

from nemo_speechllm.prompts.skills import INSTRUCTIONS, SKILLS, draw_arguments, fill, pick, slots_of
from nemo_speechllm.registry import Registry

SPLITS = ("seen", "unseen")
MAX_SIMILARITY = 0.9


@dataclass(frozen=True)
class InstructionPool:
    """The instructions of one skill; see the module's docstring."""

    skill: str
    complexity: str
    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    unseen_verbs: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> "InstructionPool":
        """Read the pool of ``SKILL.yaml``."""
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        splits = {split: tuple(content[split].splitlines()) for split in SPLITS}
        return cls(path.stem, content["complexity"], **splits, unseen_verbs=tuple(content["unseen_verbs"]))

    def templates(self, split: str) -> tuple[str, ...]:
        """Those of ``seen`` or ``unseen``."""
        return {"seen": self.seen, "unseen": self.unseen}[split]

    def draw(self, split: str, transcript: str, random: np.random.Generator) -> tuple[str, dict[str, str]]:
        """Draw an instruction of a split, filled for a transcript, and the arguments of its skill."""
        arguments = draw_arguments(transcript, random)
        template = pick(self.templates(split), random)
        if "refusal" not in slots_of(template):
            arguments["refusal"] = ""  # silence is asked for
        return fill(template, arguments), arguments


# by skill: the file of its instructions, which is named after it
POOLS: Registry[Path] = Registry("skill")
for _skill in SKILLS:
    POOLS.register(_skill)(INSTRUCTIONS / f"{_skill}.yaml")


def load_pools() -> dict[str, InstructionPool]:
    """Return the pools of all skills."""
    return {skill: _read_pool(path) for skill, path in POOLS.items()}


_read_pool = cache(InstructionPool.read)


@cache
def load_adversarial() -> tuple[dict[str, Any], ...]:
    """Instructions that set a trap: ``category``, ``instruction`` (a template) and what is ``expected``."""
    return tuple(yaml.safe_load((INSTRUCTIONS / "adversarial.yaml").read_text(encoding="utf-8")))


def near_duplicates(
    seen: list[str], unseen: list[str], threshold: float = MAX_SIMILARITY
) -> list[tuple[str, str, float]]:
    """Pairs of a seen and an unseen template whose normalised edit similarity is above a threshold, case aside."""
    scores = cdist(seen, unseen, scorer=Levenshtein.normalized_similarity, processor=str.lower)
    return [(seen[i], unseen[j], float(scores[i, j])) for i, j in np.argwhere(scores > threshold)]


def verbs_of(template: str, verbs: tuple[str, ...]) -> list[str]:
    """Those of the verbs that a template has, in any regular form (``trim``: trims, trimmed, trimming)."""
    return [verb for verb in verbs if re.search(_forms(verb), template, re.IGNORECASE)]


def _forms(verb: str) -> str:
    base = re.escape(verb)
    return rf"\b(?:{base}(?:s|es|d|ed|ing)?|{base.removesuffix('e')}ing|{base}{base[-1]}(?:ed|ing))\b"

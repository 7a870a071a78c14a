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

"""Pools of free-form instructions, one for each skill, in three splits.

They are the files of ``instructions/``, a template a line:

- ``wordings``: those that training draws from (``seen``), but for a share that is withheld (``held_out``): which, a
  hash of the wording decides, courtesies, case and punctuation aside. What is nearly the same as one of another split
  is in none. ``(a|b|)`` stands for several wordings, ``<say>`` for any verb of ``grammar.yaml``. A line that begins in
  lower case is a clause, which a draw puts in one of the ``frames`` there.
- ``seen``, in a file of one's own: never withheld.
- ``unseen``: has main verbs, ``unseen_verbs``, that no wording of the skill has.
- ``complexity``: ``word`` where words are counted, found or moved, ``semantic`` where they are understood.
"""

import hashlib
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

SPLITS = ("seen", "held_out", "unseen")
MAX_SIMILARITY = 0.9
HELD_OUT_SHARE = 0.2

_CHOICE = re.compile(r"\(([^()]*\|[^()]*)\)|<(\w+)>")


@dataclass(frozen=True)
class InstructionPool:
    """The instructions of one skill; see the module's docstring."""

    skill: str
    complexity: str
    seen: tuple[str, ...]
    held_out: tuple[str, ...]
    unseen: tuple[str, ...]
    unseen_verbs: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> "InstructionPool":
        """Read the pool of ``SKILL.yaml``."""
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        wordings = [text for line in content.get("wordings", "").splitlines() for text in expand(line)]
        unseen = tuple(content["unseen"].splitlines())
        trained, held_out = _split(path.stem, list(dict.fromkeys(wordings)), unseen)
        return cls(
            path.stem,
            content["complexity"],
            seen=(*content.get("seen", "").splitlines(), *trained),
            held_out=held_out,
            unseen=unseen,
            unseen_verbs=tuple(content["unseen_verbs"]),
        )

    def templates(self, split: str) -> tuple[str, ...]:
        """Those of one of the `SPLITS`, clauses as they are.

        Raises:
            ValueError: there are none.
        """
        found: tuple[str, ...] = getattr(self, split)
        if not found:
            raise ValueError(f"the instructions of {self.skill} have nothing in the split {split}")
        return found

    def draw(self, split: str, transcript: str, random: np.random.Generator) -> tuple[str, dict[str, str]]:
        """Draw an instruction of a split, filled for a transcript, and the arguments of its skill."""
        arguments = draw_arguments(transcript, random)
        template = pick(self.templates(split), random)
        if is_clause(template):
            template = framed(template, pick(grammar()["frames"], random))
        if "refusal" not in slots_of(template):
            arguments["refusal"] = ""  # silence is asked for
        return fill(template, arguments), arguments


@cache
def grammar() -> dict[str, list[str]]:
    """``instructions/grammar.yaml``: ``frames`` of clauses, and what stands for ``<say>``."""
    return yaml.safe_load((INSTRUCTIONS / "grammar.yaml").read_text(encoding="utf-8"))


def expand(line: str) -> list[str]:
    """All that a line stands for: ``(write|type) it`` → ``write it``, ``type it``; a choice may hold another."""
    choice = _CHOICE.search(line)
    if choice is None:
        return [line]
    options = grammar()[choice[2]] if choice[2] else choice[1].split("|")
    parts = line[: choice.start()], line[choice.end() :]
    return list(dict.fromkeys(text for option in options for text in expand(option.join(parts))))


def is_clause(template: str) -> bool:
    """Whether a template is what one is told to do (``write it``), and no sentence of its own."""
    return template[:1].islower()


def framed(clause: str, frame: str) -> str:
    """``write it``, ``Please {clause}.`` → ``Please write it.``"""
    text = frame.replace("{clause}", clause)
    return text if frame == "{clause}" else text[0].upper() + text[1:]


def folded(template: str) -> str:
    """Return what is asked for without case, punctuation and courtesies, which are the words of the frames."""
    return " ".join(word for word in re.findall(r"\{\w+\}|[\w']*\w", template.lower()) if word not in _courtesies())


@cache
def _courtesies() -> set[str]:
    return set(re.findall(r"[\w']+", " ".join(grammar()["frames"]).lower())) - {"clause"}


def _split(skill: str, wordings: list[str], unseen: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what is to be seen of a skill's wordings, and what is withheld."""
    meant = {text: folded(text) for text in wordings}
    withheld = {core for core in meant.values() if _hash(f"{skill} {core}") < HELD_OUT_SHARE}
    others = [*sorted(withheld), *map(folded, unseen)]
    near = {core for core, _, _ in near_duplicates(sorted({*meant.values()} - withheld), others)}
    seen = (text for text, core in meant.items() if core not in withheld | near)
    return tuple(seen), tuple(text for text, core in meant.items() if core in withheld)


def _hash(text: str) -> float:
    """Return a number from 0 to 1 that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


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
    """Pairs of a seen and another template whose normalised edit similarity is above a threshold, case aside."""
    if not seen or not unseen:
        return []
    scores = cdist(seen, unseen, scorer=Levenshtein.normalized_similarity, processor=str.lower)
    return [(seen[i], unseen[j], float(scores[i, j])) for i, j in np.argwhere(scores > threshold)]


def verbs_of(template: str, verbs: tuple[str, ...]) -> list[str]:
    """Those of the verbs that a template has, in any regular form (``trim``: trims, trimmed, trimming)."""
    return [verb for verb in verbs if re.search(_forms(verb), template, re.IGNORECASE)]


def _forms(verb: str) -> str:
    base = re.escape(verb)
    return rf"\b(?:{base}(?:s|es|d|ed|ing)?|{base.removesuffix('e')}ing|{base}{base[-1]}(?:ed|ing))\b"

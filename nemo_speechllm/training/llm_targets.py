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

"""Targets that no rule computes, summaries and keywords: written by a language model and kept on disk, or extracted.

``extractive`` stands in where there is no language model: it picks words of the transcript by rule and writes nothing
itself.
"""

import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import cast

from nemo_speechllm.engines.engine import Engine, Request
from nemo_speechllm.engines.loading import load_transformers
from nemo_speechllm.manifests.manifest import read_manifest, write_manifest
from nemo_speechllm.prompts.skills import WRITTEN, argument_lists, core_of, words_of
from nemo_speechllm.recipes import sections

PROMPTS = {
    "summarise": "Summarise the following transcript of speech in one short sentence, in its own language. "
    "Answer with the summary alone.\n\n{transcript}",
    "keywords": "List the at most three most important words of the following transcript of speech, as they stand "
    "there, in order, separated by commas. Answer with the list alone.\n\n{transcript}",
}
MAX_KEYWORDS = 3
MAX_NEW_TOKENS = 64
ATTEMPTS = 4

Targets = Callable[[str, str], str]  # skill, transcript → target


def build_targets(cfg: sections.Targets) -> Targets:
    """Build what gives the targets of the skills that no rule computes.

    Args:
        cfg: the recipe's ``model.instruction_sampling.targets`` section; an endpoint is an OpenAI-style service, a
            local LLM a Hugging Face model.
    """
    if cfg.kind == "extractive":
        return extractive_target
    model, cache = cast(str, cfg.model), Path(cast(str, cfg.cache))
    if cfg.kind == "local":
        return CachedTargets(load_transformers(model, max_new_tokens=MAX_NEW_TOKENS), model, cache)
    from nemo_speechllm.engines.endpoint import EndpointEngine  # the client takes a second to import

    engine: Engine = EndpointEngine(cast(str, cfg.url), model, attempts=ATTEMPTS, max_new_tokens=MAX_NEW_TOKENS)
    return CachedTargets(engine, model, cache)


def extractive_target(skill: str, transcript: str) -> str:
    """Words of the transcript, chosen by rule.

    ``summarise``: its words that are no English function words, each once, in order. ``keywords``: the three of these
    that come most often, longer ones first, in order and separated by commas. Where all are function words, they count
    all.
    """
    if skill not in WRITTEN:
        raise ValueError(f"{skill!r} is not one of {WRITTEN}")
    cores = [core_of(word) for word in words_of(transcript)]
    counts = Counter(core.casefold() for core in cores)
    first: dict[str, str] = {}
    for core in cores:
        first.setdefault(core.casefold(), core)
    content = [key for key in first if key not in argument_lists()["function_words"]] or list(first)
    if skill == "summarise":
        return " ".join(first[key] for key in content)
    chosen = sorted(content, key=lambda key: (-counts[key], -len(key)))[:MAX_KEYWORDS]
    return ", ".join(first[key] for key in content if key in chosen)


class CachedTargets:
    """What a language model writes, each (transcript, prompt, model) asked for once and kept in a folder.

    Args:
        engine: asks it.
        model: its name.
        cache: folder, made if missing.
    """

    def __init__(self, engine: Engine, model: str, cache: Path):
        self.engine = engine
        self.model = model
        self.cache = cache

    def __call__(self, skill: str, transcript: str) -> str:
        """Return what the LLM makes of a transcript by the prompt of a skill; what it once made is kept."""
        if not words_of(transcript):
            return ""
        prompt = PROMPTS[skill]
        name = hashlib.sha256(repr((transcript, prompt, self.model)).encode()).hexdigest()
        path = self.cache / name[:2] / f"{name}.json"
        if not path.exists():
            request = Request(f"the target of {skill}", prompt.replace("{transcript}", transcript))
            ((_, completion),) = self.engine([request])
            target = " ".join(completion.text.split())
            entry = {"model": self.model, "prompt": prompt, "transcript": transcript, "target": target}
            write_manifest(path, [entry])
        return read_manifest(path)[0]["target"]

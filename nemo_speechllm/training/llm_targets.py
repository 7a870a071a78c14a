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
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import cast

import httpx
import torch
from omegaconf import DictConfig

from nemo_speechllm.data.conversation import Conversation, Turn
from nemo_speechllm.data.manifest import read_manifest, write_manifest
from nemo_speechllm.prompts.chat_prompt import ChatPrompt
from nemo_speechllm.prompts.segments import TextSegment
from nemo_speechllm.prompts.skills import WRITTEN, argument_lists, core_of, words_of

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


def build_targets(cfg: DictConfig) -> Targets:
    """Build what gives the targets of the skills that no rule computes.

    Args:
        cfg: ``kind``: ``extractive``; ``endpoint`` (an OpenAI-style service at ``url``) or ``local`` (a Hugging Face
            model), both with ``model`` and ``cache``, a folder.

    Raises:
        ValueError: unknown kind.
    """
    if cfg.kind == "extractive":
        return extractive_target
    if cfg.kind == "endpoint":
        return CachedTargets(EndpointLLM(cfg.url, cfg.model), cfg.model, Path(cfg.cache))
    if cfg.kind == "local":
        return CachedTargets(LocalLLM(cfg.model), cfg.model, Path(cfg.cache))
    raise ValueError(f"targets.kind is {cfg.kind!r}; known are extractive, endpoint and local")


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
        complete: prompt → the model's answer.
        model: its name.
        cache: folder, made if missing.
    """

    def __init__(self, complete: Callable[[str], str], model: str, cache: Path):
        self.complete = complete
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
            target = " ".join(self.complete(prompt.replace("{transcript}", transcript)).split())
            entry = {"model": self.model, "prompt": prompt, "transcript": transcript, "target": target}
            write_manifest(path, [entry])
        return read_manifest(path)[0]["target"]


class EndpointLLM:
    """A model behind an OpenAI-style endpoint, asked greedily.

    Args:
        url: up to and without ``/chat/completions``, e.g. ``http://localhost:8000/v1``.
        model: its name there.
        client: for tests; the key, if there is one, is in the environment variable ``OPENAI_API_KEY``.
    """

    def __init__(self, url: str, model: str, client: httpx.Client | None = None):
        self.url = url.rstrip("/")
        self.model = model
        key = os.environ.get("OPENAI_API_KEY")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.client = client or httpx.Client(headers=headers, timeout=60.0)

    def __call__(self, prompt: str) -> str:
        """Return the answer to a prompt.

        Raises:
            RuntimeError: the endpoint cannot be reached, refuses, or answers something else.
        """
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": MAX_NEW_TOKENS,
        }
        try:
            for attempt in range(1, ATTEMPTS + 1):
                answer = self.client.post(f"{self.url}/chat/completions", json=body)
                if attempt == ATTEMPTS or answer.status_code not in (429, 500, 502, 503, 504):
                    break
                time.sleep(2 ** (attempt - 1))
            answer.raise_for_status()
            return answer.json()["choices"][0]["message"]["content"]
        except (httpx.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
            raise RuntimeError(
                f"{self.url} gave no answer of {self.model} ({type(error).__name__}: {_first_line(error)}); check "
                "targets.url, targets.model and OPENAI_API_KEY; targets that are in the cache are kept"
            ) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


class LocalLLM:
    """A Hugging Face model with a chat template, decoded greedily on the CPU.

    Args:
        reference: asset name, folder or hub id.
    """

    def __init__(self, reference: str):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from nemo_speechllm import assets

        folder = assets.resolve(reference)
        self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        self.prompt = ChatPrompt(self.tokenizer)
        self.model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False).eval()

    def __call__(self, prompt: str) -> str:
        """Return the answer to a prompt."""
        (segment,) = self.prompt.segments(Conversation("target", [Turn("user", [prompt])]))
        assert isinstance(segment, TextSegment)  # there is no audio
        asked = torch.tensor([segment.ids])
        ids = self.model.generate(
            asked, attention_mask=torch.ones_like(asked), max_new_tokens=MAX_NEW_TOKENS, do_sample=False
        )[0]
        return cast(str, self.tokenizer.decode(ids[len(segment.ids) :], skip_special_tokens=True))

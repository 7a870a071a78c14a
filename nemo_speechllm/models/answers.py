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

"""Answers: what is asked for, what comes back, and what stands between a model and a user that was not heard."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from threading import RLock
from typing import Any, cast

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from nemo_speechllm.data.conversation import Conversation
from nemo_speechllm.data.dataset import ConversationBatch, ConversationBuilder, task_of
from nemo_speechllm.data.keywords import keyword_list
from nemo_speechllm.decoding.guards import DEFAULT_GUARDS, RETRY_BEAM_SIZE, check_guards, find_fault
from nemo_speechllm.decoding.keyword_filter import Evidence, KeywordFilter
from nemo_speechllm.modules.fingerprint import state_digest

DECODERS = ("llm", "ctc")
GENERATION_SETTINGS = (
    "decoder",
    "max_new_tokens",
    "beam_size",
    "repetition_penalty",
    "ctc_weight",
    "max_audio_seconds",
    "guards",
    "max_keywords",
)
# what numbers may be; None: not set
RANGES = {
    "max_new_tokens": (lambda value: isinstance(value, int) and value >= 1, "a whole number, at least 1"),
    "beam_size": (lambda value: isinstance(value, int) and 1 <= value <= 128, "a whole number from 1 to 128"),
    "repetition_penalty": (lambda value: value > 0, "above 0"),
    "ctc_weight": (lambda value: 0 <= value <= 1, "between 0 and 1"),
    "max_audio_seconds": (lambda value: value >= 0.5, "at least 0.5, or null for recordings of any length"),
    "max_keywords": (
        lambda value: isinstance(value, int) and value >= 0,
        "a whole number, at least 0, or null for all",
    ),
}


@dataclass
class Answer:
    """A generated answer.

    Attributes:
        text: without special tokens.
        ids: token ids without the end token.
        truncated: the token limit was reached before the model ended its answer.
        interventions: what guards found and did, e.g. ``loop: ctc``; ids are those of the answer that is given.
    """

    text: str
    ids: list[int]
    truncated: bool
    interventions: tuple[str, ...] = ()


class AnswerLock:
    """A lock for one answering thread at a time; a copy of the model, also in another process, has its own."""

    def __init__(self) -> None:
        self.lock = RLock()

    def __reduce__(self) -> tuple:
        return AnswerLock, ()


class GuardedAnswersMixin:
    """Gives a model's answers with long keyword lists cut to the likely, and with guards.

    See ``generation.max_keywords`` and ``generation.guards``. For classes with the attributes below; the last two
    are read where there is CTC.
    """

    cfg: DictConfig
    builder: ConversationBuilder
    generate_batch: Callable[..., list[Answer]]
    ctc_ids: Callable[[list[str]], list[list[int]]]
    ctc_evidence: Callable[[ConversationBatch], list[Evidence]]

    _last_filter: KeywordFilter | None = None

    @property
    def has_ctc(self) -> bool:
        """Whether the model has a CTC that hears what is said: for keyword lists, guards and ``decoder=ctc``."""
        return False

    def _with_likely_keywords(self, batch: ConversationBatch) -> ConversationBatch:
        """Return the batch with at most ``generation.max_keywords`` in a question: those that CTC may have heard."""
        limit = self.cfg.generation.get("max_keywords")
        lists = [
            keyword_list(item.metadata.get("keywords"))
            if item.audios and len(item.without_answer().turns) == 1
            else []
            for item in batch.conversations
        ]
        if limit is None or max(map(len, lists), default=0) <= limit:
            return batch
        for item, keywords in zip(batch.conversations, lists, strict=True):
            if len(keywords) > limit and task_of(item.metadata) == "ast":
                raise ValueError(
                    f"{item.id}: {len(keywords)} keywords of a translation, more than "
                    f"generation.max_keywords={limit}: CTC hears the language that is spoken and cannot choose among "
                    "them; give fewer, or set model.generation.max_keywords=null"
                )
        self._require_ctc(f"{max(map(len, lists))} keywords, more than generation.max_keywords={limit}")
        conversations = list(batch.conversations)
        for index, (keywords, evidence) in enumerate(zip(lists, self.ctc_evidence(batch), strict=True)):
            conversation = conversations[index]
            if len(keywords) > limit:
                metadata = conversation.metadata | {"keywords": self._keyword_filter(keywords).select(evidence, limit)}
                question = self.builder.question(conversation.audios[0], metadata, conversation.id)
                conversations[index] = Conversation(conversation.id, [question], metadata)
        return replace(batch, conversations=conversations)

    def _keyword_filter(self, keywords: list[str]) -> KeywordFilter:
        """Return the filter of a list.

        The last one is kept: thousands of words take a second to get ready, and utterances share them.
        """
        if self._last_filter is None or self._last_filter.keywords != keywords:
            self._last_filter = KeywordFilter(keywords, self.ctc_ids)
        return self._last_filter

    def _guarded_answers(self, batch: ConversationBatch, **options) -> list[Answer]:
        """Return `generate_batch`'s answers, with transcripts that show a fault of ``generation.guards`` replaced."""
        answers = self.generate_batch(batch, **options)
        guards = check_guards(self.cfg.generation.get("guards", DEFAULT_GUARDS))
        heard = self._ctc_texts(batch, "guards: disagreement") if "disagreement" in guards else [None] * len(answers)
        for index, item in enumerate(batch.split() if guards else []):
            if item.conversations[0].metadata.get("task") == "asr" and len(item.audio) == 1:
                fault = find_fault(list(guards), answers[index].text, item.audio[0], heard[index])
                if fault is not None:
                    answer = self._answer_instead(guards[fault], item, **options)
                    answers[index] = replace(answer, interventions=(f"{fault}: {guards[fault]}",))
        return answers

    def _answer_instead(self, action: str, item: ConversationBatch, **options) -> Answer:
        """Return what a guard gives in the place of an answer."""
        if action == "empty":
            return Answer("", [], truncated=False)
        if action == "ctc":
            self._require_ctc("guards: ctc")
        changes = {"ctc": {"decoder": "ctc"}, "retry": {"beam_size": max(RETRY_BEAM_SIZE, options["beam_size"])}}
        return self.generate_batch(item, **options | changes[action])[0]

    def _ctc_texts(self, batch: ConversationBatch, purpose: str) -> list[str]:
        """Return what CTC hears in each conversation; nothing in one without audio."""
        self._require_ctc(purpose)
        spoken = [item for item in batch.conversations if item.audios]
        options = generation_options(self.cfg.generation, decoder="ctc")
        answers = iter(self.generate_batch(replace(batch, conversations=spoken), **options) if spoken else [])
        return [next(answers).text if item.audios else "" for item in batch.conversations]

    def _require_ctc(self, purpose: str) -> None:
        if not self.has_ctc:
            raise ValueError(
                f"{purpose}: this needs CTC's hypothesis, and this {type(self).__name__} has none that hears words; "
                "give fewer keywords and other guards, or set model.generation.max_keywords=null and "
                "model.generation.guards=null"
            )


def gather_evidence(
    batch: ConversationBatch, answers: list[Answer], heard: tuple[Tensor, Tensor], log_ratios: Callable[..., Tensor]
) -> list[Evidence]:
    """Return CTC's answers, one a conversation, with its scores of what was heard.

    What was heard of the N audios is (N, T, d) and lengths (N,).

    Args:
        log_ratios: (T, d) and tokens → see `Evidence`; a conversation's audios come one after the other.
    """
    items, lengths = heard
    silence, audios = items.new_zeros(0, items.shape[-1]), batch.by_conversation(items, lengths)
    return [
        Evidence(answer.text, partial(log_ratios, torch.cat([silence, *own])))
        for answer, own in zip(answers, audios, strict=True)
    ]


def check_generation(recipe: DictConfig) -> None:
    """Refuse a ``model.generation`` section that cannot be followed.

    Raises:
        ValueError: the recipe's ``model.generation`` section has a setting that nothing reads, an unknown ``decoder``,
            a number that is out of range or none, or wrong ``guards``.
    """
    unknown = sorted(set(recipe) - set(GENERATION_SETTINGS))
    if unknown:
        raise ValueError(f"model.generation has no setting {unknown}; there are {list(GENERATION_SETTINGS)}")
    for name, (fits, wanted) in RANGES.items():
        value = recipe.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not fits(value)):
            raise ValueError(f"model.generation.{name} is {value!r}; it must be {wanted}")
    generation_options(recipe)
    check_guards(recipe.get("guards", DEFAULT_GUARDS))


def answering_record(
    model: nn.Module, max_new_tokens: int | None = None, beam_size: int | None = None, decoder: str | None = None
) -> dict[str, Any]:
    """Return what the answers of a speech LM or a baseline depend on, whatever it is asked.

    The batch size is not in it: answers do not depend on the batch. See `generation_options` for the rest of the
    arguments and for the errors.
    """
    cfg = cast(DictConfig, model.cfg)
    options = generation_options(cfg.generation, max_new_tokens, beam_size, decoder)
    return {
        "model": state_digest(model),
        "prompt": OmegaConf.to_container(cfg.prompt),
        "generation": cast(dict[str, Any], OmegaConf.to_container(cfg.generation)) | options,
    }


def generation_options(
    recipe: DictConfig, max_new_tokens: int | None = None, beam_size: int | None = None, decoder: str | None = None
) -> dict[str, Any]:
    """Return ``max_new_tokens``, ``beam_size`` and ``decoder``; those that are None are the recipe's.

    Raises:
        ValueError: a number is less than 1, or the decoder is unknown.
    """
    numbers = {
        "max_new_tokens": recipe.max_new_tokens if max_new_tokens is None else max_new_tokens,
        "beam_size": recipe.beam_size if beam_size is None else beam_size,
    }
    for name, value in numbers.items():
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1 (leave it unset for the recipe's)")
    decoder = decoder or recipe.get("decoder")
    if decoder not in (None, *DECODERS):
        raise ValueError(f"decoder is {decoder!r}; known are {list(DECODERS)}")
    return {**numbers, "decoder": decoder}

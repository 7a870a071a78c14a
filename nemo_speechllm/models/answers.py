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

"""What is asked of a model that answers, and what comes back."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar, cast, get_type_hints

from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn

from nemo_speechllm.decoding.word_confidence import WordEvidence
from nemo_speechllm.decoding.word_times import Word
from nemo_speechllm.errors import InputError
from nemo_speechllm.modules.fingerprint import state_digest
from nemo_speechllm.recipes.generation import DECODERS, Generation
from nemo_speechllm.recipes.models import SpeechLMRecipe
from nemo_speechllm.recipes.settings import complete, limits_of, whole_number

T = TypeVar("T")
OF_WORDS = ("timestamps", "confidence")  # what may be told of each word of a transcript


@dataclass
class Answer:
    """A generated answer.

    Attributes:
        text: without special tokens.
        ids: token ids without the end token.
        truncated: the token limit was reached before the model ended its answer.
        interventions: what guards found and did, e.g. ``loop: ctc``; ids are those of the answer that is given.
        words: of the text, with their times; None where these were not asked for, or cannot be given, which a warning
            says.
        frame_shift: seconds that a frame of CTC lasts, by which the words were timed.
        word_evidence: what speaks for each word of the text, and
        word_confidence: how probably it is right; both None where this was not asked for.
        also_heard: other texts of the audio, of a recogniser beside CTC, that speak for the answer where they are like
            it; of a piece alone.
        heard_log_probs: how likely that recogniser finds each word of the text; None where there is none.
    """

    text: str
    ids: list[int]
    truncated: bool
    interventions: tuple[str, ...] = ()
    words: tuple[Word, ...] | None = None
    frame_shift: float | None = None
    word_evidence: tuple[WordEvidence, ...] | None = None
    word_confidence: tuple[float, ...] | None = None
    also_heard: tuple[str, ...] = ()
    heard_log_probs: tuple[float, ...] | None = None


@dataclass(frozen=True)
class AnsweredPiece:
    """The answer to a piece of a recording, or to what is answered as a whole.

    Attributes:
        answer: times of its words are those in the piece.
        start, end: of the piece in its recording, in seconds.
        is_last: nothing of the recording follows.
    """

    answer: Answer
    start: float
    end: float
    is_last: bool


def joined_pieces(pieces: Iterable[AnsweredPiece]) -> Iterator[Answer]:
    """Yield the answers to recordings whose pieces come in order, each when its last one is there."""
    of_recording: list[AnsweredPiece] = []
    for piece in pieces:
        of_recording.append(piece)
        if piece.is_last:
            yield joined([item.answer for item in of_recording], [item.start for item in of_recording])
            of_recording = []


def joined(answers: list[Answer], starts: list[float]) -> Answer:
    """Return the answers to consecutive pieces of one recording, which begin at ``starts`` in it, as one."""
    words = [word.delayed(start) for answer, start in zip(answers, starts, strict=True) for word in answer.words or ()]
    return Answer(
        text=" ".join(answer.text for answer in answers if answer.text),
        ids=[i for answer in answers for i in answer.ids],
        truncated=any(answer.truncated for answer in answers),
        interventions=tuple(intervention for answer in answers for intervention in answer.interventions),
        words=None if any(answer.words is None for answer in answers) else tuple(words),
        frame_shift=answers[0].frame_shift,
        word_evidence=_of_all([answer.word_evidence for answer in answers]),
        word_confidence=_of_all([answer.word_confidence for answer in answers]),
    )


def _of_all(parts: list[tuple[T, ...] | None]) -> tuple[T, ...] | None:
    """Return what is known of the words of all pieces; None where it was not asked for."""
    known = [part for part in parts if part is not None]
    return tuple(chain(*known)) if known else None


def change_generation(model: nn.Module, changes: Mapping[str, Any]) -> None:
    """Change settings of a speech LM's or a baseline's ``model.generation``, which its next answers follow.

    Raises:
        SettingError: it has no such setting, or the value cannot be.
    """
    cfg = cast(DictConfig, model.cfg)
    section = get_type_hints(getattr(type(model), "recipe", SpeechLMRecipe))["generation"]
    with open_dict(cfg):
        cfg.generation = complete(section, OmegaConf.merge(cfg.generation, dict(changes)), "model.generation")


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
    recipe: Generation, max_new_tokens: int | None = None, beam_size: int | None = None, decoder: str | None = None
) -> dict[str, Any]:
    """Return ``max_new_tokens``, ``beam_size`` and ``decoder``; those that are None are the recipe's.

    Raises:
        ValueError: a number is none that a recipe could have, or the decoder is unknown; the argument is named.
    """
    numbers = {
        "max_new_tokens": recipe.max_new_tokens if max_new_tokens is None else max_new_tokens,
        "beam_size": recipe.beam_size if beam_size is None else beam_size,
    }
    for name, value in numbers.items():
        numbers[name] = whole_number(name, value, limits_of(Generation, name), " (leave it unset for the recipe's)")
    decoder = recipe.decoder if decoder is None else decoder
    if decoder not in (None, *DECODERS):
        raise InputError(f"decoder is {decoder!r}; known are {list(DECODERS)}")
    return {**numbers, "decoder": decoder}

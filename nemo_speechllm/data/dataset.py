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

"""What NeMo's dataloader reads to conversations, and these to batches."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, TypeVar

import torch
from lhotse import CutSet
from lhotse.cut import Cut, MixedCut, PaddingCut
from nemo.utils import logging
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from nemo_speechllm.data.conversation import Audio, AudioError, Conversation, Question, SpokenText, Turn
from nemo_speechllm.data.keywords import keyword_list
from nemo_speechllm.errors import InputError
from nemo_speechllm.languages import base_language, language_name
from nemo_speechllm.manifests.rows import INSTRUCTION_KEYS, answer_of, given
from nemo_speechllm.recipes.sections import Prompt
from nemo_speechllm.recipes.settings import Limits, whole_number

T = TypeVar("T")
DUPLICATE_ID = re.compile(r"_dup\d+$")  # as Lhotse's samplers make it
PLACE_KEY = "manifest_line"  # of the metadata: file and line, for messages


@dataclass
class ConversationBatch:
    """A batch of B conversations and the samples of their N audios.

    Attributes:
        conversations: B items.
        audio: samples of all their audios, in order, (N, T), zero beyond ``audio_lengths``.
        audio_lengths: (N,) in samples.
        is_repeated: another process counts it; see `nemo_speechllm.training.sharding.ShardedBatches`, `_is_duplicate`.
        spoken: texts that stand in the place of audios, by their place in ``audio``, where their length is 0.
    """

    conversations: list[Conversation]
    audio: Tensor
    audio_lengths: Tensor
    is_repeated: bool = False
    spoken: dict[int, str] = field(default_factory=dict)

    def to(self, device: torch.device, non_blocking: bool = False) -> "ConversationBatch":
        """Return the batch with its tensors on ``device``."""
        return ConversationBatch(
            self.conversations,
            self.audio.to(device, non_blocking=non_blocking),
            self.audio_lengths.to(device, non_blocking=non_blocking),
            self.is_repeated,
            self.spoken,
        )

    def asked(self, conversations: list[list[Conversation]]) -> "ConversationBatch":
        """Return the batch with each conversation replaced by some about the same audios."""
        if all(len(others) == 1 for others in conversations):
            return replace(self, conversations=[item for (item,) in conversations])
        rows, start = [], 0
        for before, others in zip(self.conversations, conversations, strict=True):
            end = start + len(before.audios)
            rows += [*range(start, end)] * len(others)
            start = end
        spoken = {place: self.spoken[row] for place, row in enumerate(rows) if row in self.spoken}
        every = [item for others in conversations for item in others]
        return replace(
            self, conversations=every, audio=self.audio[rows], audio_lengths=self.audio_lengths[rows], spoken=spoken
        )

    def split(self) -> list["ConversationBatch"]:
        """Each conversation as a batch of its own; its audios are padded to the longest of them alone."""
        items, start = [], 0
        for conversation in self.conversations:
            end = start + len(conversation.audios)
            lengths = self.audio_lengths[start:end]
            longest = int(lengths.max()) if len(lengths) else 0
            items.append(ConversationBatch([conversation], self.audio[start:end, :longest], lengths))
            start = end
        return items

    def loaded(self) -> list[Conversation]:
        """Return the conversations, each audio as its samples."""
        audios = iter(
            [Audio(row[:length]) for row, length in zip(self.audio, self.audio_lengths.tolist(), strict=True)]
        )
        return [item.with_audios([next(audios) for _ in item.audios]) for item in self.conversations]

    def by_conversation(self, items: Tensor, lengths: Tensor) -> list[list[Tensor]]:
        """Return what is known of the N audios, (N, T, …) and lengths (N,), by the conversations they stand in.

        Padding is left out.
        """
        audios = iter([item[:length] for item, length in zip(items, lengths.tolist(), strict=True)])
        return [[next(audios) for _ in conversation.audios] for conversation in self.conversations]

    def texts_by_audio(self, text_of: Callable[[Conversation], str | None]) -> dict[int, str]:
        """Return the texts of conversations of one audio, by the audio's place in ``audio``.

        Of those alone for which ``text_of`` gives one.
        """
        place, texts = 0, {}
        for conversation in self.conversations:
            if len(conversation.audios) == 1 and (text := text_of(conversation)) is not None:
                texts[place] = text
            place += len(conversation.audios)
        return texts

    def transcripts(self) -> dict[int, str]:
        """Return what is said in those audios where it is known, by the audio's place.

        An empty ``text`` says that it is nothing where the answer is empty too, and else that it is not known.
        """

        def transcript(conversation: Conversation) -> str | None:
            text = conversation.metadata.get("text")
            return None if text == "" and conversation.answer else text

        return self.texts_by_audio(transcript)


def place_of(conversation: Conversation) -> str:
    """Return what messages call a conversation: file and line of its manifest where they are known, or its id."""
    return conversation.metadata.get(PLACE_KEY) or conversation.id


def task_of(metadata: dict[str, Any]) -> str:
    """Return what a manifest line asks for.

    That is its ``task``, or else ``ast`` where ``target_lang`` names another language than ``lang``, or ``asr``. Two
    forms of one language's code (``en``, ``en-US``, ``eng``) are no translation; one between varieties has a ``task``.
    """
    lang, target_lang = metadata.get("lang"), metadata.get("target_lang")
    asks_for_translation = target_lang and base_language(target_lang) != base_language(lang)
    return metadata.get("task") or ("ast" if asks_for_translation else "asr")


def written_language(conversation: Conversation) -> str | None:
    """Return the language of what a conversation's answer is compared with.

    That is a translation's ``target_lang``, or ``lang``.
    """
    return conversation.metadata.get("target_lang" if asks_for_translation(conversation) else "lang")


def asks_for_translation(conversation: Conversation) -> bool:
    """Tell whether a translation is asked for, or would be by an instruction of the user's own (see `task_of`)."""
    return (conversation.task or task_of(conversation.metadata)) == "ast"


class ConversationBuilder:
    """Makes a conversation of what a manifest line says.

    Args:
        cfg: the recipe's ``model.prompt`` section.
    """

    def __init__(self, cfg: Prompt):
        self.instructions = dict(cfg.instructions)
        self.keyword_template = cfg.keywords

    def from_example(self, example: Any) -> Conversation:
        """Return the conversation, with its answer, of a Lhotse cut, a NeMo conversation or a line of text.

        Raises:
            ValueError: the line has neither ``answer`` nor ``text``, or an unknown ``task``.
        """
        if isinstance(example, Cut):
            return self._from_cut(example)
        if not hasattr(example, "turns"):  # NeMo's TextExample
            return self._from_text(example)
        turns = [
            Turn(turn.role.lower(), [Audio(turn.cut) if hasattr(turn, "cut") else turn.value])
            for turn in example.turns
        ]
        return Conversation(example.id, _merge_turns(turns), dict(example.custom or {}))

    def _from_cut(self, cut: Cut) -> Conversation:
        speech = _speech_of(cut)
        if not speech.supervisions:
            raise ValueError(
                f"{cut.id}: the cut has no supervision, so there is nothing to answer; add one with its text"
            )
        if len(speech.supervisions) > 1:
            speech = speech.merge_supervisions()
        metadata = given(speech.custom or {})
        supervision = speech.supervisions[0]
        metadata["lang"], metadata["text"] = supervision.language, supervision.text
        answer = answer_of(metadata)
        if answer is None:
            raise ValueError(f"{cut.id}: the manifest line has neither `text` nor `answer`; add one")
        return self.conversation(Audio(cut), metadata, cut.id, answer)

    def _from_text(self, example: Any) -> Conversation:
        """Return a line of text as if it had been said, to be transcribed."""
        text = example.text.strip()
        metadata = {"lang": example.language, "text": text}
        name = f"text-{hashlib.sha1(text.encode()).hexdigest()[:16]}"
        return self.conversation(SpokenText(text), metadata, name, text)

    def conversation(
        self, audios: Audio | list[Audio], row: dict[str, Any], name: str, answer: str | None = None
    ) -> Conversation:
        """Return what a manifest's row asks about audio.

        Args:
            audios: one or several.
            row: what is known and asked; it becomes the conversation's ``metadata``.
            name: the conversation's id; messages name the row's file and line instead where it has them.
            answer: what closes it, if anything.

        Raises:
            ValueError: see `question`.
        """
        turns: list[Turn | Question] = [self.question(audios, row, row.get(PLACE_KEY) or name)]
        if answer is not None:
            turns.append(Turn("assistant", [answer]))
        return Conversation(name, turns, dict(row))

    def question(self, audios: Audio | list[Audio], row: dict[str, Any], name: str) -> Question:
        """Return a row's question: its own instruction, or the recipe's for its task; see `conversation`.

        Raises:
            ValueError: the recipe has no instruction for its task, or one with a slot that the row does not fill.
        """
        audios = audios if isinstance(audios, list) else [audios]
        keywords = keyword_list(row.get("keywords"))
        instruction = next((row[key] for key in INSTRUCTION_KEYS if row.get(key)), None)
        if instruction is not None:  # which may be the recipe's, spelt out
            spelt_out = next((task for task, text in self.instructions.items() if text == instruction), None)
            return Question(audios, instruction, keywords, row.get("task") or spelt_out)
        task = task_of(row)
        return Question(audios, self._instruction(task, row, name), keywords, task)

    def _instruction(self, task: str, row: dict[str, Any], name: str) -> str:
        """Return the recipe's instruction for a task, its slots filled."""
        if task not in self.instructions:
            raise InputError(
                f"{name}: task {task!r} has no instruction; known are {sorted(self.instructions)} "
                "(model.prompt.instructions), or give the line an `instruction`"
            )
        text, target_lang = self.instructions[task], row.get("target_lang")
        slots = {"{lang}": ("lang", row.get("lang")), "{target_lang}": ("target_lang", target_lang)}
        slots["{target_language}"] = ("target_lang", target_lang and language_name(target_lang))
        for slot, (key, value) in slots.items():
            if slot in text and not value:
                raise InputError(f"{name}: the instruction for task {task!r} needs the manifest key {key!r}")
            text = text.replace(slot, value or "")
        return text


class ConversationDataset(Dataset):
    """Lhotse-style dataset: a set of cuts or NeMo conversations in, a batch out.

    Args:
        builder: makes conversations of them.
        skip_bad_audio: leave out a conversation whose audio cannot be read, with a warning that names and counts it;
            otherwise it is an error.
    """

    def __init__(self, builder: ConversationBuilder, skip_bad_audio: bool = False):
        self.builder = builder
        self.skip_bad_audio = skip_bad_audio
        self.skipped = 0

    def __getitem__(self, cuts: CutSet) -> ConversationBatch:
        batch = self.collate([self.builder.from_example(example) for example in cuts])
        batch.is_repeated = getattr(cuts, "is_repeated", False) or all(map(_is_duplicate, cuts))
        return batch

    def collate(self, conversations: list[Conversation]) -> ConversationBatch:
        """Load the audio of each conversation and pad it.

        Raises:
            AudioError: an audio cannot be read and ``skip_bad_audio`` is false, or none of the batch can be read.
        """
        kept, samples, message = [], [], ""
        for conversation in conversations:
            try:
                loaded = [audio.load() for audio in conversation.audios]
            except AudioError as error:
                place = conversation.metadata.get(PLACE_KEY)
                message = f"{place}: {error}" if place else str(error)
                if not self.skip_bad_audio:
                    raise AudioError(message, error.kind) from error
                self.skipped += 1
                logging.warning(f"skipped ({self.skipped} so far): {message}")
                continue
            kept.append(conversation)
            samples += loaded
        if not kept:
            raise AudioError(
                "not one audio of a whole batch could be read, so there is nothing to go on with; correct or remove "
                f"them, or raise batch_size. The last of {len(conversations)}: {message}"
            )
        lengths = torch.tensor([len(item) for item in samples], dtype=torch.long)
        audio = pad_sequence(samples, batch_first=True) if samples else torch.zeros(0, 0)
        placed = enumerate(audio for conversation in kept for audio in conversation.audios)
        spoken = {place: item.text for place, item in placed if isinstance(item, SpokenText)}
        return ConversationBatch(kept, audio, lengths, spoken=spoken)


def in_batches(items: Iterable[T], batch_size: int) -> Iterator[list[T]]:
    """Items in order, ``batch_size`` at a time, taken when they are needed; the last batch may be smaller.

    Raises:
        ValueError: ``batch_size`` is no whole number, or less than 1.
    """
    size, iterator = whole_number("batch_size", batch_size, Limits(at_least=1)), iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _speech_of(cut: Cut) -> Cut:
    """Return the cut that says something: what noise and padding are mixed into comes first."""
    if isinstance(cut, MixedCut):
        return next(track.cut for track in cut.tracks if not isinstance(track.cut, PaddingCut))
    return cut


def _merge_turns(turns: list[Turn]) -> list[Turn]:
    """NeMo gives audio and text of one speaker as separate turns; a chat template wants one message."""
    merged: list[Turn] = []
    for turn in turns:
        if merged and merged[-1].role == turn.role:
            if isinstance(merged[-1].parts[-1], str) and isinstance(turn.parts[0], str):
                merged[-1].parts.append(" ")
            merged[-1].parts.extend(turn.parts)
        else:
            merged.append(turn)
    return merged


def _is_duplicate(example: Any) -> bool:
    """Tell whether Lhotse gave an example to a process for which too few were left at the end of an epoch."""
    shared = getattr(example, "dataloading_info", {}).get("world_size", 1) > 1
    return shared and DUPLICATE_ID.search(example.id) is not None

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

"""The one thing every model of this package answers: a conversation whose turns hold text and audio."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from lhotse import Recording
from lhotse.cut import Cut
from lhotse.utils import compute_num_samples
from nemo.utils import logging
from nemo.utils.nemo_logging import LogMode
from torch import Tensor

from nemo_speechllm.audio.audio_file import NAMELESS, audio_info, check_selector, span_problem
from nemo_speechllm.audio.errors import AudioError
from nemo_speechllm.audio.lhotse_backend import original_error
from nemo_speechllm.audio.samples import as_samples, one_channel
from nemo_speechllm.audio.stream import cut_blocks, is_part_of_a_file

SAMPLE_RATE = 16000
GIVEN_SAMPLES = "audio given as samples"


@dataclass
class Audio:
    """One recording: a Lhotse cut that is read when needed, or samples at 16 kHz that are there already.

    Attributes:
        source: the cut or the samples.
        average_channels: a cut of several channels is read as their mean.
        label: what messages call samples.
    """

    source: Cut | Tensor
    average_channels: bool = False
    label: str = GIVEN_SAMPLES

    def __post_init__(self) -> None:
        if not isinstance(self.source, (Cut, Tensor)):
            raise TypeError(f"Audio was made of {type(self.source).__name__}; {audio_remedy(self.source)}")

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        offset: float | None = None,
        duration: float | None = None,
        channel_selector: int | str | None = None,
    ) -> "Audio":
        """Return the audio of a file, or of a part of it.

        Args:
            path: of any format that `read_audio` knows; any sample rate.
            offset, duration: of the part, in seconds; without ``offset`` the whole file is taken, as NeMo does.
            channel_selector: channel number or ``average`` for a file of several channels.

        Raises:
            FileNotFoundError: there is no such file.
            AudioError: it cannot be decoded, the part is not in it, or there is no such channel.
        """
        path = Path(path).expanduser()
        cut = Recording.from_file(path).to_cut()
        if offset is not None:
            problem = span_problem(audio_info(path), offset, duration)
            if problem:
                raise AudioError(f"{path}: {problem}; correct 'offset' and 'duration'", "wrong duration")
            cut = cut.truncate(offset=offset, duration=duration, preserve_id=True)
        return cls._of_channel(cut, channel_selector, str(path))

    @classmethod
    def from_row(cls, row: dict[str, Any], channel_selector: int | str | None = None) -> "Audio":
        """Return the audio of a manifest's row; see `from_file`.

        The path of the row holds here, as it does of `read_manifest` with ``locate_audio``.
        """
        return cls.from_file(row["audio_filepath"], row.get("offset"), row.get("duration"), channel_selector)

    @classmethod
    def from_bytes(cls, content: bytes, name: str, channel_selector: int | str | None = None) -> "Audio":
        """Return the audio of a file that is in memory.

        Args:
            content: of the file, any format that Lhotse reads.
            name: what messages call it.
            channel_selector: see `from_file`.

        Raises:
            AudioError: it is no audio file.
        """
        audio_info(content, name)  # whose messages have the name
        return cls._of_channel(Recording.from_bytes(content, name).to_cut(), channel_selector, name)

    @classmethod
    def from_samples(
        cls, samples: np.ndarray | Tensor, channel_selector: int | str | None = None, name: str | None = None
    ) -> "Audio":
        """Return the audio of samples at 16 kHz; see `as_samples` for their kinds.

        Raises:
            AudioError: they are no sound, or have several channels and none was selected.
        """
        name = name or GIVEN_SAMPLES
        return cls(as_samples(samples, channel_selector, name), label=name)

    @classmethod
    def _of_channel(cls, cut: Cut, channel_selector: int | str | None, name: str) -> "Audio":
        if channel_selector is not None:
            check_selector(channel_selector, cut.num_channels, name)
        if channel_selector is None or cut.num_channels == 1:
            return cls(cut)
        if channel_selector == "average":  # Lhotse's own downmix is the sum, in 16 bits
            return cls(cut, average_channels=True)
        return cls(cut.with_channels(channel_selector))

    def load(self) -> Tensor:
        """Mono samples at 16 kHz, shape (T,), float32.

        Raises:
            AudioError: the audio is unreadable, empty, or has several channels and none was selected.
        """
        if isinstance(self.source, Tensor):
            return as_samples(self.source, name=self.name)
        samples = torch.from_numpy(np.atleast_2d(np.ascontiguousarray(self._read_cut(self.source), dtype=np.float32)))
        if samples.numel() == 0 or not torch.isfinite(samples).all():
            raise AudioError(f"{self.name}: the audio is empty, or holds NaN or infinite samples")
        return self._one_channel(samples)

    def stream(self) -> tuple[int, Iterator[Tensor]]:
        """Return the number of samples, and what `load` returns in blocks (T,): a file is read as they are taken.

        Raises:
            AudioError: see `load`; a damaged place is found when it is come to.
        """
        if isinstance(self.source, Tensor) or not is_part_of_a_file(self.source):
            samples = self.load()
            return len(samples), iter([samples])
        blocks = map(torch.from_numpy, cut_blocks(self.source, SAMPLE_RATE, self.name))
        return compute_num_samples(self.source.duration, SAMPLE_RATE), map(self._one_channel, blocks)

    def _one_channel(self, samples: Tensor) -> Tensor:
        return one_channel(samples, "average" if self.average_channels else None, self.name)

    def _read_cut(self, cut: Cut) -> np.ndarray:
        try:
            return cut.resample(SAMPLE_RATE).load_audio()
        except Exception as error:  # Lhotse wraps what its readers say in messages of its own
            first = original_error(error)
            if isinstance(first, AudioError):  # Lhotse hands on the content of a file without its name
                raise AudioError(str(first).replace(NAMELESS, self.name, 1), first.kind) from error
            raise AudioError(f"{self.name}: the audio cannot be read: {first}") from error

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.source) / SAMPLE_RATE if isinstance(self.source, Tensor) else self.source.duration

    @property
    def name(self) -> str:
        """What to call this audio in a message: its path where it has one."""
        if isinstance(self.source, Tensor):
            return self.label
        recording = getattr(self.source, "recording", None)
        return (
            str(recording.sources[0].source) if recording and recording.sources[0].type == "file" else self.source.id
        )


def audio_remedy(given: Any) -> str:
    """Say how to make an `Audio` of what was given in the place of one."""
    if isinstance(given, (str, os.PathLike)):
        return "give Audio.from_file(path)"
    if isinstance(given, (bytes, bytearray)):
        return "give Audio.from_bytes(content, name)"
    return "give Audio.from_samples(array)" if isinstance(given, (np.ndarray, Tensor, list)) else "give an Audio"


class SpokenText(Audio):
    """A text in the place of an audio: a model that can reads what its CTC might make of it, to learn from text alone.

    Attributes:
        text: what is said.
    """

    def __init__(self, text: str):
        super().__init__(torch.zeros(0))
        self.text = text

    def load(self) -> Tensor:
        """No samples, (0,): nothing was recorded."""
        return self.source

    @property
    def name(self) -> str:
        """The text, cut."""
        return f"spoken text {self.text[:40]!r}"


@dataclass
class Turn:
    """What one ``role`` says: text and audio in order.

    The role is ``system``, ``user`` or ``assistant``; in a prompt also ``audio``.
    """

    role: str
    parts: list[str | Audio]

    @property
    def text(self) -> str:
        """The turn's text parts joined."""
        return "".join(part for part in self.parts if isinstance(part, str))


@dataclass
class Question:
    """What a user asks about audio, as data; a prompt writes it out, once (see `rendered`).

    Attributes:
        audios: what it is about.
        instruction: the request, without keywords.
        keywords: words that may occur in the audio.
        task: what the instruction asks for, ``asr``, ``ast``, …; None: something of the user's own.
        prompted: the keywords that the prompt names; None: all.
        role: the user's.
    """

    audios: list[Audio]
    instruction: str = ""
    keywords: list[str] = field(default_factory=list)
    task: str | None = None
    prompted: list[str] | None = None
    role: ClassVar[str] = "user"

    def rendered(self, keywords: str, name: str) -> Turn:
        """Return the user's turn: the audio, then keywords if there are any, then the instruction (2310.09424).

        Args:
            keywords: text with the slot ``{keywords}``, which they are written in.
            name: of the conversation, for the warning where there is no such text.
        """
        if self.keywords and not keywords:
            logging.warning(
                f"{name} has keywords, but this model's prompt has no place for them (model.prompt.keywords): its "
                "text decoder does not read them",
                mode=LogMode.ONCE,
            )
        named = self.keywords if self.prompted is None else self.prompted
        context = keywords.replace("{keywords}", ", ".join(named)) if named else ""
        return Turn(self.role, [*self.audios, context + self.instruction])


@dataclass
class Conversation:
    """Turns of text and audio.

    Attributes:
        id: unique within a dataset.
        turns: in order. A training example ends with the assistant's turn.
        metadata: what else the manifest said of it (``lang``, ``text``, …).
    """

    id: str
    turns: Sequence[Turn | Question]
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def audios(self) -> list[Audio]:
        """All audio parts in order."""
        return [audio for turn in self.turns for audio in _audios_of(turn)]

    @property
    def question(self) -> Question | None:
        """What is asked, where that is one question about audio and the conversation has no other turn before it."""
        turns = self.without_answer().turns
        return turns[0] if len(turns) == 1 and isinstance(turns[0], Question) else None

    @property
    def task(self) -> str | None:
        """What is asked for: the question's ``task``, or that of the metadata where it is written out already."""
        return self.question.task if self.question else self.metadata.get("task")

    @property
    def answer(self) -> str | None:
        """Text of the closing assistant turn, or None where the conversation awaits an answer."""
        last = self.turns[-1] if self.turns else None
        return last.text if isinstance(last, Turn) and last.role == "assistant" else None

    def without_answer(self) -> "Conversation":
        """Return the same conversation up to the point where the model is to speak."""
        return Conversation(self.id, self.turns[:-1] if self.answer is not None else self.turns, self.metadata)

    def with_answer(self, text: str) -> "Conversation":
        """Return the same conversation with another answer."""
        turns = [*self.without_answer().turns, Turn("assistant", [text])]
        return Conversation(self.id, turns, self.metadata)

    def with_question(self, **changes: Any) -> "Conversation":
        """Return the same conversation with some fields of its `question` changed.

        Raises:
            ValueError: it has none.
        """
        if self.question is None:
            raise ValueError(f"{self.id}: what is asked is written out already, so it cannot be asked otherwise")
        return Conversation(self.id, [replace(self.question, **changes), *self.turns[1:]], self.metadata)

    def with_audios(self, audios: Iterable[Audio]) -> "Conversation":
        """Return the same conversation with other audios in the places of its own, in order."""
        others = iter(audios)
        return Conversation(self.id, [_with_audios(turn, others) for turn in self.turns], self.metadata)

    def loaded(self) -> "Conversation":
        """Return the same conversation, each audio read and held as its samples."""
        return self.with_audios([Audio(audio.load()) for audio in self.audios])

    def rendered(self, keywords: str = "") -> list[Turn]:
        """Return the turns, questions written out; see `Question.rendered`."""
        return [turn.rendered(keywords, self.id) if isinstance(turn, Question) else turn for turn in self.turns]


def _audios_of(turn: Turn | Question) -> list[Audio]:
    return turn.audios if isinstance(turn, Question) else [part for part in turn.parts if isinstance(part, Audio)]


def _with_audios(turn: Turn | Question, others: Iterator[Audio]) -> Turn | Question:
    if isinstance(turn, Question):
        return replace(turn, audios=[next(others) for _ in turn.audios])
    return Turn(turn.role, [next(others) if isinstance(part, Audio) else part for part in turn.parts])

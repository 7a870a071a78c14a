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

"""When each word of an answer is said, from CTC's alignment of the answer with the audio it was given to."""

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby, pairwise
from typing import NamedTuple

import torch
from nemo.utils import logging
from torch import Tensor

from nemo_speechllm.data.conversation import SAMPLE_RATE
from nemo_speechllm.modules.ctc import CTC

Span = tuple[float, float]  # begin and end, in seconds

# CTC writes a token in a frame or two, wherever in it: what is loud before a word's first frame and behind its last
# is the word's too, so many seconds at most.
MAX_LEAD, MAX_TAIL = 0.3, 0.5
# 10 ms of a recording are a pause's that are 35 dB quieter than its loud ones, or hardly louder than its quietest, but
# in no case nearly as loud as the loud ones
QUIET_DB, NOISE_DB, LOUD_DB = 35.0, 6.0, 10.0
MIN_PAUSE, CLEAR_PAUSE = 0.03, 0.1  # seconds; a stop consonant is closed for less than the second
LEVEL_SAMPLES = SAMPLE_RATE // 100


@dataclass(frozen=True)
class Word:
    """A word, or a segment of several, and when it is said.

    Attributes:
        text: what stands between white space in an answer.
        start, end: seconds from the beginning of the recording.
    """

    text: str
    start: float
    end: float

    def delayed(self, seconds: float) -> "Word":
        """Return the word as said so much later."""
        return replace(self, start=self.start + seconds, end=self.end + seconds)


class TokenRun(NamedTuple):
    """A token's class in CTC, the first frame in which a path reads it, and the one after the last."""

    label: int
    begin: int
    end: int


class UnalignableError(ValueError):
    """A text whose words CTC cannot find in an audio."""


class Alignment:
    """CTC's likeliest path through an audio that reads as a text; it is found once, for times and for confidence.

    Args:
        ctc: what reads the audio.
        log_probs: of its classes, (T, C), without padding.
        text: that of an answer, whatever gave it.
    """

    def __init__(self, ctc: CTC, log_probs: Tensor, text: str):
        self.ctc, self.log_probs, self.text = ctc, log_probs.float(), text

    @cached_property
    def runs(self) -> list[list[TokenRun]]:
        """Where the tokens of each word are read; none of what CTC never met.

        Raises:
            UnalignableError: the text needs more frames than there are, or CTC has met none of its tokens.
        """
        classes = {token: index for index, token in enumerate(self.ctc.tokens.tolist())}
        first, *others = self.text.split()
        rows = self.ctc.ids([first, *(f" {text}" for text in others)])  # as a tokenizer reads them in their text
        rows = [[token for token in row if token in classes] for row in rows]
        if not any(rows):
            raise UnalignableError(f"in training CTC met no token of {self.text!r}")
        try:
            runs = iter(self.ctc.align(self.log_probs, [token for row in rows for token in row]))
        except ValueError as error:
            raise UnalignableError(f"CTC cannot read so much text in so little audio: {error}") from error
        return [[TokenRun(classes[token], *next(runs)) for token in row] for row in rows]


def align_words(alignment: Alignment, frame_shift: float, samples: Tensor) -> tuple[Word, ...]:
    """Return the words of a text with their times, in order, none of them beyond the audio.

    The path tells where a word's tokens are. Between two words pauses part them; where there is none, the second
    begins with its first frame, and ends the first. A word of none but tokens that CTC never met takes the time
    between its neighbours.

    Args:
        alignment: of the text.
        frame_shift: seconds from one frame to the next.
        samples: the audio, (T,) at 16 kHz.

    Raises:
        UnalignableError: see `Alignment.runs`.
    """
    texts = alignment.text.split()
    if not texts:
        return ()
    duration = len(samples) / SAMPLE_RATE
    heard = [
        (min(first * frame_shift, duration), min(end * frame_shift, duration))
        for first, end in _with_gaps(_frames(alignment.runs), len(alignment.log_probs))
    ]
    spans = _to_pauses(heard, pauses(samples), frame_shift, duration)
    return tuple(Word(text, *span) for text, span in zip(texts, spans, strict=True))


def find_words(name: str, alignment: Alignment, frame_shift: float, samples: Tensor) -> tuple[Word, ...] | None:
    """Return what `align_words` does; None, with a warning, of a text that cannot be aligned with its audio.

    Args:
        name: of the audio, for the warning.
        alignment, frame_shift, samples: as of `align_words`.
    """
    try:
        return align_words(alignment, frame_shift, samples)
    except UnalignableError as error:
        logging.warning(f"{name}: the words of {alignment.text!r} have no times: {error}")
        return None


def pauses(samples: Tensor) -> list[Span]:
    """Return where an audio, (T,) at 16 kHz, is quiet for `MIN_PAUSE` or longer, in order."""
    whole = len(samples) // LEVEL_SAMPLES * LEVEL_SAMPLES
    if not whole:
        return []
    power = samples[:whole].float().view(-1, LEVEL_SAMPLES).square().mean(1)
    levels = 10 * power.clamp(min=1e-12).log10()
    quietest, loud = levels.quantile(0.02), levels.quantile(0.95)
    is_quiet = (levels < torch.maximum(loud - QUIET_DB, quietest + NOISE_DB).minimum(loud - LOUD_DB)).tolist()
    found, place = [], 0
    for quiet, run in groupby(is_quiet):
        begin, place = place, place + len(list(run))
        found += [(begin * 0.01, place * 0.01)] if quiet else []
    return [(begin, end) for begin, end in found if end - begin >= MIN_PAUSE - 1e-6]


def _to_pauses(heard: list[Span], quiet: list[Span], frame_shift: float, duration: float) -> list[Span]:
    """Return spans of words that reach from pause to pause, or to the next word, from where CTC hears their tokens.

    A pause may begin a frame before the end of what is heard, and end a frame after the beginning; half of it is left.
    """
    middles = [(begin + end) / 2 for begin, end in heard]
    earliest = [0.0, *(max(end - frame_shift, middle) for (_, end), middle in zip(heard, middles, strict=True))]
    latest = [*(min(begin + frame_shift, middle) for (begin, _), middle in zip(heard, middles, strict=True)), duration]
    begins = [*(begin for begin, _ in heard), duration]
    borders = [
        _border(quiet, first, last) or (begin, begin)
        for first, last, begin in zip(earliest, latest, begins, strict=True)
    ]
    spans: list[Span] = []
    for (begin, end), (before, after) in zip(heard, pairwise(borders), strict=True):
        first = max(before[1], begin - MAX_LEAD, spans[-1][1] if spans else 0.0)
        spans.append((first, max(first, min(after[0], end + MAX_TAIL))))
    return spans


def _border(quiet: list[Span], begin: float, end: float) -> Span | None:
    """Return where the word before ends and the next begins, of what is quiet from ``begin`` to ``end``; or None.

    What is loud between two clear pauses is neither's: an answer may lack a word. A short one may be within a word.
    """
    within = [(max(first, begin), min(last, end)) for first, last in quiet if first < end and last > begin]
    if not within:
        return None
    clear = [part for part in within if part[1] - part[0] >= CLEAR_PAUSE]
    clear = clear or [max(within, key=lambda part: part[1] - part[0])]
    return clear[0][0], clear[-1][1]


def _frames(runs: list[list[TokenRun]]) -> list[tuple[int, int] | None]:
    """Return the first frame of each word and the one after its last; None of a word that has no class in CTC."""
    return [(of_word[0].begin, of_word[-1].end) if of_word else None for of_word in runs]


def _with_gaps(found: list[tuple[int, int] | None], frames: int) -> list[tuple[float, float]]:
    """Return spans of frames in which neighbours without one share what is left between those that have one."""
    spans: list[tuple[float, float]] = []
    for is_known, group in groupby(enumerate(found), lambda item: item[1] is not None):
        members = list(group)
        if is_known:
            spans += [span for _, span in members if span is not None]
            continue
        after = members[-1][0] + 1
        following = found[after] if after < len(found) else None
        begin, end = spans[-1][1] if spans else 0, following[0] if following else frames
        step = (end - begin) / len(members)
        spans += [(begin + i * step, begin + (i + 1) * step) for i in range(len(members))]
    return spans

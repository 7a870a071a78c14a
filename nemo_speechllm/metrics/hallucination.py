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

"""Answers that were not heard: loops, refusals and chatter, text without speech, far too much or too little text."""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nemo_speechllm.metrics.error_rate import AUTO, count_errors_each, is_unspaced, normalizer_for, words_of
from nemo_speechllm.metrics.significance import mean_interval
from nemo_speechllm.metrics.translation import written_language

MAX_COMPRESSION_RATIO = 2.4  # Whisper's (2212.04356, section 4.5)
MAX_CHARACTERS_PER_SECOND = 30  # fast speech has about 20
WORD_REPEATS, PHRASE_REPEATS = 6, 3  # a digit may well be said five times in a row, three words hardly three times
PHRASE_WORDS = 3
DELETED_SHARE = 0.5

# what chat models say in place of a transcript; recorded prompts say "I am sorry", too, so that alone is none of it
_CHATTER = re.compile(
    r"\bas an? (ai|language model)\b|\blanguage model\b"
    r"|\b(can ?not|can'?t|unable to|not able to) (transcribe|hear|listen|access|process|assist|provide)\b"
    r"|\b(copy|transcribe|translate) (the|this|your) (speech|audio|text|recording)\b"
    r"|\b(the|this) (audio|speech|speaker|transcript|transcription) (says|said|contains|reads|is about)\b"
    r"|^(sure|certainly|of course)\b[,!.]? (here|i|let)\b|\bhere('s| is) (the|a|your) trans",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Share:
    """How many utterances something befell (``count``) ``of`` those it could, as ``rate`` with its 95 % interval.

    Of no utterance ``rate`` and ``ci`` are None.
    """

    count: int
    of: int
    rate: float | None
    ci: list[float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HallucinationReport:
    """How often answers go wrong in ways that speech recognition alone does not.

    Attributes:
        loops, chatter: where the reference is neither.
        too_long: over 30 characters a second.
        deleted: half of the reference's words or more are missing.
        silence_answered: words where nothing is said.
        characters_per_second: of the answers, over all utterances.
    """

    loops: Share
    chatter: Share
    too_long: Share
    deleted: Share
    silence_answered: Share
    characters_per_second: float | None

    @property
    def shares(self) -> dict[str, Share]:
        """Each share by its name in words."""
        names = ("loops", "chatter", "too_long", "deleted", "silence_answered")
        return {name.replace("_", " "): getattr(self, name) for name in names}


def compression_ratio(text: str) -> float:
    """Return characters of the text over bytes of it compressed; above 2.4 it is taken for a loop.

    Whisper, whose threshold this is, counts bytes. For English they are the same; of a Hindi or Thai text, three bytes
    a letter, a page is a loop by that count.
    """
    return len(text) / len(zlib.compress(text.encode()))


def longest_repetition(text: str, words: int) -> int:
    """Return how often at most a run of ``words`` words comes in a row: 3 for words=2 in ``a b a b a b``."""
    tokens = text.split()
    best = run = 0  # words that are the same as the one ``words`` places before
    for place in range(words, len(tokens)):
        run = run + 1 if tokens[place] == tokens[place - words] else 0
        best = max(best, run)
    return best // words + 1 if len(tokens) >= words else 0


def is_loop(text: str) -> bool:
    """Tell whether a text goes round in circles.

    Short texts show it in their repetitions, long ones when compressed too.
    """
    phrase_words = PHRASE_WORDS * (2 if is_unspaced(text) else 1)  # where characters are words, a word has about two
    all_words = words_of(text)
    text = " ".join(all_words)
    if compression_ratio(text) > MAX_COMPRESSION_RATIO:
        return True
    for words in range(1, len(all_words) // PHRASE_REPEATS + 1):
        if longest_repetition(text, words) >= (PHRASE_REPEATS if words >= phrase_words else WORD_REPEATS):
            return True
    return False


def is_chatter(text: str) -> bool:
    """Tell whether a text is a chat model's remark or refusal, in English, and no transcript."""
    return _CHATTER.search(text.replace("’", "'")) is not None


def hallucination_report(predictions: Sequence[dict[str, Any]], normalize: str = AUTO) -> HallucinationReport:
    """Return how often answers loop, chatter, run on, leave out, or speak into silence.

    Args:
        predictions: each with ``text`` (reference; without a word where nothing is said), ``pred_text``, ``duration``
            (s) and, if known, ``lang`` and ``target_lang``.
        normalize: the text `normalizer` for counting words; ``auto`` is that of each prediction's language.
    """
    texts, references = [p["pred_text"] for p in predictions], [p["text"] for p in predictions]
    names = [normalizer_for(written_language(p), p["text"], normalize) for p in predictions]
    errors = count_errors_each(texts, references, "word", names)
    pairs = list(zip(texts, references, strict=True))
    spoken = [count for count in errors if count.reference]
    seconds = sum(p["duration"] for p in predictions)
    return HallucinationReport(
        loops=_share([is_loop(text) and not is_loop(reference) for text, reference in pairs]),
        chatter=_share([is_chatter(text) and not is_chatter(reference) for text, reference in pairs]),
        too_long=_share([len(p["pred_text"]) > MAX_CHARACTERS_PER_SECOND * p["duration"] for p in predictions]),
        deleted=_share([count.deletions >= DELETED_SHARE * count.reference for count in spoken]),
        silence_answered=_share([count.insertions > 0 for count in errors if not count.reference]),
        characters_per_second=sum(map(len, texts)) / seconds if seconds else None,
    )


def _share(flags: list[bool]) -> Share:
    if not flags:
        return Share(0, 0, None, None)
    return Share(sum(flags), len(flags), sum(flags) / len(flags), mean_interval(flags))

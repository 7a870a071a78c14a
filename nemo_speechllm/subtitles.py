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

"""Words with times as files that players and scoring tools read: SubRip, WebVTT and CTM."""

import textwrap
from collections.abc import Sequence
from html import escape
from pathlib import Path

from nemo.collections.asr.parts.utils.manifest_utils import get_ctm_line

from nemo_speechllm.decoding.word_times import Word
from nemo_speechllm.files import write_text

SUBTITLE_SUFFIXES = (".srt", ".vtt")  # of one recording each
TIMED_SUFFIXES = (*SUBTITLE_SUFFIXES, ".ctm")
# what is read at a glance: two lines of 42 characters, at most 6 s, nothing over a pause of a second
LINE_LENGTH, MAX_LINES, MAX_SECONDS, MAX_PAUSE = 42, 2, 6.0, 1.0
SENTENCE_ENDS = (".", "!", "?")


def subtitles(words: Sequence[Word]) -> list[Word]:
    """Return words in groups of a readable length, each as one; they end with sentences where they can."""
    groups: list[list[Word]] = []
    for word in words:
        if groups and _fits(groups[-1], word):
            groups[-1].append(word)
        else:
            groups.append([word])
    return [Word(_text(group), group[0].start, group[-1].end) for group in groups]


def srt(words: Sequence[Word]) -> str:
    """Return words as SubRip subtitles."""
    shown = [
        f"{number}\n{_clock(part.start, ',')} --> {_clock(part.end, ',')}\n{_shown(part.text)}\n"
        for number, part in enumerate(subtitles(words), 1)
    ]
    return "\n".join(shown)


def vtt(words: Sequence[Word]) -> str:
    """Return words as WebVTT subtitles."""
    shown = [
        f"{_clock(part.start, '.')} --> {_clock(part.end, '.')}\n{escape(_shown(part.text), quote=False)}\n"
        for part in subtitles(words)
    ]
    return "\n".join(["WEBVTT\n", *shown])


def ctm(source: str, words: Sequence[Word]) -> str:
    """Return words as lines of NIST's CTM, without confidence and speaker.

    Args:
        source: name of the recording; a space in it becomes a hyphen, as in NeMo's forced aligner.
        words: of the recording.
    """
    return "".join(
        get_ctm_line(
            source=source.replace(" ", "-"),
            channel=1,
            start_time=float(word.start),
            duration=float(word.end - word.start),
            token=word.text,
            conf=None,
            type_of_token="lex",
            speaker=None,
        )
        for word in words
    )


def write_words(path: str | Path, recordings: dict[str, list[Word]]) -> None:
    """Write words with times in the format that the file's suffix names, one of `TIMED_SUFFIXES`.

    Args:
        path: the file, which appears whole or not at all.
        recordings: words by the path of their recording; subtitles are of one.

    Raises:
        ValueError: subtitles of several recordings, or CTM of several that have the same name.
    """
    suffix = Path(path).suffix.lower()
    check_recordings(path, list(recordings))
    if suffix == ".ctm":
        text = "".join(ctm(Path(recording).stem, words) for recording, words in recordings.items())
    else:
        text = (srt if suffix == ".srt" else vtt)([word for words in recordings.values() for word in words])
    write_text(path, text)


def check_recordings(path: str | Path, recordings: Sequence[str]) -> None:
    """Refuse recordings that a file of words with times could not tell apart.

    Raises:
        ValueError: see `write_words`.
    """
    suffix, different = Path(path).suffix.lower(), sorted({*recordings})
    if suffix in SUBTITLE_SUFFIXES and len(different) > 1:
        raise ValueError(
            f"{path}: subtitles are of one recording, and these are {len(different)} ({different[0]}, "
            f"{different[1]}, …); ask for each, or write .ctm or .jsonl, which hold many"
        )
    stems = [Path(recording).stem for recording in different]
    twice = [name for name, stem in zip(different, stems, strict=True) if stems.count(stem) > 1]
    if suffix == ".ctm" and twice:
        raise ValueError(f"{path}: CTM knows recordings by their names alone, and these share one: {twice[:2]}")


def _fits(group: list[Word], word: Word) -> bool:
    """Tell whether a word may stand in the group before it."""
    return (
        not group[-1].text.endswith(SENTENCE_ENDS)
        and word.start - group[-1].end <= MAX_PAUSE
        and word.end - group[0].start <= MAX_SECONDS
        and len(_lines(_text([*group, word]))) <= MAX_LINES
    )


def _text(group: Sequence[Word]) -> str:
    return " ".join(word.text for word in group)


def _lines(text: str) -> list[str]:
    return textwrap.wrap(text, LINE_LENGTH, break_long_words=False, break_on_hyphens=False)


def _shown(text: str) -> str:
    return "\n".join(_lines(text))


def _clock(seconds: float, separator: str) -> str:
    """Return ``01:02:03,456``."""
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02}{separator}{milliseconds % 1000:03}"

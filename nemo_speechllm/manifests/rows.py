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

"""A row of a manifest: parsed, and every defect of it that any consumer would stumble over, with key and remedy.

``null`` is "not given" in every key, and so is NaN, which is what pandas writes for it.
"""

import codecs
import difflib
import json
import math
import re
import reprlib
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from numbers import Real
from typing import Any, NamedTuple, TypeGuard, cast

from nemo_speechllm.audio.audio_file import TOLERANCE, AudioInfo, is_channel, span_problem

ANY_CHANNEL = "any"  # where it is not yet chosen what is read of several channels
MAX_LINE = 1 << 20  # bytes
MAX_TEXT = 1 << 16  # characters; two hours of speech are fewer
MAX_KEYWORD = 100  # characters; to look for a text in audio takes a minute, and nobody says it twice alike
MAX_DEPTH = 16  # of lists and objects in each other
INSTRUCTION_KEYS = ("instruction", "context", "question")
QUESTION_KEYS = (*INSTRUCTION_KEYS, "task", "lang", "target_lang")
_TEXT_KEYS = ("text", "answer", *QUESTION_KEYS, "speaker")
RATE_KEYS = ("sampling_rate", "sample_rate")
_NUMBER_KEYS = {
    **dict.fromkeys(("duration", "offset"), "seconds"),
    **dict.fromkeys(RATE_KEYS, "Hz"),
    "snr": "decibels",
    **dict.fromkeys(("cer", "context_speaker_similarity"), "a share"),  # NeMo filters by them
}
_NEMO_LANG = "source_lang"  # what NeMo's manifests call `lang`
_READ = ("duration", "offset", "text", "answer", *QUESTION_KEYS, "keywords", "snr", "_skipme", _NEMO_LANG)
_TRAINED_ON = ("audio_filepath", "duration")
_EXAMPLE = 'write one JSON object a line, in UTF-8, like {"audio_filepath": "a.wav", "duration": 1.5, "text": "hello"}'
_ADDRESS = re.compile(r"pipe:|[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_RESERVED = re.compile("[\ue0a0-\ue0a3]")  # stand for audio and answers while a prompt is rendered
_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


class Defect(NamedTuple):
    """What is wrong with a row: the ``key``, the ``kind`` in two words, the ``problem`` in words, its ``remedy``."""

    key: str
    kind: str
    problem: str
    remedy: str


class RowError(ValueError):
    """A line that is no row; ``defect`` says why."""

    def __init__(self, defect: Defect):
        super().__init__(f"{defect.key}: {defect.problem} → {defect.remedy}")
        self.defect = defect


def parse_row(line: bytes) -> dict[str, Any]:
    """Return the row of a manifest's line, without the keys that are not given.

    Raises:
        RowError: it is blank (NeMo's readers stop there), too long, no JSON object in UTF-8, or has a key twice.
    """
    if len(line) > MAX_LINE:
        raise _broken("too long", f"the line has more than {MAX_LINE} bytes", "cut it, or remove it")
    if not line.strip():
        raise _broken("blank line", "NeMo cannot read a blank line", "remove it")
    if line.startswith(codecs.BOM_UTF8):
        raise _broken(
            "invalid JSON",
            "the line begins with a byte order mark, which NeMo cannot read",
            "save the file as UTF-8 without BOM",
        )
    try:
        row = json.loads(line.decode("utf-8"), object_pairs_hook=_object)
    except RowError:
        raise
    except RecursionError:
        raise _broken("invalid JSON", "lists or objects are nested too deeply", _EXAMPLE) from None
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise _broken("invalid JSON", f"invalid JSON ({error})", _EXAMPLE) from error
    if not isinstance(row, dict):
        raise _broken("not an object", f"expected an object, got a JSON {type(row).__name__}", _EXAMPLE)
    return given(row)


def given(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row without the keys that are not given: those of ``None`` and NaN."""
    return {key: value for key, value in row.items() if not _is_missing(value)}


def row_defects(row: dict[str, Any], needed: Iterable[str] = _TRAINED_ON, answered: bool = True) -> Iterator[Defect]:
    """Yield the defects of a row that are to be seen without its audio.

    Args:
        row: as `parse_row` or `given` gives it.
        needed: keys that must be there.
        answered: whether there must be a ``text`` or an ``answer``: with a word in it, or ``""``, which is what to
            answer where nothing is said.
    """
    for key in needed:
        if key not in row:
            yield _missing(key)
    for key, value in row.items():
        yield from _value_defects(str(key), value)
    yield from _path_defects(row)
    yield from _number_defects(row)
    yield from _type_defects(row)
    if answered and not any(answer == "" or _has_word(answer) for answer in _answers(row)):
        remedy = 'write the transcript, "" where nothing is said, or remove the line'
        yield Defect("text", "empty text", "neither 'text' nor 'answer' has a word", remedy)


def misspelt_keys(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each key of a row that nothing reads and that is nearly one that is read, and which was probably meant.

    Any other key is the user's own, as is one beside that which it resembles.
    """
    for key in row:
        meant = _nearly(key)
        if meant is not None and meant not in row:
            yield _shown(key), meant


@lru_cache(maxsize=1024)
def _nearly(key: str) -> str | None:
    """Return the key that another resembles; None: it is read itself, or resembles none."""
    nearest = [] if key in _READ else difflib.get_close_matches(key, _READ, n=1, cutoff=0.85)
    return "lang" if nearest == [_NEMO_LANG] else next(iter(nearest), None)


def answer_of(row: dict[str, Any]) -> str | None:
    """Return what a row is to be answered with: its ``answer``, or else its ``text``; ``""``: nothing at all."""
    return row["answer"] if row.get("answer") is not None else row.get("text")


def audio_defects(
    row: dict[str, Any],
    info: AudioInfo,
    channel_selector: int | str | None = None,
    sample_rate: int | None = None,
    tolerance: float = TOLERANCE,
) -> Iterator[Defect]:
    """Yield what a row says of its audio and is not so, and what is wrong with the audio for the one who reads it.

    Args:
        info: of the audio file.
        channel_selector: what will be read of several channels; None: they are a defect.
        sample_rate: expected rate in Hz; None accepts any.
        tolerance: seconds by which a duration may differ from the audio's.
    """
    if info.channels > 1 and channel_selector is None:
        remedy = "mix it down, e.g. `ffmpeg -i IN -ac 1 OUT`, or choose one with channel_selector where it is read"
        yield Defect("audio_filepath", "several channels", f"the audio has {info.channels} channels", remedy)
    elif channel_selector not in (None, ANY_CHANNEL) and not is_channel(channel_selector, info.channels):
        problem = f"the audio has {info.channels} channels, and channel_selector is {channel_selector!r}"
        remedy = "choose one that is there, they count from 0, or average"
        yield Defect("audio_filepath", "several channels", problem, remedy)
    if sample_rate and info.sample_rate != sample_rate:
        problem = f"sampled at {info.sample_rate} Hz, expected {sample_rate} Hz"
        remedy = f"resample the file, e.g. `ffmpeg -i IN -ar {sample_rate} OUT`"
        yield Defect("audio_filepath", "wrong rate", problem, remedy)
    for key in RATE_KEYS:
        if is_number(row.get(key)) and row[key] != info.sample_rate:
            problem = f"says {row[key]} Hz, the audio has {info.sample_rate} Hz"
            yield Defect(key, "wrong rate", problem, "correct it, or leave the key out")
    yield from _span_defects(row, info, tolerance)


def _span_defects(row: dict[str, Any], info: AudioInfo, tolerance: float) -> Iterator[Defect]:
    offset, duration = row.get("offset"), row.get("duration")
    if is_number(offset) and offset >= 0 and (duration is None or is_number(duration)):
        problem = span_problem(info, offset, duration, tolerance)
        if problem:
            key = "offset" if duration is None else "duration"
            message = f"the part of {row.get('audio_filepath')} {problem}"
            yield Defect(key, "wrong duration", message, "correct 'offset' and 'duration'")
    elif offset is None and is_number(duration) and duration > 0:
        if abs(duration - info.duration) > tolerance + info.padding:
            problem = f"says {duration:.3f} s, the audio has {info.duration:.3f} s"
            remedy = "write the audio's duration, or add 'offset' to use a part of it"
            yield Defect("duration", "wrong duration", problem, remedy)


def is_address(path: str) -> bool:
    """Return whether a path is a command or an address, which no data may have run or opened.

    A command is ``pipe:…``, an address ``https://…``, ``ais://…`` and the like.
    """
    return _ADDRESS.match(path) is not None


# parts of these ------------------------------------------------------------------------------------------------------


def _broken(kind: str, problem: str, remedy: str) -> RowError:
    return RowError(Defect("(line)", kind, problem, remedy))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; Python's parser would take the last of two values of a key, and say nothing."""
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise RowError(
            Defect(_shown(twice), "duplicate key", "the key is there more than once", "keep one of the values")
        )
    return made


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a number that can be counted with: neither infinite nor beyond 64 bits."""
    return isinstance(value, Real) and not isinstance(value, bool) and -(2.0**63) <= cast(float, value) < 2.0**63


def _has_word(text: str) -> bool:
    return any(unicodedata.category(character)[0] not in "CZ" for character in text)


def _answers(row: dict[str, Any]) -> list[str]:
    """``text`` and ``answer``; a value of a wrong type has its own defect and is no empty text."""
    return [row[key] if isinstance(row[key], str) else "?" for key in ("text", "answer") if key in row]


def _missing(key: str) -> Defect:
    if key == "audio_filepath":
        return Defect(key, "missing key", "the line names no audio", "add the path")
    return Defect(key, "missing key", "the key is missing", f"add {key!r} to the line")


def _shown(value: Any) -> str:
    """Return a value as it stands in a message: short, and such that any terminal can print it."""
    text = ascii(value) if _is_broken_text(str(value)) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _is_broken_text(text: str) -> bool:
    return not text.isprintable()


def _value_defects(key: str, value: Any) -> Iterator[Defect]:
    """Yield what no value may hold, at any depth; the first of them."""
    stack = [(value, 1)]
    while stack:
        item, depth = stack.pop()
        if depth > MAX_DEPTH:
            yield Defect(
                key, "too deep", f"lists or objects are nested more than {MAX_DEPTH} deep", "flatten the value"
            )
            return
        if isinstance(item, dict):
            stack += [(part, depth + 1) for pair in item.items() for part in pair]
        elif isinstance(item, (list, tuple)):
            stack += [(part, depth + 1) for part in item]
        elif problem := _scalar_problem(item):
            yield Defect(key if not _is_broken_text(key) else ascii(key), *problem)
            return
    if problem := _text_problem(key):
        yield Defect(ascii(key), *problem)


def _scalar_problem(value: Any) -> tuple[str, str, str] | None:
    if isinstance(value, str):
        return _text_problem(value)
    if isinstance(value, Real) and not isinstance(value, bool) and not is_number(value):
        is_nan = isinstance(value, float) and math.isnan(value)
        what = "NaN" if is_nan else "infinite" if isinstance(value, float) and math.isinf(value) else "beyond 64 bits"
        return "not a number", f"a number is {what}", "write a finite number, or leave the key out"
    return None


def _text_problem(text: str) -> tuple[str, str, str] | None:
    if len(text) > MAX_TEXT:
        return "too long", f"a text has {len(text)} characters, more than {MAX_TEXT}", "cut the recording and its text"
    return character_problem(text)


def character_problem(text: str) -> tuple[str, str, str] | None:
    """Return the kind, problem and remedy of a character that no text may hold; None: there is none."""
    if _SURROGATE.search(text):
        return (
            "invalid text",
            "a text has half of a surrogate pair, which is no character",
            "write the character itself",
        )
    if match := _CONTROL.search(text):
        return "invalid text", f"a text has the control character U+{ord(match[0]):04X}", "remove it"
    if match := _RESERVED.search(text):
        problem = f"a text has U+{ord(match[0]):04X}, a private-use character that stands for audio inside prompts"
        return "invalid text", problem, "remove it"
    return None


def keyword_problem(keyword: str) -> tuple[str, str, str] | None:
    """Return the kind, problem and remedy of a keyword that is a text; None: it is none."""
    if len(keyword) <= MAX_KEYWORD:
        return None
    problem = f"the keyword {_shown(keyword)!r} has {len(keyword)} characters, more than {MAX_KEYWORD}"
    return "too long", problem, "give words and short phrases; in one text, with commas between"


def _path_defects(row: dict[str, Any]) -> Iterator[Defect]:
    path = row.get("audio_filepath", "a.wav")
    if not isinstance(path, str) or not path.strip():
        yield Defect(
            "audio_filepath",
            "wrong type",
            f"expected a path, got {_shown(reprlib.repr(path))}",
            "write a non-empty string",
        )
    elif is_address(path):
        problem = f"{_shown(path)} is a command or an address, and only files are read"
        yield Defect("audio_filepath", "not a file", problem, "fetch the audio, and name the file")


def _number_defects(row: dict[str, Any]) -> Iterator[Defect]:
    for key, unit in _NUMBER_KEYS.items():
        value = row.get(key, 1)
        if not isinstance(value, Real) or isinstance(value, bool):
            remedy = f"write {unit} as a number without quotes"
            yield Defect(key, "wrong type", f"expected a number, got {_shown(reprlib.repr(value))}", remedy)
        elif not is_number(value):
            continue  # has its defect already
        elif key in ("duration", *RATE_KEYS) and value <= 0:
            problem = f"{key} {value} is not positive"
            yield Defect(key, "zero length", problem, f"write the {key}, or remove the line")
        elif key == "offset" and value < 0:
            problem = f"offset {value} s is negative"
            yield Defect(key, "wrong duration", problem, "write seconds from the start of the file")


def _type_defects(row: dict[str, Any]) -> Iterator[Defect]:
    from nemo_speechllm.languages import unknown_language_remedy  # of transformers, whose import takes a moment

    for key in _TEXT_KEYS:
        if not isinstance(row.get(key, ""), str):
            problem = f"expected a string, got {_shown(reprlib.repr(row[key]))}"
            yield Defect(key, "wrong type", problem, "write it in quotes, or leave the key out")
    for key in ("lang", "target_lang"):
        remedy = unknown_language_remedy(row[key]) if isinstance(row.get(key), str) else None
        if remedy is not None:
            yield Defect(key, "unknown language", f"{_shown(row[key])!r} is no language's name here", remedy)
    if row.get("_skipme", True) not in (True, False):  # so are 1 and 0
        problem = f"expected true or false, got {_shown(reprlib.repr(row['_skipme']))}"
        yield Defect("_skipme", "wrong type", problem, "write it without quotes, or leave the key out")
    if len(asked := [key for key in INSTRUCTION_KEYS if row.get(key)]) > 1:
        problem = f"{' and '.join(asked)} both say what is asked, and only the first is read"
        yield Defect(asked[1], "two instructions", problem, "keep one of them")
    if "channel_selector" in row:
        remedy = "leave the key out, and give channel_selector where the manifest is read"
        yield Defect("channel_selector", "unknown key", "no line chooses its channel", remedy)
    for key in ("keywords", "transcription"):
        yield from _list_defects(key, row.get(key, ""))


def _list_defects(key: str, texts: Any) -> Iterator[Defect]:
    """Yield what is wrong with ``keywords``, a list or one text with commas between them, or a ``transcription``."""
    parts = texts.split(",") if isinstance(texts, str) else texts
    is_list = isinstance(parts, Sequence)
    if is_list and all(isinstance(text, str) for text in parts):
        if key == "keywords":
            yield from (Defect(key, *told) for word in parts if (told := keyword_problem(word.strip())))
        return
    remedy = 'write ["one", "two"]'
    if is_list and any(isinstance(text, Sequence) and not isinstance(text, str) for text in parts):
        remedy += f"; where each audio has a list of its own, it is the `{key}` of its manifest line"
    yield Defect(key, "wrong type", f"expected a list of strings, got {_shown(reprlib.repr(texts))}", remedy)

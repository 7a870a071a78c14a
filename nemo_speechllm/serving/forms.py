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

"""OpenAI's form of a transcription or translation: each field is honoured, or refused by name with the remedy."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from nemo_speechllm.command_line import nearest_of
from nemo_speechllm.data.keywords import keyword_list
from nemo_speechllm.errors import InputError
from nemo_speechllm.languages import base_language, unknown_language_remedy
from nemo_speechllm.models.transcription import SpeechLMTranscribeConfig
from nemo_speechllm.recipes.generation import DECODERS
from nemo_speechllm.serving.errors import RequestError

FORMATS = ("json", "text", "srt", "vtt", "verbose_json")
TIMED_FORMATS = ("srt", "vtt", "verbose_json")
GRANULARITIES = ("word", "segment")
LISTS = (
    *("keywords", "timestamp_granularities", "include", "languages"),
    *("known_speaker_names", "known_speaker_references"),
)
# of OpenAI's and vLLM's forms, what a speech LM does not have → the values that ask for nothing, and the remedy
SEARCH = "answers are the likeliest by greedy or beam search"
UNSUPPORTED: dict[str, tuple[tuple[str, ...], str]] = {
    "temperature": (("0",), f"{SEARCH}: leave it unset, or 0"),
    "top_p": (("1",), SEARCH),
    "top_k": (("0", "-1"), SEARCH),
    "min_p": (("0",), SEARCH),
    "repetition_penalty": (("1",), "generation.guards of the recipe act on loops"),
    "frequency_penalty": (("0",), "generation.guards of the recipe act on loops"),
    "presence_penalty": (("0",), "generation.guards of the recipe act on loops"),
    "chunking_strategy": (("auto",), "long recordings are cut at pauses by the model's generation.max_audio_seconds"),
    "include": ((), "no log-probabilities are given"),
    "known_speaker_names": ((), "speakers are not told apart"),
    "known_speaker_references": ((), "speakers are not told apart"),
    "stream_include_usage": (("false",), "the last event has it"),
    "stream_continuous_usage_stats": (("false",), "the last event has it"),
}
KNOWN = (
    *("file", "model", "language", "languages", "prompt", "keywords", "hotwords", "instruction", "response_format"),
    *("timestamp_granularities", "confidence", "stream", "max_completion_tokens", "beam_size", "decoder", "seed"),
)
MAX_KEYWORDS = 20_000  # CTC looks for a thousand in a quarter of a second, and all other requests wait
KEYWORD_FIELDS = ("keywords", "prompt", "hotwords")
TARGET = "to_language"  # of a translation, as vLLM names it


@dataclass(frozen=True)
class Asked:
    """What a form asks for.

    Attributes:
        model: its name, as given.
        settings: of `transcribe`.
        response_format: one of `FORMATS`.
        granularities: what has times in ``verbose_json``.
        stream: send the text of each piece of a recording when it is there.
        language: its code, as given.
    """

    model: str
    settings: SpeechLMTranscribeConfig
    response_format: str
    granularities: tuple[str, ...]
    stream: bool
    language: str | None


def read_form(items: Iterable[tuple[str, Any]], translate: bool = False) -> Asked:
    """Return what a form asks for.

    Args:
        items: names of the fields with their values, but for ``file``; a name of a list may end with ``[]``.
        translate: into ``to_language``, English where that is not given.

    Raises:
        RequestError: a field is unknown, is given twice, or has a value that cannot be; it is named.
    """
    given = _gathered(items, translate)
    _refuse_unsupported(given)
    language = _language(given)
    confidence = _flag(given, "confidence")
    response_format = _one_of("response_format", _text(given, "response_format") or "json", FORMATS)
    stream = _flag(given, "stream")
    if stream and response_format in ("srt", "vtt"):
        raise RequestError(
            f"{response_format} is not streamed; ask for json, text or verbose_json, or without stream", "stream"
        )
    granularities = _granularities(given, response_format)
    if confidence and "word" not in granularities:
        raise RequestError(
            "confidence is of words: ask for response_format=verbose_json and timestamp_granularities[]=word",
            "confidence",
        )
    slots = {"lang": language} | ({"task": "ast", "target_lang": _target(given)} if translate else {})
    settings = SpeechLMTranscribeConfig(
        instruction=_text(given, "instruction"),
        keywords=_keywords(given),
        max_new_tokens=_number(given, "max_completion_tokens"),
        beam_size=_number(given, "beam_size"),
        decoder=_one_of("decoder", _text(given, "decoder"), (None, *DECODERS)),
        prompt={key: value for key, value in slots.items() if value},
        timestamps=response_format in TIMED_FORMATS,
        confidence=confidence,
    )
    _number(given, "seed")  # there is nothing random that it could change
    return Asked(_text(given, "model") or "", settings, response_format, granularities, stream, language)


def _gathered(items: Iterable[tuple[str, Any]], translate: bool) -> dict[str, list[str]]:
    known = (*KNOWN, *UNSUPPORTED, *((TARGET,) if translate else ()))
    given: dict[str, list[str]] = {}
    for field, value in items:
        name = field.removesuffix("[]")
        if name not in known:
            raise RequestError(f"there is no field {field!r}; {nearest_of(name, known)}", field, code="unknown_field")
        if not isinstance(value, str):
            raise RequestError(f"{name} is a file, and must be text; only `file` is one", name)
        if name in given and name not in LISTS:
            raise RequestError(f"{name} is given twice; give it once", name)
        given.setdefault(name, []).append(value.strip())
    return given


def _refuse_unsupported(given: dict[str, list[str]]) -> None:
    for name, (idle, remedy) in UNSUPPORTED.items():
        for value in given.get(name, []):
            if value and not _is_one_of(value, idle):
                raise RequestError(f"{name}={value[:80]} cannot be honoured: {remedy}", name, code="unsupported_value")


def _is_one_of(value: str, idle: tuple[str, ...]) -> bool:
    """Tell whether a value asks for nothing; ``0.0`` is ``0``, ``{"type": "auto"}`` is ``auto``."""
    try:
        number = json.loads(value)
    except ValueError:
        return value.lower() in idle
    if isinstance(number, int | float) and not isinstance(number, bool):
        return any(number == float(each) for each in idle if re.fullmatch(r"-?\d+", each))
    return str(number).lower() in idle


def _text(given: dict[str, list[str]], name: str) -> str | None:
    return given.get(name, [""])[0] or None


def _language(given: dict[str, list[str]]) -> str | None:
    named = [*given.get("language", []), *given.get("languages", [])]
    if len(set(filter(None, named))) > 1:
        raise RequestError(f"languages={named}: a recording is asked about in one language; give one", "languages")
    return _checked_language("language", next(filter(None, named), None))


def _target(given: dict[str, list[str]]) -> str:
    return _checked_language(TARGET, _text(given, TARGET)) or "en"


def _checked_language(field: str, name: str | None) -> str | None:
    if name is not None and (remedy := unknown_language_remedy(name)):
        raise RequestError(f"{field}={name[:40]!r} is no language: {remedy}", field)
    return base_language(name)


def _keywords(given: dict[str, list[str]]) -> list[str] | None:
    """Return the words that may occur: those of a list, and of texts with commas or line ends between."""
    by_field = {name: _keywords_of(name, given[name]) for name in KEYWORD_FIELDS if name in given}
    words = keyword_list([word for of_field in by_field.values() for word in of_field])
    if len(words) > MAX_KEYWORDS:
        raise RequestError(
            f"{', '.join(by_field)}: {len(words)} keywords are more than the {MAX_KEYWORDS} of a request; give fewer",
            max(by_field, key=lambda name: len(by_field[name])),
        )
    return words or None


def _keywords_of(name: str, texts: list[str]) -> list[str]:
    parts = texts if name in LISTS else [word for text in texts for word in re.split(r"[,;\n]", text)]
    try:
        return keyword_list(parts, name)
    except InputError as error:
        raise RequestError(str(error), name) from error


def _granularities(given: dict[str, list[str]], response_format: str) -> tuple[str, ...]:
    name = "timestamp_granularities"
    asked = [_one_of(name, value, GRANULARITIES) for value in given.get(name, []) if value]
    if asked and response_format != "verbose_json":
        raise RequestError(f"{name} needs response_format=verbose_json, and this is {response_format}", name)
    return tuple(dict.fromkeys(asked)) or ("segment",)


def _one_of(name: str, value: Any, known: tuple) -> Any:
    if value not in known:
        there = ", ".join(str(each) for each in known if each is not None)
        raise RequestError(f"{name}={str(value)[:40]!r} is not known; there are {there}", name)
    return value


def _flag(given: dict[str, list[str]], name: str) -> bool:
    value = (_text(given, name) or "false").lower()
    return _one_of(name, {"1": "true", "0": "false"}.get(value, value), ("true", "false")) == "true"


def _number(given: dict[str, list[str]], name: str) -> int | None:
    value = _text(given, name)
    if value is not None and not re.fullmatch(r"-?\d{1,9}", value):
        raise RequestError(f"{name}={value[:40]!r} is no whole number", name)
    return None if value is None else int(value)

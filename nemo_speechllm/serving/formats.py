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

"""Answers in the forms that OpenAI's interface has: text, JSON, subtitles, and events as pieces end."""

import json
import math
from typing import Any

from nemo_speechllm.models.answers import Answer
from nemo_speechllm.models.hypotheses import hypothesis_of
from nemo_speechllm.serving.errors import RequestError
from nemo_speechllm.serving.forms import Asked
from nemo_speechllm.subtitles import srt, vtt


def body_of(answer: Answer, asked: Asked, seconds: float, translate: bool) -> dict[str, Any] | str:
    """Return the response to a form: JSON, or a text.

    Args:
        answer: of the whole recording.
        asked: of the form.
        seconds: that the recording lasts.
        translate: the answer is a translation.

    Raises:
        RequestError: there are to be times, and the words have none.
    """
    if asked.response_format == "text":
        return answer.text + "\n"
    if asked.response_format == "json":
        return {"text": answer.text, "usage": usage(seconds)} | remarks(answer)
    if answer.words is None:
        raise RequestError(
            f"the words of {answer.text[:80]!r} could be given no times; ask for response_format=json",
            *("response_format", 422, "no_timestamps"),
        )
    if asked.response_format in ("srt", "vtt"):
        return {"srt": srt, "vtt": vtt}[asked.response_format](answer.words)
    return _verbose(answer, asked, seconds, translate)


def _verbose(answer: Answer, asked: Asked, seconds: float, translate: bool) -> dict[str, Any]:
    times = hypothesis_of(answer, timestamps=True).timestamp
    told: dict[str, Any] = {
        "task": "translate" if translate else "transcribe",
        "language": asked.language,
        "duration": round(seconds, 3),
        "text": answer.text,
        "usage": usage(seconds),
    }
    if "segment" in asked.granularities:
        parts = [_told(part, "segment") for part in times["segment"]]
        told["segments"] = [{"id": number, "text": part.pop("segment"), **part} for number, part in enumerate(parts)]
    if "word" in asked.granularities:
        told["words"] = [_told(word, "word") for word in times["word"]]
    return told | remarks(answer)


def _told(part: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return a word or segment with its times, and how probably it is right where that was asked for."""
    times = {name: round(part[name], 3) for name in ("start", "end")}
    sure = {"confidence": round(part["confidence"], 3)} if "confidence" in part else {}
    return {kind: part[kind]} | times | sure


def usage(seconds: float) -> dict[str, Any]:
    """Return what OpenAI counts of a recording."""
    return {"type": "duration", "seconds": math.ceil(seconds)}


def remarks(answer: Answer) -> dict[str, Any]:
    """Return what must not be silent: a text that was cut at the limit of tokens, or replaced by a guard."""
    cut = {"truncated": True} if answer.truncated else {}
    return cut | ({"interventions": list(answer.interventions)} if answer.interventions else {})


def event(data: dict[str, Any] | str) -> str:
    """Return a server-sent event."""
    return f"data: {data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)}\n\n"

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

"""What is wrong with a manifest, line by line, its audio decoded to the end."""

import os
from collections.abc import Iterable, Iterator
from operator import attrgetter
from pathlib import Path

from nemo_speechllm.audio.audio_file import TOLERANCE
from nemo_speechllm.manifests.manifest import (
    Line,
    ManifestIssue,
    audio_path,
    is_left_out,
    read_lines,
    with_audio_issues,
)
from nemo_speechllm.manifests.rows import (
    QUESTION_KEYS,
    Defect,
    is_number,
)

ALL_LEFT_OUT = Defect(
    "_skipme", "left out", "every line is left out by its `_skipme`", "remove it from some of the lines"
)


def check_manifest(
    path: str | Path,
    *,
    sample_rate: int | None = None,
    min_duration: float | None = None,
    max_duration: float | None = None,
    channel_selector: int | str | None = None,
    tolerance: float = TOLERANCE,
    workers: int = 1,
) -> tuple[list[dict], list[ManifestIssue]]:
    """Check every line of a manifest and decode what it asks for of its audio file, to the end.

    Args:
        path: manifest with audio as files; relative audio paths are relative to its folder.
        sample_rate: expected rate in Hz; None accepts any (the dataloader resamples without a word).
        min_duration: shortest duration accepted, in seconds.
        max_duration: longest duration accepted, in seconds.
        channel_selector: what will be read of files with several channels; None: they are an issue.
        tolerance: seconds by which a duration may differ from the audio's.
        workers: threads that decode (decoding runs outside Python's lock).

    Returns:
        The rows without any issue, as `read_manifest` gives them, and all issues in the order of the lines. Rows that
        are left out by their ``_skipme`` are among the former.

    Raises:
        FileNotFoundError: there is no such manifest.
        EmptyManifestError: it has no line.
    """
    read = read_lines(path)
    left_out = [Line(line.number, line.row) for line in read if is_left_out(line)]
    lines = with_audio_issues(
        [line for line in read if not is_left_out(line)],
        path,
        channel_selector,
        decode=True,
        sample_rate=sample_rate,
        tolerance=tolerance,
        workers=workers,
    )
    clean: list[dict] = []
    issues: list[ManifestIssue] = []
    seen: dict[tuple, int] = {}
    for line in sorted([*lines, *left_out], key=attrgetter("number")):
        defects: list[Defect] = []
        if line.row is not None and not is_left_out(line):
            defects += _duplicate_defects(line.row, path, line.number, seen)
            defects += _duration_limit_defects(line.row, min_duration, max_duration)
        elif not lines:
            defects.append(ALL_LEFT_OUT)
        line_issues = [*line.issues, *(ManifestIssue(str(path), line.number, *defect) for defect in defects)]
        issues += line_issues
        if not line_issues:
            clean.append(line.known_row)
    return clean, issues


def duplicate_issues(lines: Iterable[Line], path: str | Path) -> list[ManifestIssue]:
    """Return an issue for every line that asks the same of the same part of a file as one before it."""
    seen: dict[tuple, int] = {}
    return [
        ManifestIssue(str(path), line.number, *defect)
        for line in lines
        if line.row is not None
        for defect in _duplicate_defects(line.row, path, line.number, seen)
    ]


def _duration_limit_defects(row: dict, min_duration: float | None, max_duration: float | None) -> Iterator[Defect]:
    duration = row.get("duration")
    if not is_number(duration) or duration <= 0:
        return
    if min_duration is not None and duration < min_duration:
        problem = f"{duration:.3f} s is below {min_duration} s"
        yield Defect("duration", "too short", problem, "remove the line or lower the limit")
    if max_duration is not None and duration > max_duration:
        problem = f"{duration:.3f} s is above {max_duration} s"
        yield Defect("duration", "too long", problem, "cut the audio or raise the limit")


def _duplicate_defects(row: dict, path: str | Path, number: int, seen: dict[tuple, int]) -> Iterator[Defect]:
    name, offset, duration = row.get("audio_filepath"), row.get("offset", 0), row.get("duration")
    if not (isinstance(name, str) and is_number(offset) and is_number(duration)):
        return
    # The same segment may come again with another question: transcribe it, then translate it.
    question = tuple(str(row.get(key)) for key in QUESTION_KEYS)
    first = seen.setdefault((os.path.normpath(audio_path(row, path)), offset, duration, question), number)
    if first != number:
        problem = f"same audio, segment and question as line {first}"
        yield Defect("audio_filepath", "duplicate", problem, "remove one of the lines")

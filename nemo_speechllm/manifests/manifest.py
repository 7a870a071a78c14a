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

"""NeMo manifests (one JSON object a line): reading, writing and checking."""

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from nemo_speechllm.audio.audio_file import TOLERANCE, AudioInfo, audio_info, check_audio
from nemo_speechllm.audio.errors import AudioError
from nemo_speechllm.errors import InputError
from nemo_speechllm.files import whole_file
from nemo_speechllm.manifests.rows import (
    ANY_CHANNEL,
    MAX_LINE,
    Defect,
    RowError,
    audio_defects,
    misspelt_keys,
    parse_row,
    row_defects,
)

logger = logging.getLogger(__name__)

# kinds of defects for which the audio is to blame, or what a line says of it
BAD_AUDIO = ("missing file", "unreadable audio", "zero length", "wrong scale", "wrong duration")
SHOWN = 3  # defects in a message, which a script prints as one line
_Span = tuple[Path, float | None, float | None]  # what of a file a row asks for: offset and duration in seconds


@dataclass(frozen=True)
class ManifestIssue:
    """One defect: where (`file`, 1-based `line`, `key`), its `kind`, the `problem` in words and its `remedy`."""

    file: str
    line: int
    key: str
    kind: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.key}: {self.problem} → {self.remedy}"


class ManifestError(InputError):
    """A manifest cannot be used; the message names its defects.

    Attributes:
        issues: all of them.
    """

    def __init__(self, message: str, issues: Iterable[ManifestIssue] = ()):
        super().__init__(message)
        self.issues = list(issues)


class EmptyManifestError(ManifestError):
    """A manifest has no line."""


class BadAudioError(ManifestError, AudioError):
    """The audio that a manifest names cannot be used."""

    def __init__(self, message: str, issues: Iterable[ManifestIssue] = ()):
        super().__init__(message, issues)
        self.kind = self.issues[0].kind if self.issues else "unreadable audio"


@dataclass(frozen=True)
class Line:
    """A line of a manifest: its 1-based ``number``, its ``row`` where it is one, and its ``issues``."""

    number: int
    row: dict | None
    issues: tuple[ManifestIssue, ...] = ()

    @property
    def known_row(self) -> dict:
        """The row, where `raise_for` or `_is_readable` has shown that the line is one."""
        assert self.row is not None, f"line {self.number} is no row"
        return self.row


def read_manifest(path: str | Path, locate_audio: bool = False) -> list[dict]:
    """Read a manifest.

    Nothing is added to the rows and paths stay as written; keys of ``null`` and NaN are not given, so they go.

    Args:
        path: the manifest.
        locate_audio: replace each `audio_filepath` by the path that holds in the current folder, and insist on audio
            that can be opened and is as long as the row says.

    Raises:
        FileNotFoundError: there is no such file, or no such audio file.
        EmptyManifestError: it has no line.
        BadAudioError: an audio cannot be opened, or is shorter than its line says.
        ManifestError: a line is no row (see `parse_row`) or has a value that cannot be used (see `row_defects`); the
            message names file, line, key and remedy.
    """
    lines = read_lines(path, needed=("audio_filepath",) if locate_audio else (), answered=False)
    raise_for(path, lines)
    if locate_audio:
        lines = with_audio_issues(lines, path, ANY_CHANNEL)
        raise_for(path, lines)
        return [located(line.known_row, path) for line in lines]
    return [line.known_row for line in lines]


def read_lines(
    path: str | Path,
    needed: Iterable[str] = ("audio_filepath", "duration"),
    answered: bool = True,
) -> list[Line]:
    """Read the lines of a manifest with what is wrong with each, but for the audio.

    Args:
        needed, answered: see `row_defects`.

    Raises:
        FileNotFoundError: there is no such file.
        EmptyManifestError: it has no line, or blank ones alone.

    Logs a warning for each key that is nearly one that is read (see `misspelt_keys`), where it first stands.
    """
    lines = []
    for number, content in _numbered_lines(path):
        try:
            row = parse_row(content)
            defects = list(row_defects(row, needed, answered))
        except RowError as error:
            row, defects = None, [error.defect]
        lines.append(Line(number, row, tuple(ManifestIssue(str(path), number, *defect) for defect in defects)))
    if all(line.row is None and line.issues[0].kind == "blank line" for line in lines):
        raise EmptyManifestError(f"{path} is empty; write a line for each recording")
    _tell_of_misspelt(path, lines)
    return lines


def with_audio_issues(
    lines: list[Line],
    path: str | Path,
    channel_selector: int | str | None,
    *,
    decode: bool = False,
    sample_rate: int | None = None,
    tolerance: float = TOLERANCE,
    workers: int = 1,
) -> list[Line]:
    """Return the lines with what is wrong with their audio, or with what they say of it.

    Args:
        path: of the manifest.
        channel_selector, sample_rate, tolerance: see `audio_defects`; `ANY_CHANNEL` where none is chosen yet.
        decode: read what each row asks for, to its end; otherwise headers alone.
        workers: threads that read (decoding runs outside Python's lock).
    """
    spans = list(dict.fromkeys(_span_of(line.known_row, path) for line in lines if _is_readable(line)))
    with ThreadPoolExecutor(workers) as pool:
        results = pool.map(partial(_examine, decode=decode), spans)
        progress = tqdm(results, total=len(spans), desc=Path(path).name, unit="file", delay=2, leave=decode)
        audios = dict(zip(spans, progress, strict=True))
    examine = partial(audio_defects, channel_selector=channel_selector, sample_rate=sample_rate, tolerance=tolerance)
    return [_examined(line, path, audios, examine) for line in lines]


def raise_for(path: str | Path, lines: Iterable[Line]) -> None:
    """Raise for the issues of the lines, if they have any.

    Raises:
        FileNotFoundError: the first issue of the lines is a file that is not there.
        ManifestError: the lines have issues.
    """
    refuse(path, [issue for line in lines for issue in line.issues])


def refuse(path: str | Path, issues: Sequence[ManifestIssue], *, is_checked: bool = True) -> None:
    """Raise for the issues of a manifest, if there are any: the message has the first, and how to see the others.

    Args:
        is_checked: `check_manifest` finds these issues too.

    Raises:
        FileNotFoundError: the first issue is a file that is not there.
        ManifestError: there are issues.
    """
    if not issues:
        return
    message = listed(path, issues, is_checked)
    if issues[0].kind == "missing file":
        raise FileNotFoundError(message)
    raise (BadAudioError if issues[0].kind in BAD_AUDIO else ManifestError)(message, issues)


def listed(path: str | Path, issues: Sequence[object], is_checked: bool = True) -> str:
    """Return the first issues of a manifest in words, how many there are, and the command that names them all."""
    if len(issues) == 1:
        return str(issues[0])
    lines = [f"{path} has {len(issues)} defects:", *map(str, issues[:SHOWN])]
    lines += [f"… and {len(issues) - SHOWN} more"] if len(issues) > SHOWN else []
    if is_checked:
        lines[-1] += (
            f"; `python examples/data/check_manifest.py {path}` names them all, and with `--write-clean clean.jsonl` "
            "writes a manifest of the other lines"
        )
    return "\n".join(lines)


def located(row: dict, path: str | Path) -> dict:
    """Return the row of manifest ``path`` with an `audio_filepath` that holds in the current folder."""
    return {**row, "audio_filepath": str(audio_path(row, path))}


def write_manifest(path: str | Path, rows: Iterable[dict]) -> None:
    """Write `rows` as a manifest. The file appears whole or not at all; its folder is made if needed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial, open(partial, "w", encoding="utf-8") as output:
        output.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def is_left_out(line: Line) -> bool:
    """Return whether a line says by its ``_skipme`` that it is not to be trained on; nothing else of it is checked.

    NeMo would leave out ``"false"`` as well; here it is a defect.
    """
    return line.row is not None and line.row.get("_skipme") in (True, 1)


def require_texts(row: dict, keys: Iterable[str], place: str) -> None:
    """Refuse a row that lacks a text under one of the keys.

    Args:
        place: file and line of the row, for the message.

    Raises:
        ValueError: one of the keys is missing, is no text or is blank.
    """
    missing = [key for key in keys if not isinstance(row.get(key), str) or not row[key].strip()]
    if missing:
        raise ValueError(f"{place}: {missing} must be texts; give them or remove the line")


def require_words(path: str | Path, rows: Iterable[dict]) -> None:
    """Refuse a manifest in which a row, of those that `read_manifest` gives, has no ``text`` with something said.

    Raises:
        ManifestError: the ``text`` of a row is missing or blank.
    """
    remedy = "write the transcript, or remove the line"
    silent = [number for number, row in enumerate(rows, 1) if not str(row.get("text") or "").strip()]
    issues = [ManifestIssue(str(path), number, "text", "empty text", "nothing is said", remedy) for number in silent]
    refuse(path, issues, is_checked=False)


def audio_path(row: dict, manifest: str | Path) -> Path:
    """Where the audio of a row lies: `~` is the home folder, a relative path is relative to the manifest's folder."""
    return Path(manifest).parent / Path(row["audio_filepath"]).expanduser()


def relocate(row: dict, source: str | Path, target: str | Path) -> dict:
    """Return a copy of a row of manifest `source` whose relative audio path holds in manifest `target`."""
    if Path(row["audio_filepath"]).expanduser().is_absolute():
        return row
    return {**row, "audio_filepath": os.path.relpath(audio_path(row, source), Path(target).parent)}


def _numbered_lines(path: str | Path) -> Iterator[tuple[int, bytes]]:
    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no manifest {path}; the path counts from {Path.cwd()}")
    with open(path, "rb") as file:
        yield from enumerate(iter(partial(_read_line, file), b""), 1)


def _read_line(file: BinaryIO) -> bytes:
    """Read the next line; of one that is too long the beginning, so that memory holds it."""
    line = part = file.readline(MAX_LINE + 2)
    while len(part) > MAX_LINE and not part.endswith(b"\n"):
        part = file.readline(MAX_LINE + 2)
    return line


def _tell_of_misspelt(path: str | Path, lines: Iterable[Line]) -> None:
    found: dict[tuple[str, str], list[int]] = {}
    for line in lines:
        for names in misspelt_keys(line.row or {}):
            found.setdefault(names, []).append(line.number)
    for (key, meant), numbers in found.items():
        others = f" (and in {len(numbers) - 1} more lines)" if len(numbers) > 1 else ""
        _warn_once(f"{path}:{numbers[0]}: {key}: nothing reads this key{others} → did you mean {meant!r}?")


@cache
def _warn_once(message: str) -> None:
    """Log a warning; a script may read its manifest several times."""
    logger.warning(message)


def _is_readable(line: Line) -> bool:
    """Whether a line names a part of a file that can be looked for."""
    wrong = {issue.key for issue in line.issues if (issue.key, issue.kind) != ("duration", "missing key")}
    return line.row is not None and not wrong & {"audio_filepath", "offset", "duration"}


def _span_of(row: dict, path: str | Path) -> _Span:
    offset = row.get("offset")
    return audio_path(row, path), offset, None if offset is None else row.get("duration")


def _examine(span: _Span, decode: bool) -> AudioInfo | Defect:
    """Return what the file holds, or why the part cannot be read.

    A header says nothing about a truncated or damaged body.
    """
    path, offset, duration = span
    if not os.path.isfile(path):
        remedy = "correct the path (relative paths start at the manifest)"
        return Defect("audio_filepath", "missing file", f"no such file: {path}", remedy)
    try:
        info = audio_info(path)
        start, frames = info.span(offset, duration)
        if decode and start < info.frames and frames != 0:  # else the part itself is the defect
            check_audio(path, start, frames)
    except AudioError as error:
        problem, _, remedy = str(error).rpartition("; ")
        return Defect("audio_filepath", error.kind, problem, remedy)
    return info


def _examined(
    line: Line,
    path: str | Path,
    audios: dict[_Span, AudioInfo | Defect],
    examine: Callable[[dict, AudioInfo], Iterator[Defect]],
) -> Line:
    if not _is_readable(line):
        return line
    row = line.known_row
    audio = audios[_span_of(row, path)]
    defects = examine(row, audio) if isinstance(audio, AudioInfo) else [_or_in_tar(audio, row)]
    return Line(line.number, row, line.issues + tuple(ManifestIssue(str(path), line.number, *d) for d in defects))


def _or_in_tar(defect: Defect, row: dict) -> Defect:
    """Return the defect; of a tarred manifest's row, whose audio is no file, with what reads it."""
    if defect.kind != "missing file" or "shard_id" not in row:
        return defect
    problem = f"{defect.problem}; the line has a `shard_id`, so its audio is in a tar file"
    remedy = "unpack the tar files beside the manifest, for only training reads them (tarred_audio_filepaths)"
    return Defect(defect.key, defect.kind, problem, remedy)

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

import codecs
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

_NUMBERS = ("duration", "offset")
_QUESTION = ("instruction", "context", "question", "task", "lang", "target_lang")
_STRINGS = ("text", "answer", *_QUESTION, "speaker")
_DECODE_BLOCK = 1 << 20  # frames


@dataclass(frozen=True)
class ManifestIssue:
    """One defect of a manifest: where (`file`, 1-based `line`, `key`), its `kind`, the `problem` in words and its `remedy`."""

    file: str
    line: int
    key: str
    kind: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.key}: {self.problem} → {self.remedy}"


@dataclass(frozen=True)
class _Audio:
    """What decoding a file gave: its length, rate and channels, or a defect as (kind, problem, remedy)."""

    duration: float = 0.0
    sample_rate: int = 0
    channels: int = 1
    defect: tuple[str, str, str] | None = None


def read_manifest(path: str | Path, locate_audio: bool = False) -> list[dict]:
    """Read a manifest. Nothing is added to the rows and paths stay as written.

    Args:
        path: the manifest.
        locate_audio: replace each `audio_filepath` by the path that holds in the current folder, and insist on the file.

    Raises:
        FileNotFoundError: there is no such file, or no such audio file.
        ValueError: a line is blank (NeMo's readers stop there), is not a JSON object in UTF-8, or has no audio; the message names file, line and remedy.
    """
    rows = []
    for number, row in _parse_lines(path):
        if isinstance(row, ManifestIssue):
            raise ValueError(str(row))
        if locate_audio:
            row = {**row, "audio_filepath": str(_existing_audio(row, path, number))}
        rows.append(row)
    return rows


def write_manifest(path: str | Path, rows: Iterable[dict]) -> None:
    """Write `rows` as a manifest. The file appears whole or not at all; its folder is made if needed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(partial, "w", encoding="utf-8") as output:
            output.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def check_manifest(
    path: str | Path,
    *,
    sample_rate: int | None = None,
    min_duration: float | None = None,
    max_duration: float | None = None,
    channel_selector: int | str | None = None,
    tolerance: float = 0.05,
    workers: int = 1,
    allow_silence: bool = False,
) -> tuple[list[dict], list[ManifestIssue]]:
    """Check every line of a manifest and decode every audio file it names, each once and to its end.

    Args:
        path: manifest with audio as files; relative audio paths are relative to its folder.
        sample_rate: expected rate in Hz; None accepts any (the dataloader resamples without a word).
        min_duration: shortest duration accepted, in seconds.
        max_duration: longest duration accepted, in seconds.
        channel_selector: what will be read of files with several channels; None: they are an issue.
        tolerance: seconds by which a duration may differ from the audio's.
        workers: threads that decode (decoding runs outside Python's lock).
        allow_silence: accept an empty `text`: a recording in which nothing is said, to evaluate on.

    Returns:
        The rows without any issue, as they were read, and all issues in the order of the lines.

    Raises:
        FileNotFoundError: there is no such manifest.
    """
    lines = list(_parse_lines(path))
    files = {audio_path(row, path) for _, row in lines if isinstance(row, dict) and _has_path(row)}
    with ThreadPoolExecutor(workers) as pool:
        progress = tqdm(pool.map(_decode, files), total=len(files), desc=Path(path).name, unit="file")
        audios = dict(zip(files, progress))

    clean, issues, seen = [], [], {}
    for number, row in lines:
        if isinstance(row, ManifestIssue):
            issues.append(row)
            continue
        audio_file = audio_path(row, path) if _has_path(row) else None
        silent = allow_silence and row.get("text") == ""
        defects = [defect for defect in row_defects(row) if not (silent and defect[1] == "empty text")]
        if audio_file:
            defects += _audio_defects(row, audios[audio_file], sample_rate, channel_selector, tolerance)
            defects += _duplicate_defects(row, audio_file, number, seen)
        defects += _duration_limit_defects(row, min_duration, max_duration)
        issues += [ManifestIssue(str(path), number, *defect) for defect in defects]
        if not defects:
            clean.append(row)
    return clean, issues


def require_texts(row: dict, keys: Iterable[str], place: str) -> None:
    """
    Args:
        place: file and line of the row, for the message.

    Raises:
        ValueError: one of the keys is missing, is no text or is blank.
    """
    missing = [key for key in keys if not isinstance(row.get(key), str) or not row[key].strip()]
    if missing:
        raise ValueError(f"{place}: {missing} must be texts; give them or remove the line")


def audio_path(row: dict, manifest: str | Path) -> Path:
    """Where the audio of a row lies: `~` is the home folder, a relative path is relative to the manifest's folder."""
    return Path(manifest).parent / Path(row["audio_filepath"]).expanduser()


def relocate(row: dict, source: str | Path, target: str | Path) -> dict:
    """A copy of a row of manifest `source` whose relative audio path holds in manifest `target`."""
    if Path(row["audio_filepath"]).expanduser().is_absolute():
        return row
    return {**row, "audio_filepath": os.path.relpath(audio_path(row, source), Path(target).parent)}


def _existing_audio(row: dict, manifest: str | Path, number: int) -> Path:
    if not _has_path(row):
        issue = ManifestIssue(
            str(manifest), number, "audio_filepath", "missing key", "the line names no audio", "add the path"
        )
        raise ValueError(str(issue))
    path = audio_path(row, manifest)
    if not path.is_file():
        remedy = "correct the path (relative paths start at the manifest)"
        issue = ManifestIssue(str(manifest), number, "audio_filepath", "missing file", f"no such file: {path}", remedy)
        raise FileNotFoundError(str(issue))
    return path


def _parse_lines(path: str | Path) -> Iterator[tuple[int, dict | ManifestIssue]]:
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no manifest {path}; the path counts from {Path.cwd()}")
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            yield number, _parse_line(line, path, number)


def _parse_line(line: bytes, path: str | Path, number: int) -> dict | ManifestIssue:
    remedy = (
        'write one JSON object a line, in UTF-8, like {"audio_filepath": "a.wav", "duration": 1.5, "text": "hello"}'
    )
    if not line.strip():
        return ManifestIssue(str(path), number, "(line)", "blank line", "NeMo cannot read a blank line", "remove it")
    if line.startswith(codecs.BOM_UTF8):
        problem = "the line begins with a byte order mark, which NeMo cannot read"
        return ManifestIssue(
            str(path), number, "(line)", "invalid JSON", problem, "save the file as UTF-8 without BOM"
        )
    try:
        row = json.loads(line.decode("utf-8"))
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        return ManifestIssue(str(path), number, "(line)", "invalid JSON", f"invalid JSON ({error})", remedy)
    if not isinstance(row, dict):
        problem = f"expected an object, got a JSON {type(row).__name__}"
        return ManifestIssue(str(path), number, "(line)", "not an object", problem, remedy)
    return row


def _has_path(row: dict) -> bool:
    return isinstance(row.get("audio_filepath"), str) and row["audio_filepath"] != ""


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _decode(path: Path) -> _Audio:
    """Decode a whole file: a header says nothing about a truncated or damaged body."""
    if not path.is_file():
        return _Audio(
            defect=("missing file", f"no such file: {path}", "correct the path (relative paths start at the manifest)")
        )
    try:
        with soundfile.SoundFile(path) as audio:
            decoded, finite = 0, True
            for block in audio.blocks(_DECODE_BLOCK, dtype="float32"):
                decoded += len(block)
                finite = finite and bool(np.isfinite(block).all())
            expected, rate, channels = audio.frames, audio.samplerate, audio.channels
    except (soundfile.SoundFileError, OSError) as error:
        return _Audio(
            defect=("unreadable audio", f"{path} cannot be decoded ({error})", "convert it again to WAV or FLAC")
        )
    if decoded < expected:
        problem = f"{path} is cut short: {decoded / rate:.2f} s of the {expected / rate:.2f} s in its header"
        return _Audio(defect=("unreadable audio", problem, "copy or convert the file again"))
    if not decoded:
        return _Audio(defect=("zero length", f"{path} has no samples", "remove the line"))
    if not finite:
        return _Audio(defect=("unreadable audio", f"{path} holds NaN or infinite samples", "convert it again"))
    return _Audio(decoded / rate, rate, channels)


def row_defects(row: dict) -> Iterator[tuple[str, str, str, str]]:
    """Defects (key, kind, problem, remedy) of a row that are to be seen without its audio."""
    for key in ("audio_filepath", "duration"):
        if key not in row:
            yield key, "missing key", "the key is missing", f"add {key!r} to the line"
    if "audio_filepath" in row and not _has_path(row):
        yield (
            "audio_filepath",
            "wrong type",
            f"expected a path, got {row['audio_filepath']!r}",
            "write a non-empty string",
        )
    for key in _NUMBERS:
        if key in row and not _is_number(row[key]):
            yield key, "wrong type", f"expected a number, got {row[key]!r}", "write seconds as a number without quotes"
    for key in _STRINGS:
        if key in row and not isinstance(row[key], str):
            yield key, "wrong type", f"expected a string, got {row[key]!r}", "write it in quotes, or leave the key out"
    keywords = row.get("keywords", "")
    if not isinstance(keywords, str) and not (
        isinstance(keywords, list) and all(isinstance(word, str) for word in keywords)
    ):
        yield "keywords", "wrong type", f"expected a list of strings, got {keywords!r}", 'write ["one", "two"]'
    if _is_number(row.get("duration")) and not row["duration"] > 0:
        yield (
            "duration",
            "zero length",
            f"duration {row['duration']} s is not positive",
            "write the duration, or remove the line",
        )
    if _is_number(row.get("offset")) and not row["offset"] >= 0:
        yield (
            "offset",
            "wrong duration",
            f"offset {row['offset']} s is negative",
            "write seconds from the start of the file",
        )
    if not any(value.strip() for value in _answers(row)):
        yield "text", "empty text", "neither 'text' nor 'answer' has a word", "write the transcript or remove the line"


def _answers(row: dict) -> list[str]:
    """`text` and `answer`; a value of a wrong type has its own issue and is no empty text."""
    return [row[key] if isinstance(row[key], str) else repr(row[key]) for key in ("text", "answer") if key in row]


def _audio_defects(
    row: dict, audio: _Audio, sample_rate: int | None, channel_selector: int | str | None, tolerance: float
) -> Iterator[tuple[str, str, str, str]]:
    """Defects (key, kind, problem, remedy) of a row's audio, or of what the row says about it."""
    if audio.defect:
        yield "audio_filepath", *audio.defect
        return
    if audio.channels > 1 and channel_selector is None:
        remedy = "mix it down, e.g. `ffmpeg -i IN -ac 1 OUT`, or choose one with channel_selector where it is read"
        yield "audio_filepath", "several channels", f"the audio has {audio.channels} channels", remedy
    if sample_rate and audio.sample_rate != sample_rate:
        problem = f"sampled at {audio.sample_rate} Hz, expected {sample_rate} Hz"
        yield "audio_filepath", "wrong rate", problem, f"resample the file, e.g. `ffmpeg -i IN -ar {sample_rate} OUT`"
    duration, offset = row.get("duration"), row.get("offset")
    if not _is_number(duration):
        return
    if _is_number(offset):
        if offset + duration > audio.duration + tolerance:
            problem = f"ends at {offset + duration:.3f} s (offset + duration), the audio at {audio.duration:.3f} s"
            yield "duration", "wrong duration", problem, "correct 'offset' and 'duration'"
    elif duration > 0 and abs(duration - audio.duration) > tolerance:
        problem = f"says {duration:.3f} s, the audio has {audio.duration:.3f} s"
        yield "duration", "wrong duration", problem, "write the audio's duration, or add 'offset' to use a part of it"


def _duration_limit_defects(
    row: dict, min_duration: float | None, max_duration: float | None
) -> Iterator[tuple[str, str, str, str]]:
    duration = row.get("duration")
    if not _is_number(duration) or not duration > 0:
        return
    if min_duration is not None and duration < min_duration:
        yield (
            "duration",
            "too short",
            f"{duration:.3f} s is below {min_duration} s",
            "remove the line or lower the limit",
        )
    if max_duration is not None and duration > max_duration:
        yield "duration", "too long", f"{duration:.3f} s is above {max_duration} s", "cut the audio or raise the limit"


def _duplicate_defects(
    row: dict, audio_file: Path, number: int, seen: dict[tuple, int]
) -> Iterator[tuple[str, str, str, str]]:
    offset, duration = row.get("offset", 0), row.get("duration")
    if not (_is_number(offset) and _is_number(duration)):
        return
    # The same segment may come again with another question: transcribe it, then translate it.
    question = tuple(str(row.get(key)) for key in _QUESTION)
    first = seen.setdefault((os.path.normpath(audio_file), offset, duration, question), number)
    if first != number:
        problem = f"same audio, segment and question as line {first}"
        yield "audio_filepath", "duplicate", problem, "remove one of the lines"

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

"""Classification tasks that are asked as questions: manifests, and folders in Dynamic-SUPERB's layout (2309.09510).

Such a folder holds the rows of a task in ``.parquet`` files, as its data set lies on the model hub, or in a
``metadata.jsonl`` or ``metadata.csv`` beside audio files (Hugging Face's AudioFolder). A row has ``instruction``,
``label`` and its recordings: in ``audio`` (with ``audio2``, … where there are several) a path or the content of the
file (``{bytes, path}``), or in ``file_name`` (with ``audio2_file_name``, …) a path relative to the table.
"""

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pyarrow import ArrowException
from pyarrow.parquet import ParquetFile

from nemo_speechllm.data.conversation import Audio
from nemo_speechllm.manifests.manifest import read_manifest

_METADATA = ("metadata.jsonl", "metadata.csv")
_SPLITS = ("train", "validation", "valid", "dev", "test")
_AUDIO = re.compile(r"file_name|audio(\d*)(?:_file_name)?")
_INNER_FOLDERS = ("data", "default", *_SPLITS)  # of a data set on the model hub
_CATEGORIES = Path(__file__).with_name("dynamic_superb.yaml")

# Recordings in order, given a channel_selector (see `Audio.from_file`).
OpenAudios = Callable[[int | str | None], list[Audio]]


@dataclass(frozen=True)
class TaskItem:
    """A question of a task.

    Attributes:
        place: file and line, or row of a table, for messages.
        row: what is written there; ``audio_filepath`` names the (first) recording.
        open_audios: opens the recordings.
    """

    place: str
    row: dict[str, Any]
    open_audios: OpenAudios


def read_task_items(source: str | Path) -> list[TaskItem]:
    """Read the questions of a manifest, or of the tasks in a folder.

    Args:
        source: a NeMo manifest, the folder of a task, or a folder of such folders. The rows of a folder have the
            folder's name as their ``task``, and as their ``category`` their own or else what Dynamic-SUPERB counts a
            task of that name to.

    Raises:
        FileNotFoundError: there is no such file or folder, an audio is missing, or a folder has no table of a test
            split.
        ValueError: a line is damaged, or a row has no recording; the message names file, line and remedy.
    """
    if not Path(source).is_dir():
        rows = read_manifest(source, locate_audio=True)
        return [TaskItem(f"{source}:{number}", row, _opener_of_row(row)) for number, row in enumerate(rows, 1)]
    categories = yaml.safe_load(_CATEGORIES.read_text(encoding="utf-8"))
    items = []
    for table in task_tables(source):
        task = _task_folder(Path(source), table).resolve().name
        named = {"task": task, "category": categories.get(task.partition("_")[0])}
        items += [TaskItem(item.place, named | item.row, item.open_audios) for item in _read_table(table)]
    return items


def task_tables(folder: str | Path) -> list[Path]:
    """Return the files with the rows of all tasks in a folder; of splits (in the name of file or folder) the test's.

    Raises:
        FileNotFoundError: there are none.
    """
    folder = Path(folder)
    paths = sorted(path for path in folder.rglob("*") if path.name in _METADATA or path.suffix == ".parquet")
    tables = [path for path in paths if _split(path.relative_to(folder)) in (None, "test")]
    if not tables:
        raise FileNotFoundError(
            f"{folder} has no {', '.join(_METADATA)} or .parquet"
            + (" of a test split" if paths else "")
            + "; give a manifest, the folder of a task as it lies on the model hub, or a folder with one for each task"
        )
    return tables


def _split(path: Path) -> str | None:
    """Return the split that a path names: ``test`` of ``data/test-0-of-1.parquet`` and ``test/metadata.csv``."""
    names = [re.split(r"[-.]", path.name)[0], *reversed(path.parts[:-1])]
    return next((name for name in names if name in _SPLITS), None)


def _task_folder(source: Path, table: Path) -> Path:
    """Return the folder that is named after the task.

    The one that holds ``data`` or the split's, if any, but ``source`` at most.
    """
    folder = table.parent
    while folder != source and folder.name in _INNER_FOLDERS:
        folder = folder.parent
    return folder


def _read_table(table: Path) -> Iterator[TaskItem]:
    if table.suffix == ".parquet":
        return _read_parquet(table)
    if table.suffix == ".csv":
        with open(table, encoding="utf-8", newline="") as lines:
            reader = csv.DictReader(lines)
            return _metadata_items(table, [(reader.line_num, row) for row in reader])
    return _metadata_items(table, list(enumerate(read_manifest(table), 1)))


def _metadata_items(table: Path, rows: list[tuple[int, dict]]) -> Iterator[TaskItem]:
    for number, row in rows:
        place = f"{table}:{number}"
        columns = _audio_columns(row, place)
        missing = [column for column in columns if not (isinstance(row[column], str) and row[column])]
        if missing:
            raise ValueError(f"{place}: {missing[0]} is {row[missing[0]]!r}; give the path of an audio file")
        paths = [table.parent / row[column] for column in columns]
        for column, path in zip(columns, paths, strict=True):
            if not path.is_file():
                raise FileNotFoundError(
                    f"{place}: {column}: there is no file {path}; correct the path (it starts at {table.name})"
                )
        yield _item(place, row, columns, str(paths[0]), _opener_of_files(paths))


def _read_parquet(table: Path) -> Iterator[TaskItem]:
    try:
        file = ParquetFile(table)
        names = file.schema_arrow.names
        columns = tuple(_audio_columns(dict.fromkeys(names), str(table)))
        # the recordings stay on disk: those of all tasks may be more than memory holds
        rows = file.read([name for name in names if name not in columns]).to_pylist()
    except ArrowException as error:
        raise ValueError(f"{table}: not a Parquet file ({error}); fetch it again") from error
    sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    positions = [(group, index) for group, size in enumerate(sizes) for index in range(size)]
    for number, (row, position) in enumerate(zip(rows, positions, strict=True), 1):
        place = f"{table}:{number}"
        name = str(row.get("file") or place)
        yield _item(place, row, columns, name, _opener_of_group(table, columns, *position, place, name))


def _opener_of_group(
    table: Path, columns: tuple[str, ...], group: int, index: int, place: str, name: str
) -> OpenAudios:
    def open_audios(channel: int | str | None) -> list[Audio]:
        stored = _read_group(table, columns, group)[index]
        return [_open_stored(stored[column], table, f"{place}: {column}", name, channel) for column in columns]

    return open_audios


@lru_cache(maxsize=1)  # rows are asked for in order
def _read_group(table: Path, columns: tuple[str, ...], group: int) -> list[dict]:
    with ParquetFile(table) as file:
        return file.read_row_group(group, columns=list(columns)).to_pylist()


def _open_stored(value: Any, table: Path, place: str, name: str, channel: int | str | None) -> Audio:
    """Open a recording as Hugging Face stores it: content, or a path."""
    stored: dict[str, Any] = {"path": value} if isinstance(value, str) else value or {}
    if stored.get("bytes"):
        return Audio.from_bytes(stored["bytes"], name, channel)
    if stored.get("path"):
        return Audio.from_file(table.parent / stored["path"], channel_selector=channel)
    raise ValueError(f"{place}: neither the content nor the path of an audio file; export the data set with its audio")


def _audio_columns(row: dict, place: str) -> list[str]:
    """Those that hold recordings, in order."""
    numbers = {column: match[1] for column in row if (match := _AUDIO.fullmatch(str(column)))}
    if not numbers:
        raise ValueError(f"{place}: there is no recording; name it in `file_name`, or put it into `audio`")
    return sorted(numbers, key=lambda column: int(numbers[column] or 1))


def _item(place: str, row: dict, columns: Sequence[str], name: str, opener: OpenAudios) -> TaskItem:
    kept = {key: value for key, value in row.items() if key not in columns and value not in (None, "")}
    return TaskItem(place, kept | {"audio_filepath": name}, opener)


def _opener_of_row(row: dict) -> OpenAudios:
    return lambda channel: [Audio.from_row(row, channel)]


def _opener_of_files(paths: list[Path]) -> OpenAudios:
    return lambda channel: [Audio.from_file(path, channel_selector=channel) for path in paths]

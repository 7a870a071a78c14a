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

"""What every script does alike: results go to stdout, all else to stderr, and a failure's last line is its cause."""

import difflib
import errno
import multiprocessing
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import is_dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn, TextIO, TypeVar

from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

FULL_ERROR = "HYDRA_FULL_ERROR"  # Hydra's: 1 shows whole tracebacks
# argparse and Hydra answer these on stdout themselves
HELP_OPTIONS = {"-h", "--help", "--hydra-help", "-c", "--cfg", "-i", "--info"}
ASKED_FULL_ERROR = "NEMO_SPEECHLLM_FULL_ERROR"  # what the user said of it, also to the processes that this one starts

T = TypeVar("T")

_results: TextIO | None = None  # stdout as the user sees it while a script runs; None: nothing has been redirected


def run_command(main: Callable[[], int | None]) -> NoReturn:
    """Run a script's ``main`` and end the process with its `exit_status`.

    What libraries and child processes print goes to stderr; `emit` alone writes to stdout.
    """
    if sys.stdout is None:
        sys.exit(_fail("stdout is closed; give the results a place, >/dev/null say", 1))
    with nullcontext() if HELP_OPTIONS & set(sys.argv) else results_apart():
        status = exit_status(main)
    sys.exit(status)


def exit_status(main: Callable[[], int | None]) -> int:
    """Call a script's ``main`` and return its status; print the cause of a failure as the last line and return 1.

    A traceback stands above that line where the error is a defect of the program rather than of what it was given, or
    where ``HYDRA_FULL_ERROR=1`` asks for it.
    """
    full_error = os.environ.setdefault(ASKED_FULL_ERROR, os.environ.get(FULL_ERROR, "0")) == "1"
    # else Hydra prints and ends the process itself, with a hint in the place of the cause
    os.environ[FULL_ERROR] = "1"
    try:
        return main() or 0
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:  # whoever read the results has read enough
        if _results is not None:  # what is still in its buffer has nowhere to go
            os.dup2(os.open(os.devnull, os.O_WRONLY), _results.fileno())
        return 141
    except Exception as error:
        if full_error or not is_expected(error):
            traceback.print_exc()
        cause = cause_of(error)
        traceback.clear_frames(error.__traceback__)  # a progress bar of theirs ends now, not after the cause
        return _fail(cause, 1)


@contextmanager
def results_apart() -> Iterator[None]:
    """Send everything that this process and its children print to stderr, but for what `emit` prints."""
    global _results
    sys.stdout.flush()
    stdout = os.dup(1)
    with os.fdopen(os.dup(stdout), "w", encoding=sys.stdout.encoding, errors="backslashreplace") as _results:
        os.dup2(2, 1)  # children and libraries in C write to the descriptor, not to Python's object
        try:
            with redirect_stdout(sys.stderr):
                yield
        finally:
            os.dup2(stdout, 1)
            os.close(stdout)
    _results = None


class ProcessError(RuntimeError):
    """What was called in a process of its own has failed; the message has the cause."""


def run_apart(
    command: Sequence[str], function: Callable[..., T], *arguments: object, log: str | Path | None = None
) -> T:
    """Call a function in a process of its own, whose memory goes when it ends, and return what it returns.

    Args:
        command: the script with its arguments that does the same. Lightning starts it for every further device.
        function, arguments: of modules that can be imported; they and what is returned are pickled.
        log: a file to which all that the process prints is added; None: to where this one prints.

    Raises:
        ProcessError: the function raised an error, or the process was killed.
    """
    spawn = multiprocessing.get_context("spawn")
    begin = partial(_begin_process, list(command), log)
    see = "" if log is None else f"; see {log}"
    try:
        with ProcessPoolExecutor(1, spawn, initializer=begin) as pool:
            return pool.submit(_call, function, arguments).result()
    except BrokenProcessPool as error:
        raise ProcessError(f"{Path(command[0]).name} was killed, for want of memory perhaps{see}") from error
    except ProcessError as error:
        raise ProcessError(f"{Path(command[0]).name} failed: {error}{see}") from None


def _begin_process(command: list[str], log: str | Path | None) -> None:
    sys.argv = command
    if log is not None:
        with open(log, "ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)


def _call(function: Callable[..., T], arguments: Sequence[object]) -> T:
    """Call a function; whatever it raises comes as an error that can be pickled."""
    try:
        return function(*arguments)
    except (Exception, SystemExit) as error:
        if not is_expected(error):
            traceback.print_exc()
        cause = cause_of(error)
        _fail(cause, 1)
        raise ProcessError(cause) from None


def emit(*lines: object) -> None:
    """Print a script's results to stdout, each on a line of its own, at once."""
    print(*lines, sep="\n", file=_results or sys.stdout, flush=True)


def check_settings(cfg: DictConfig) -> None:
    """Refuse what a script with a schema would ignore or could not write, before any work.

    Raises:
        ValueError: a key was added with ``+`` that the schema does not have.
        OSError: nothing can be written to ``output_dir``.
    """
    known = [str(key) for key in OmegaConf.structured(OmegaConf.get_type(cfg))]
    for key in (str(key) for key in cfg if key not in known):
        raise ValueError(f"there is no setting {key!r}; {nearest_of(key, known)}")
    if "output_dir" in known and not OmegaConf.is_missing(cfg, "output_dir") and cfg.output_dir is not None:
        check_writable(cfg.output_dir)


def check_writable(folder: str | Path) -> None:
    """Refuse a folder for results, there or to be made, in which no file can be written. Nothing is left behind.

    Raises:
        OSError: a file is in its place or above it, or the place takes no files; the message says which.
    """
    place = next(path for path in (Path(folder), *Path(folder).parents) if os.path.lexists(path))
    if not place.is_dir():
        raise NotADirectoryError(f"{folder}: {place} is no folder; give another place for the results, or move it")
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        reason = f"no file can be written in {place} ({error.strerror})"
        raise type(error)(f"{folder}: {reason}; give another place for the results") from error


def check_output_file(path: str | Path, inputs: Iterable[str | Path]) -> None:
    """Refuse a file for results that is a folder, cannot be written, or is one of those that are read.

    Raises:
        ValueError: it is one of the ``inputs``.
        OSError: it cannot be written; the message says why.
    """
    if Path(path).is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the name of a file, {Path(path) / 'out.jsonl'} say")
    check_writable(Path(path).parent)
    if Path(path).resolve() in {Path(given).expanduser().resolve() for given in inputs}:
        raise ValueError(f"{path} is what is read, and would be overwritten; give another name for the results")


def is_expected(error: BaseException) -> bool:
    """Tell whether an error speaks of what a user gave (a file, a setting, an installation): no traceback then."""
    raised_by_us = type(error).__module__.partition(".")[0] == "nemo_speechllm"
    return raised_by_us or isinstance(
        error, ValueError | OSError | ImportError | HydraException | OmegaConfBaseException
    )


def cause_of(error: BaseException) -> str:
    """Return an error's message in one line, with the nearest known key where a setting does not exist."""
    if isinstance(error, HydraException) and isinstance(error.__cause__, OmegaConfBaseException):
        return _setting_error(error.__cause__, f"{error}\n{error.__cause__}")
    if isinstance(error, OverrideParseException):
        message = " ".join(str(error).split("\nSee http")[0].split()).removesuffix(" ^")
        return f"{message}; {_how_to_write(error.override)}"
    if isinstance(error, OmegaConfBaseException):
        return _setting_error(error, str(error))
    message = " ".join(str(error).split())
    if isinstance(error, OSError) and error.filename is not None and error.errno in (errno.EEXIST, errno.ENOTDIR):
        return (
            f"{error.filename}: a file is where a folder is needed ({error.strerror}); give another path, or move it"
        )
    if not message or not is_expected(error):
        return f"{type(error).__name__}: {message}".removesuffix(": ")
    return message


def _how_to_write(override: str) -> str:
    """Return how a shell hands over a setting that Hydra cannot read as it came."""
    key, given, value = override.partition("=")
    if not given or not re.fullmatch(r"[+~]*[\w.@/:-]+", key):
        return f"{override!r} is no setting: write key=value, without a space around ="
    mark = '"' if "'" in value and '"' not in value else "'"
    quoted = re.sub(rf"(\\*)({mark}|$)", lambda found: found[1] * 2 + (found[2] and f"\\{mark}"), value)
    in_shell = re.sub(r'([\\"$`])', r"\\\1", f"{key}={mark}{quoted}{mark}")
    return f'in {override!r}, quote the value twice: "{in_shell}"'


def _setting_error(error: OmegaConfBaseException, message: str) -> str:
    """Return OmegaConf's message without its lines on types; what it says of a key comes with the keys there are."""
    of_types = ("full_key:", "object_type=", "reference_type=")
    has_schema = error.parent_node is not None and is_dataclass(OmegaConf.get_type(error.parent_node))
    beside = (*of_types, "To append to your config use +") if has_schema else of_types  # `check_settings` refuses it
    lines = [line.strip() for line in message.splitlines() if line.strip() and not line.strip().startswith(beside)]
    reason = " ".join(dict.fromkeys(lines))  # Hydra's message may end with OmegaConf's
    known = list(error.parent_node) if error.parent_node is not None and hasattr(error.parent_node, "keys") else []
    if isinstance(error, MissingMandatoryValue):
        return f"{reason}; give {error.full_key or error.key}=..."
    if error.key is None or error.key in known:
        return reason
    return f"{reason}; {nearest_of(str(error.key), known)}"


def nearest_of(key: str, known: Sequence) -> str:
    """Return what to say of a key that is not known: the nearest one, or all."""
    nearest = difflib.get_close_matches(key, map(str, known), n=1)
    return f"did you mean {nearest[0]!r}?" if nearest else f"known are {list(known)}"


def _fail(cause: str, status: int) -> int:
    sys.stderr.flush()
    print(f"error: {cause}", file=sys.stderr, flush=True)
    return status

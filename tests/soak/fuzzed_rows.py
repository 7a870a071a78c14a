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

"""Rows that users and their tools get wrong: check, training, transcription and evaluation accept the same, and name
the rest.

    python -m tests.soak fuzzed_rows:rows=100

``tests/audio/test_one_reader.py`` tries a few in the suite.
"""

import importlib.util
import json
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import numpy as np
import soundfile
from nemo.utils import logging
from omegaconf import OmegaConf
from tqdm import tqdm

from nemo_speechllm.data.dataloader import build_dataloader
from nemo_speechllm.data.dataset import ConversationBuilder, ConversationDataset
from nemo_speechllm.evaluation.run import checked_rows, question
from nemo_speechllm.manifests.check import check_manifest
from nemo_speechllm.manifests.manifest import ManifestIssue
from nemo_speechllm.models.inputs import conversations_of
from nemo_speechllm.recipes.sections import Prompt
from tests.encoded_audio import encode
from tests.soak.workers import tried

ROOT = Path(__file__).parents[2]
BLOCK = 25  # rows that share a folder of audio
SECONDS = 30  # for one row in one consumer
RATE = 16000
PROMPT = {
    "instructions": {"asr": "Transcribe.", "ast": "Translate into {target_language}."},
    "keywords": "Keywords: {keywords}. ",
}
GOOD = {"audio_filepath": "good.flac", "duration": 1.0, "text": "press one for support", "lang": "en"}
SECOND = "second.wav"  # of the good line behind the fuzzed one
# what only a row with a transcript and a duration lacks: to transcribe it takes neither
NOT_FOR_TRANSCRIPTION = {("text", "empty text"), ("duration", "missing key")}

Consumer = Callable[[Path], int]  # a manifest → how many of its rows were read


# rows ----------------------------------------------------------------------------------------------------------------


def make_audio(folder: Path) -> list[str]:
    """Write a second of speech-like noise in many formats, whole and damaged; return the names."""
    noise = np.random.default_rng(0).normal(0, 0.1, RATE).clip(-1, 1).astype(np.float32)
    for name in ("good.flac", "good.wav", "good.ogg", "good.mp3", "good.aiff", SECOND):
        soundfile.write(folder / name, noise, RATE)
    soundfile.write(folder / "slow.wav", noise[: RATE // 2], RATE // 2)
    soundfile.write(folder / "stereo.wav", np.stack([noise, noise], 1), RATE)
    encode(folder / "phone.m4a", "aac", noise)
    encode(folder / "browser.webm", "libopus", noise)
    for name, value in (("nan.wav", np.nan), ("huge.wav", 1e30), ("scale.wav", 12000.0)):
        soundfile.write(folder / name, np.full(RATE, value, np.float32), RATE, subtype="FLOAT")
    for name in ("good.flac", "good.wav", "good.ogg", "good.mp3", "phone.m4a", "browser.webm"):
        content = (folder / name).read_bytes()
        (folder / f"cut.{name}").write_bytes(content[: len(content) // 2])
    wav = bytearray((folder / "good.wav").read_bytes())
    place = wav.index(b"data") + 4
    wav[place : place + 4] = bytes(4)
    (folder / "unclosed.wav").write_bytes(wav)
    (folder / "text.wav").write_text("this is no audio")
    (folder / "empty.wav").touch()
    (folder / "folder.wav").mkdir()
    return sorted(path.name for path in folder.iterdir() if path.name != SECOND)


VALUES: list[Any] = [
    None, float("nan"), float("inf"), 0, -1, 0.3, 0.97, 1.04, 1.06, 10, 1e300, 10**400, 2**63, True, "", " ", "1.0",
    "abc", "\ud800", "a\x00b", "\x1b[31m", "\ue0a0", "\u200b", "é", "<|im_end|>", "x" * 70_000, [], {}, ["one", "two"],
    [1], [None], {"a": [1]}, ["a", "\udfff"],
]  # fmt: skip
KEYS = (
    *(
        "audio_filepath",
        "duration",
        "offset",
        "text",
        "answer",
        "lang",
        "target_lang",
        "instruction",
        "context",
        "question",
    ),
    *("keywords", "snr", "speaker", "sampling_rate", "sample_rate", "cer", "id", "anything"),
)
PATHS = (
    *(
        "pipe:touch pwned",
        "https://example.org/a.wav",
        "ais://bucket/a.wav",
        "gone.wav",
        ".",
        "..",
        "~",
        "/dev/null",
        "a" * 5000,
    ),
    *("./good.flac", "good.flac ", "GOOD.FLAC", "http:a.wav"),
)


def fuzzed_line(random: Random, audio: list[str]) -> bytes:
    """A manifest's line that may be wrong in one or two ways; now and then it is good."""
    row = dict(GOOD)
    for _ in range(random.randint(0, 2)):
        _change(row, random, audio)
    line = json.dumps(row, ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")
    return _damaged(line, random) if random.random() < 0.15 else line


def _change(row: dict[str, Any], random: Random, audio: list[str]) -> None:
    what = random.randrange(6)
    if what == 0:
        row.pop(random.choice(list(row) or ["text"]), None)
    elif what == 1:
        row["audio_filepath"] = random.choice(audio)
    elif what == 2:
        row["audio_filepath"] = random.choice(PATHS)
    elif what == 3:
        row |= {"offset": random.choice((0, 0.5, 0.99, 2.0)), "duration": random.choice((0.01, 0.5, 1.0, 3.0))}
    else:
        row[random.choice(KEYS)] = random.choice(VALUES)


def _damaged(line: bytes, random: Random) -> bytes:
    place = random.randrange(len(line))
    return random.choice(
        (
            line[:place],
            line[:place] + b"\xff" + line[place:],
            b"\xef\xbb\xbf" + line,
            b" ",
            b"[1, 2]",
            b"[" * 50_000,
            b'{"a": ' * 300 + b"1" + b"}" * 300,
            line[:-1] + b', "text": "again"}',
            line[:-1] + b', "id": ' + b"9" * 5000 + b"}",
            line[:-1] + b', "id": ' + b"[" * 40 + b"]" * 40 + b"}",
            line[:-1] + b', "padding": "' + b"x" * (1 << 21) + b'"}',
        )
    )


# consumers -----------------------------------------------------------------------------------------------------------


def load_script(name: str) -> ModuleType:
    """The module of ``examples/NAME.py``."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def consumers() -> dict[str, Consumer]:
    """What reads a manifest beside the check, up to where a model would hear the audio."""
    builder = ConversationBuilder(Prompt(**PROMPT))
    transcribe = load_script("transcribe")
    epoch = {
        "batch_size": 1,
        "force_finite": True,
        "shuffle": False,
        "num_workers": 0,
        "sample_rate": RATE,
        "shard_seed": 0,
    }

    def train(manifest: Path) -> int:
        cfg = OmegaConf.create(epoch | {"manifest_filepath": str(manifest)})
        loader = build_dataloader(cfg, ConversationDataset(builder), None, global_rank=0, world_size=1)
        return sum(len(batch.conversations) for batch in loader)

    def transcribed(manifest: Path) -> int:
        rows, lost = transcribe.manifest_rows(str(manifest), None)
        conversations = conversations_of(rows, builder)
        return len(ConversationDataset(builder).collate(conversations).audio_lengths) + 0 * lost

    def evaluated(manifest: Path) -> int:
        cfg = OmegaConf.create({"manifest": str(manifest), "channel_selector": None})
        rows = checked_rows(str(manifest), None)
        asked = [question(row, cfg, builder, number) for number, row in enumerate(rows, 1)]
        return len(ConversationDataset(builder).collate(asked).audio_lengths)

    return {"train": train, "transcribe": transcribed, "evaluate": evaluated}


class Hung(Exception):
    """A consumer took too long."""


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise `Hung` in what takes longer."""

    def stop(signum: int, frame: Any) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, stop)
    left = signal.alarm(seconds)  # of whoever counts the time of the test around this
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.alarm(left)


# the verdict ---------------------------------------------------------------------------------------------------------


def verdicts(line: bytes, folder: Path, readers: dict[str, Consumer]) -> dict[str, str]:
    """What went wrong with a line, by consumer: ``lost``, ``wrong: …`` or ``hung``; nothing where all is well.

    The line is the first of a manifest in ``folder`` whose second is good.
    """
    manifest = folder / "fuzzed.jsonl"
    second = GOOD | {"audio_filepath": SECOND}
    manifest.write_bytes(line + b"\n" + json.dumps(second).encode() + b"\n")
    try:
        with time_limit(SECONDS):
            issues = check_manifest(manifest)[1]
    except Hung:
        return {"check": "hung"}
    except Exception as error:  # whatever it is, it is not what a check may end with
        return {"check": f"wrong: {type(error).__name__}: {error}"}
    unclear = [issue for issue in issues if issue.line != 1 or not (issue.key and issue.problem and issue.remedy)]
    found = {"check": f"wrong: {unclear}"} if unclear else {}
    return found | {
        name: verdict
        for name, read in readers.items()
        if (verdict := _verdict(name, read, manifest, issues)) is not None
    }


def _verdict(name: str, read: Consumer, manifest: Path, issues: list[ManifestIssue]) -> str | None:
    if name == "transcribe":
        issues = [issue for issue in issues if (issue.key, issue.kind) not in NOT_FOR_TRANSCRIPTION]
    if name == "evaluate":
        issues = check_manifest(manifest)[1]
    try:
        with time_limit(SECONDS):
            count = read(manifest)
    except Hung:
        return "hung"
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        if not issues:
            return f"wrong: check says clean, and {name} says {told}"
        return (
            None
            if f"{manifest}:1: " in str(error) or "fuzzed.jsonl:1: " in str(error)
            else f"wrong: not named: {told}"
        )
    if not issues:
        return None if count == 2 else f"lost: {count} of 2 rows"
    if name == "transcribe":  # the other line is transcribed, and this one is named
        return None if count == 1 else f"wrong: {count} rows read, though check says {issues[0]}"
    return f"wrong: accepted, though check says {issues[0]}"


def run(rows: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Try ``rows`` fuzzed lines in every consumer.

    Returns:
        ``name``, and how many lines were ``tried``, ``lost``, ``wrong`` and ``hung``; ``examples`` are up to ten that
        went wrong.
    """
    counts, examples = {"lost": 0, "wrong": 0, "hung": 0}, []
    blocks = [(f"{seed} {start}", min(BLOCK, rows - start)) for start in range(0, rows, BLOCK)]
    for _, found in tried(_try_block, blocks, f"blocks of {BLOCK} rows"):
        for verdict, example in found:
            counts[verdict.split(":")[0]] += 1
            examples.append(example)
            tqdm.write(example, file=sys.stderr)
    return {"name": "fuzzed rows", "tried": rows, **counts, "examples": examples[:10]}


def _try_block(block: tuple[str, int]) -> list[tuple[str, str]]:
    """The verdicts on lines that went wrong, of so many of a seed, each with the line."""
    random, found = Random(block[0]), []
    with tempfile.TemporaryDirectory() as name, logging.temp_verbosity(logging.CRITICAL):
        folder = Path(name)
        audio, readers = make_audio(folder), consumers()
        for _ in range(block[1]):
            line = fuzzed_line(random, audio)
            for who, verdict in verdicts(line, folder, readers).items():
                found.append((verdict, f"{who}: {verdict[:300]} ← {line[:200]!r}"))
    return found

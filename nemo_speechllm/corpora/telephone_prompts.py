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

"""The Asterisk telephone prompts, the same ~550 in each of five languages, as NeMo manifests.

A studio voice reads them in each language. Debian packages the recordings (`asterisk-core-sounds-XX-g722`, 16 kHz) and
their transcripts (`asterisk-core-sounds-XX`).
"""

import gzip
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
from scipy.stats import theilslopes
from tqdm import tqdm

from nemo_speechllm.audio.flac import write_flac
from nemo_speechllm.manifests.manifest import write_manifest

LICENCES = {"en": "CC-BY-SA 3.0", "es": "CC-BY-SA 3.0", "fr": "CC-BY-SA 3.0", "it": "CC-BY 3.0", "ru": "CC-BY 3.0"}
LANGUAGES = tuple(LICENCES)
SPLITS = ("train", "dev", "test")
SAMPLE_RATE = 16000

_ANNOTATION = re.compile(r"[\[\]()<>]")
# An accented letter that was lost on the way to Debian: "non pu? essere".
_LOST_LETTER = re.compile(r"\?(\w|\s+[a-z])|\ufffd")
_TONES = re.compile(r"beep|beeperr|(a|de)scending-2tone|confbridge-(join|leave)|tt-monkeys|silence/\d+")
# Speech of one voice is close to `pause + rate * letters` seconds. Around the fitted line the robust standard
# deviation of log(duration) is 0.12-0.17 in every language, so a factor of two is more than four deviations off:
# another text.
_MAX_DURATION_RATIO = 2.0
_MIN_EXPECTED_SECONDS = 0.1


def sounds_package(language: str) -> str:
    """Name of the Debian package with the recordings of `language`."""
    return f"asterisk-core-sounds-{language}-g722"


def transcripts_package(language: str) -> str:
    """Name of the Debian package with the transcripts of `language`."""
    return f"asterisk-core-sounds-{language}"


def find_packages(names: Iterable[str], folder: str | Path) -> tuple[dict[str, Path], list[str]]:
    """Look for `NAME_*.deb` in `folder`: the newest file by name of each package, and the names that are not there."""
    files = {name: max(Path(folder).glob(f"{name}_*.deb"), default=None) for name in names}
    return {name: file for name, file in files.items() if file}, [name for name, file in files.items() if not file]


def download_packages(names: Sequence[str], folder: str | Path) -> None:
    """Download Debian packages by name into `folder`; apt checks them.

    Needs no root: apt's lists are kept in a private folder.

    Raises:
        RuntimeError: there is no apt-get, or it failed; the message names the remedy.
    """
    remedy = f"download {', '.join(names)} on a Debian or Ubuntu machine and pass their folder with --packages-dir"
    if not shutil.which("apt-get"):
        raise RuntimeError(f"apt-get was not found; {remedy}")
    Path(folder).mkdir(parents=True, exist_ok=True)
    # In the same file system, so that finished packages move into place in one step.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".apt-") as work:
        options = []
        for setting in ("Dir::State::lists", "Dir::Cache"):
            private = Path(work, setting.split("::")[-1].lower())
            Path(private, "partial").mkdir(parents=True)
            options += ["-o", f"{setting}={private}"]
        downloads = Path(work, "downloads")
        downloads.mkdir()
        for command in (["update"], ["download", *names]):
            done = subprocess.run(["apt-get", "-q", *options, *command], cwd=downloads, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(f"apt-get {' '.join(command)} failed: {done.stderr.strip()}\n{remedy}")
        for package in downloads.glob("*.deb"):
            os.replace(package, Path(folder, package.name))


def read_transcripts(path: str | Path) -> dict[str, list[str]]:
    """Read a `core-sounds-XX.txt.gz`: lower-case key → its distinct texts, tidied.

    A line is `key: text`; `;` starts a comment.
    """
    texts: dict[str, list[str]] = {}
    with gzip.open(path, "rt", encoding="utf-8-sig") as lines:
        for line in lines:
            if line.startswith(";") or ":" not in line:
                continue
            key, text = line.split(":", 1)
            # A line repeats its key; some texts begin or end with the dots or the quote of a sheet they were cut from.
            text = " ".join(text.removeprefix(f" {key}:").split()).strip('"').removeprefix("...").strip()
            known = texts.setdefault(key.strip().lower(), [])
            if text not in known:
                known.append(text)
    return texts


def normalize_text(text: str) -> str:
    """Return the letters and digits of `text`, lower-case, without accents, spaces and punctuation.

    They are equal for texts that sound equal.
    """
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(character for character in decomposed if character.isalnum())


def split_keys(texts: Iterable[tuple[str, str]], seed: int = 0) -> dict[str, str]:
    """Assign prompt keys to "train" (80 %), "dev" (10 %) and "test" (10 %).

    Args:
        texts: (key, text) pairs of all languages; a key may come often. No empty texts: they would tie their keys
            together.
        seed: another seed is another split.

    Returns:
        key → split. Keys that share a normalised text in any language form one group, and a group goes to one split by
        its hash: no text is in two splits, and the split of a group does not depend on the order or on the other
        groups.
    """
    parent: dict[str, str] = {}

    def root(node: str) -> str:
        while parent.setdefault(node, node) != node:
            node = parent[node]
        return node

    keys = set()
    for key, text in texts:
        keys.add(key)
        first, second = sorted((root(f"key {key}"), root(f"text {normalize_text(text)}")))
        parent[second] = first  # the smallest name is the root, so a group is named by its first key
    return {key: _split_of(root(f"key {key}"), seed) for key in sorted(keys)}


def _split_of(group: str, seed: int) -> str:
    position = int.from_bytes(hashlib.sha256(f"{seed}:{group}".encode()).digest()[:8], "big") / 2**64
    return "train" if position < 0.8 else "dev" if position < 0.9 else "test"


def implausible_durations(letters: Sequence[int], seconds: Sequence[float]) -> np.ndarray:
    """Find the clips whose duration disagrees with the length of their text.

    Args:
        letters: number of letters and digits of each text, of one voice.
        seconds: duration of each clip.

    Returns:
        float array: duration over the expected duration where it is off by more than a factor of two, else nan. The
        expected duration is a Theil-Sen line through all clips, which wrong texts hardly move (as long as they are
        fewer than 29 %). With fewer than three different lengths there is no line to judge by, and every clip is
        accepted.
    """
    lengths, taken = np.asarray(letters, float), np.asarray(seconds, float)
    if len(np.unique(lengths)) < 3:
        return np.full(len(lengths), np.nan)
    rate, pause, *_ = theilslopes(taken, lengths, method="joint")
    ratio = taken / np.maximum(pause + rate * lengths, _MIN_EXPECTED_SECONDS)
    return np.where(np.abs(np.log(ratio)) > np.log(_MAX_DURATION_RATIO), ratio, np.nan)


def decode_g722(source: str | Path, target: str | Path) -> None:
    """Decode raw G.722 into a 16 kHz mono 16-bit FLAC, which appears whole or not at all."""
    import av

    with av.open(str(source), format="g722") as container:
        frames = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
        rate = container.streams.audio[0].rate
    if rate != SAMPLE_RATE:
        raise ValueError(f"{source}: expected {SAMPLE_RATE} Hz, got {rate} Hz")
    write_flac(Path(target), np.concatenate(frames), SAMPLE_RATE)


def prepare_language(
    language: str, package: Path, texts: dict[str, list[str]], out: Path
) -> tuple[list[dict], list[dict]]:
    """Decode the clips of `package` into `out/audio/LANGUAGE`; FLACs that are there are kept.

    Args:
        language: code of the language.
        package: `.deb` with the recordings.
        texts: key → texts, from `read_transcripts`.
        out: folder that the audio paths are relative to.

    Returns:
        Manifest rows, and a `{lang, key, text, reason}` for each prompt left out.
    """
    with _extracted(package, out) as folder:
        voice = _single(folder, "usr/share/asterisk/sounds/*")
        clips = {clip.relative_to(voice).with_suffix("").as_posix().lower(): clip for clip in voice.rglob("*.g722")}
        rows, skipped = [], []
        for key in tqdm(sorted(clips.keys() | texts.keys()), desc=f"{language} ({voice.name})", unit="clip"):
            known = texts.get(key, [])
            if reason := _reason_to_skip(key, known, clips.get(key)):
                skipped.append({"lang": language, "key": key, "text": " | ".join(known), "reason": reason})
                continue
            audio = Path("audio", language, f"{key}.flac")
            if not (out / audio).exists():
                decode_g722(clips[key], out / audio)
            duration = soundfile.info(out / audio).duration
            row = {"audio_filepath": audio.as_posix(), "duration": duration, "text": known[0]}
            rows.append({**row, "lang": language, "key": key, "speaker": voice.name})
    ratios = implausible_durations(
        [len(normalize_text(row["text"])) for row in rows], [row["duration"] for row in rows]
    )
    for row, ratio in zip(rows, ratios, strict=True):
        if not np.isnan(ratio):
            reason = f"implausible duration: {ratio:.1f} times what the text takes"
            skipped.append({"lang": language, "key": row["key"], "text": row["text"], "reason": reason})
    return [row for row, ratio in zip(rows, ratios, strict=True) if np.isnan(ratio)], skipped


@contextmanager
def _extracted(package: Path, folder: Path) -> Iterator[Path]:
    """Unpack a .deb into a temporary folder inside `folder`."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".extract-") as work:
        done = subprocess.run(["dpkg-deb", "-x", str(package), work], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{package} cannot be unpacked ({done.stderr.strip()}); delete it and run again")
        yield Path(work)


def _transcripts(package: Path, out: Path) -> dict[str, list[str]]:
    with _extracted(package, out) as folder:
        return read_transcripts(_single(folder, "usr/share/doc/*/core-sounds-*.txt.gz"))


def _single(folder: Path, pattern: str) -> Path:
    found = list(folder.glob(pattern))
    if len(found) != 1:
        raise RuntimeError(f"the package has {len(found)} of {pattern}, expected one; use Debian's version 1.6.1")
    return found[0]


def _reason_to_skip(key: str, texts: list[str], clip: Path | None) -> str | None:
    if clip is None:
        return "missing audio"
    if _TONES.fullmatch(key):
        return "tone or silence"
    if not any(map(normalize_text, texts)):
        return "missing text"
    if len(texts) > 1:
        return "several texts"
    if _LOST_LETTER.search(texts[0]):
        return "damaged text"
    if _ANNOTATION.search(texts[0]):
        return "noise or annotation in the text"
    return None if clip.stat().st_size else "zero length"


def prepare_prompts(
    out: str | Path, languages: Sequence[str] = LANGUAGES, packages_dir: str | Path | None = None, seed: int = 0
) -> tuple[list[dict], list[dict]]:
    """Fetch, decode and split the prompts.

    Writes `out/{train,dev,test}_{lang}.jsonl`, FLACs under `out/audio`, and `out/skipped.jsonl`.

    Args:
        out: output folder; what is there already is reused, so a run that was stopped goes on.
        languages: some of `LANGUAGES`. The transcripts of all of them are fetched (they are small), so that the split
            is the same whichever languages are prepared.
        packages_dir: folder with the `.deb` files; None fetches them by name with apt-get into `out/packages`.
        seed: of the split.

    Returns:
        Manifest rows with a `split` each, and the rows of `skipped.jsonl`.

    Raises:
        FileNotFoundError: `packages_dir` lacks a package; the message names it.
        RuntimeError: apt-get is missing or failed, there is no dpkg-deb, or a package is damaged; the message has the
            remedy.
    """
    if not shutil.which("dpkg-deb"):
        raise RuntimeError("dpkg-deb was not found; install the package `dpkg` to unpack the .deb files")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    names = [*map(transcripts_package, LANGUAGES), *map(sounds_package, languages)]
    folder = Path(packages_dir) if packages_dir else out / "packages"
    packages, missing = find_packages(names, folder)
    if missing and packages_dir:
        raise FileNotFoundError(
            f"{folder}: no .deb of {', '.join(missing)}; put them there (`apt-get download NAME` on a Debian machine)"
        )
    if missing:
        download_packages(missing, folder)
        packages, _ = find_packages(names, folder)
    texts = {language: _transcripts(packages[transcripts_package(language)], out) for language in LANGUAGES}
    pairs = ((key, text) for known in texts.values() for key, variants in known.items() for text in variants)
    splits = split_keys(((key, text) for key, text in pairs if normalize_text(text)), seed)
    rows, skipped = [], []
    for language in languages:
        kept, dropped = prepare_language(language, packages[sounds_package(language)], texts[language], out)
        rows += kept
        skipped += dropped
    for language in languages:
        for split in SPLITS:
            chosen = (row for row in rows if row["lang"] == language and splits[row["key"]] == split)
            write_manifest(out / f"{split}_{language}.jsonl", chosen)
    write_manifest(out / "skipped.jsonl", skipped)
    return [{**row, "split": splits[row["key"]]} for row in rows], skipped


def format_summary(rows: list[dict], skipped: list[dict], languages: Sequence[str]) -> str:
    """Return clips and minutes by language and split, the licences, and how many prompts were skipped and why.

    Args:
        rows, skipped: of `prepare_prompts`.
    """
    lines = [f"\n{'':8}" + "".join(f"{split:>19}" for split in SPLITS) + "  licence"]
    for language in languages:
        cells = []
        for split in SPLITS:
            seconds = [row["duration"] for row in rows if (row["lang"], row["split"]) == (language, split)]
            cells.append(f"{len(seconds):4d} clips{sum(seconds) / 60:5.1f} min")
        lines.append(f"{language:8}" + "".join(f"{cell:>19}" for cell in cells) + f"  {LICENCES[language]}")
    reasons = Counter((row["reason"].split(":")[0], row["lang"]) for row in skipped)
    lines.append("\nskipped (skipped.jsonl has them one by one)")
    for reason in sorted({reason for reason, _ in reasons}):
        lines.append(f"  {reason}: " + ", ".join(f"{language} {reasons[reason, language]}" for language in languages))
    return "\n".join(lines)

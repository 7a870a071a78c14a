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

import gzip
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from nemo_speechllm.corpora import telephone_prompts as prompts_corpus
from nemo_speechllm.corpora.telephone_prompts import (
    decode_g722,
    download_packages,
    implausible_durations,
    normalize_text,
    prepare_prompts,
    read_transcripts,
    sounds_package,
    split_keys,
    transcripts_package,
)
from nemo_speechllm.manifests.manifest import read_manifest

ROOT = Path(__file__).parents[2]
RATE = 16000
TEXTS = {
    "en": {
        "hello": "Hello.",
        "goodbye": "Goodbye, and thank you for calling.",
        "letters/A": "the letter a",
        "vm-intro": "Please leave your message after the tone (simple tone sound plays)",
        "beep": "a simple beep",
        "lost": "It pu? be",
        "wrong": "no",
        "long": "Please enter your account number followed by the pound key.",
        "no-audio": "There is no recording of this.",
        "empty": "This recording is empty.",
    },
    "it": {
        "hello": "Ciao.",
        "goodbye": "Arrivederci, e grazie per la chiamata.",
        "letters/a": "la lettera a",
        "bye": "Ciao!",
        "long": "Digitare il proprio numero di operatore seguito dal tasto cancelletto.",
    },
    "es": {"hello": "Hola."},
    "fr": {"hello": "Bonjour.", "goodbye": "Bonjour."},
    "ru": {"hello": "Привет."},
}


def write_g722(path, seconds):
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = (8000 * np.sin(np.arange(int(seconds * RATE)) / 10)).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
    frame.sample_rate = RATE
    with av.open(str(path), "w", format="g722") as container:
        stream = container.add_stream("g722", rate=RATE, layout="mono")
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


def build_deb(name, content, folder):
    (content / "DEBIAN").mkdir(parents=True)
    control = f"Package: {name}\nVersion: 1.0\nArchitecture: all\nMaintainer: A <a@b.c>\nDescription: prompts\n"
    (content / "DEBIAN/control").write_text(control)
    subprocess.run(["dpkg-deb", "-b", content, folder / f"{name}_1.0_all.deb"], check=True, capture_output=True)


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """The recordings and transcripts of small languages as real Debian packages."""
    folder = tmp_path_factory.mktemp("packages")
    work = tmp_path_factory.mktemp("work")
    for language, texts in TEXTS.items():
        sounds, transcripts = sounds_package(language), transcripts_package(language)
        voice = work / sounds / f"usr/share/asterisk/sounds/{language}_voice"
        for key, text in texts.items():
            seconds = 5 if key == "wrong" else 0.4 + 0.07 * len(normalize_text(text))
            if key != "no-audio":
                write_g722(voice / f"{key}.g722", seconds)
        (voice / "no-text.g722").write_bytes((voice / "hello.g722").read_bytes())
        if "empty" in texts:
            (voice / "empty.g722").write_bytes(b"")
        docs = work / transcripts / "usr/share/doc" / transcripts
        docs.mkdir(parents=True)
        lines = [f"; Prompts in {language}", "", *(f"{key}: {text}" for key, text in texts.items())]
        (docs / f"core-sounds-{language}.txt.gz").write_bytes(gzip.compress("\n".join(lines).encode("utf-8-sig")))
        build_deb(sounds, work / sounds, folder)
        build_deb(transcripts, work / transcripts, folder)
    return folder


def manifest_rows(out, language):
    return [row for split in ("train", "dev", "test") for row in read_manifest(out / f"{split}_{language}.jsonl")]


def test_prompts_become_manifests(packages, tmp_path):
    rows, skipped = prepare_prompts(tmp_path, ["en", "it"], packages)
    english = {row["key"]: row for row in manifest_rows(tmp_path, "en")}
    assert english.keys() == {"hello", "goodbye", "letters/a", "long"}
    assert english["letters/a"]["text"] == "the letter a"
    assert english["hello"]["speaker"] == "en_voice" and english["hello"]["lang"] == "en"
    audio = soundfile.info(tmp_path / english["hello"]["audio_filepath"])
    assert (audio.samplerate, audio.channels, audio.format) == (RATE, 1, "FLAC")
    assert audio.duration == english["hello"]["duration"] == pytest.approx(0.75, abs=0.01)
    assert {row["key"] for row in manifest_rows(tmp_path, "it")} == {"hello", "bye", "goodbye", "letters/a", "long"}
    assert len(rows) == 9

    reasons = {row["key"]: row["reason"].split(":")[0] for row in skipped if row["lang"] == "en"}
    assert reasons == {
        "vm-intro": "noise or annotation in the text",
        "beep": "tone or silence",
        "lost": "damaged text",
        "wrong": "implausible duration",
        "no-audio": "missing audio",
        "no-text": "missing text",
        "empty": "zero length",
    }
    assert read_manifest(tmp_path / "skipped.jsonl") == skipped


def test_a_second_run_decodes_only_what_is_missing(packages, tmp_path, monkeypatch):
    prepare_prompts(tmp_path, ["en"], packages)
    (tmp_path / "audio/en/hello.flac").unlink()
    before = {path: path.read_bytes() for path in tmp_path.glob("*.jsonl")}
    decoded = []
    monkeypatch.setattr(
        prompts_corpus, "decode_g722", lambda *paths: (decoded.append(paths[1].name), decode_g722(*paths))
    )
    prepare_prompts(tmp_path, ["en"], packages)
    assert decoded == ["hello.flac"]
    assert {path: path.read_bytes() for path in tmp_path.glob("*.jsonl")} == before
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.endswith("jsonl")) == ["audio"]


def test_the_split_does_not_depend_on_the_languages_prepared(packages, tmp_path):
    together, _ = prepare_prompts(tmp_path / "all", ["en", "it", "fr"], packages)
    alone, _ = prepare_prompts(tmp_path / "en", ["en"], packages)
    splits = {row["key"]: row["split"] for row in together}
    assert alone and all(row["split"] == splits[row["key"]] for row in alone)
    assert splits["hello"] == splits["bye"] == splits["goodbye"]  # one Italian text, one French text


def test_a_missing_package_is_named(packages, tmp_path):
    for package in packages.glob("*.deb"):
        if "-fr" not in package.name:
            shutil.copy(package, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no \.deb of asterisk-core-sounds-fr;"):
        prepare_prompts(tmp_path / "out", ["en"], tmp_path)


def test_a_damaged_package_is_named(packages, tmp_path):
    for package in packages.glob("*.deb"):
        content = package.read_bytes()
        (tmp_path / package.name).write_bytes(content[: len(content) // 2] if "en-g722" in package.name else content)
    with pytest.raises(
        RuntimeError, match="(?s)asterisk-core-sounds-en-g722_1.0_all.deb cannot be unpacked .*; delete it"
    ):
        prepare_prompts(tmp_path / "out", ["en"], tmp_path)
    assert list((tmp_path / "out").iterdir()) == []


def test_without_apt_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="apt-get was not found.*--packages-dir"):
        download_packages(["some-package"], tmp_path)


def test_a_failing_apt_is_reported(tmp_path, monkeypatch):
    apt = tmp_path / "apt-get"
    apt.write_text("#!/bin/sh\necho 'E: no network' >&2\nexit 100\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(RuntimeError, match=r"apt-get update failed: E: no network\n.*--packages-dir"):
        download_packages(["some-package"], tmp_path / "packages")
    assert list((tmp_path / "packages").iterdir()) == []


def test_transcripts(tmp_path):
    path = tmp_path / "core-sounds-xx.txt.gz"
    lines = [
        "; comment",
        "",
        'vm-INBOX:  New   "ones"',
        "a: a: twice",
        "b: ...begins with dots",
        "c: one",
        "c: two",
        "d:",
    ]
    path.write_bytes(gzip.compress("\n".join(lines).encode("utf-8-sig")))
    assert read_transcripts(path) == {
        "vm-inbox": ['New "ones'],
        "a": ["twice"],
        "b": ["begins with dots"],
        "c": ["one", "two"],
        "d": [""],
    }


def test_no_text_is_in_two_splits():
    # Text i of the first language is shared by keys 2i and 2i+1, of the second by 2i+1 and 2i+2 in every block of
    # eight.
    first = [(f"k{number:03d}", f"Uno, {number // 2}") for number in range(800)]
    second = [(f"k{number:03d}", f"due {(number + 1) // 2} {number // 8}") for number in range(800)]
    splits = split_keys(first + second)
    assert all(len({splits[f"k{8 * block + i:03d}"] for i in range(8)}) == 1 for block in range(100))
    assert splits == split_keys(reversed(first + second))
    assert splits != split_keys(first + second, seed=1)
    shares = [list(splits.values()).count(split) / len(splits) for split in ("train", "dev", "test")]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.1)


def test_texts_that_sound_equal_are_equal():
    assert normalize_text("Número: UNO!") == normalize_text("numero uno")
    assert normalize_text("Straße") == "strasse"
    assert normalize_text("[...]") == ""


def test_wrong_texts_do_not_move_the_line():
    letters = np.arange(1, 101)
    seconds = 0.5 + 0.07 * letters
    seconds[::10] *= 4
    found = implausible_durations(letters, seconds)
    assert np.flatnonzero(~np.isnan(found)).tolist() == list(range(0, 100, 10))
    assert np.isnan(implausible_durations([3, 3], [1.0, 9.0])).all()


def test_cli(packages, tmp_path):
    command = [
        sys.executable,
        str(ROOT / "examples/data/prepare_prompts.py"),
        "--out",
        str(tmp_path),
        "--langs",
        "en",
        "it",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, "--packages-dir", packages], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^en .*clips.*CC-BY-SA 3.0$", done.stdout, re.MULTILINE)
    assert "implausible duration: en 1, it 0" in done.stdout
    failed = subprocess.run([*command, "--packages-dir", tmp_path], env=environment, capture_output=True, text=True)
    assert failed.returncode == 1 and "error: " in failed.stderr and "Traceback" not in failed.stderr

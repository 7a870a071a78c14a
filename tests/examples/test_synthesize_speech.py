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

"""The script that makes synthetic speech: planning, held-out texts, and going on after a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile

from nemo_speechllm.corpora.kokoro import INSTALL, is_installed

SCRIPT = Path(__file__).parents[2] / "examples" / "data" / "synthesize_speech.py"

# A program with the arguments of SVOX Pico that writes half a second of a buzz
PICO = f"""#!{sys.executable}
import sys, wave
with wave.open(sys.argv[4], "wb") as file:
    file.setparams((1, 2, 16000, 8000, "NONE", ""))
    file.writeframes(bytes(100) + bytes(range(1, 101)) * 159)
"""


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("data/synthesize_speech")


@pytest.fixture
def command(tmp_path: Path, monkeypatch) -> list[str]:
    """The script in Italian, with a voice that is there on every machine."""
    program = tmp_path / "bin" / "pico2wave"
    program.parent.mkdir()
    program.write_text(PICO)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    sizes = ["--open", "0", "--templates", "60", "--dev", "2", "--test", "2", "--workers", "1"]
    return [sys.executable, str(SCRIPT), "--lang", "it", "--out", str(tmp_path / "out"), *sizes]


def rows(manifest: Path) -> list[dict]:
    return [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]


def run(command: list[str]) -> subprocess.CompletedProcess:
    return subprocess.run(command, capture_output=True, text=True)


def test_the_plan_holds_texts_out_and_the_kinds_take_turns(script):
    kinds = [[f"a{i}" for i in range(12)], [f"b{i}" for i in range(22)]]
    jobs = script.plan(kinds, {"dev": 1, "test": 1, "train": -1})
    texts = {split: [text for _, _, text in clips] for split, clips in jobs.items()}
    assert (texts["dev"], texts["test"]) == (["a0", "b0"], ["a1", "b1"])
    assert texts["train"][:6] == ["b2", "a2", "b3", "b4", "a3", "b5"]
    assert sorted(sum(texts.values(), [])) == sorted(sum(kinds, []))


def test_commands_are_in_small_letters_and_drawn_once(script, tmp_path, monkeypatch):
    wanted = ["--open", "0", "--templates", "0", "--commands", "300", "--dev", "9", "--test", "9"]
    monkeypatch.setattr(
        sys, "argv", ["synthesize_speech.py", "--out", str(tmp_path), "--speakers", "9", "--warped", *wanted]
    )
    monkeypatch.setattr(script, "missing_voices", lambda args: [])
    *others, commands = script.gather_texts(script.parse_arguments())
    assert others == [[], []] and len(set(commands)) == len(commands) == 318
    assert all(text == text.lower() and text.replace(" ", "").isalpha() for text in commands)


def test_a_share_of_the_commands_is_said_word_by_word(script):
    texts = [f"turn left {number}" for number in range(400)]
    readings = script.word_by_word(texts, 0, 0.25)
    assert 60 < len(readings) < 140 and readings == script.word_by_word(texts, 0, 0.25)
    assert all(reading == f"turn. left. {text.split()[-1]}." for text, reading in readings.items())
    assert not script.word_by_word(texts, 0, 0.0) and len(script.word_by_word(texts, 0, 1.0)) == 400


def test_a_larger_plan_keeps_the_clips_of_a_smaller_one(script):
    kinds = [[f"{kind}{i}" for i in range(50)] for kind in "abc"]
    sizes = {"dev": 2, "test": 2, "train": -1}
    small, large = (script.plan([kind[:n] for kind in kinds], sizes, 0, 0.2) for n in (10, 50))
    assert small["dev"] == large["dev"] and small["test"] == large["test"]
    assert set(small["train"]) < set(large["train"])


def test_a_share_of_the_clips_is_silent_in_every_split(script):
    kinds = [[f"{kind}{i}" for i in range(3000)] for kind in "abc"]
    jobs = script.plan(kinds, {"dev": 500, "test": 500, "train": -1}, 0, 0.04)
    for clips in jobs.values():
        assert 0.03 < sum(not text for _, _, text in clips) / len(clips) < 0.05
    assert len({name for clips in jobs.values() for _, name, _ in clips}) == 9000
    assert all(text for clips in script.plan(kinds, {"train": -1}).values() for _, _, text in clips)


def test_excluded_texts_and_phrases_are_not_spoken(script, tmp_path):
    manifest, phrases = tmp_path / "test.jsonl", tmp_path / "menu.txt"
    manifest.write_text(
        '{"audio_filepath": "a.flac", "text": "Hold on!"}\n{"audio_filepath": "b.flac", "slots": {}}\n'
    )
    phrases.write_text("green tea\nwater\n")
    texts, multi_word = script.read_excluded([manifest, phrases])
    assert texts == {"hold on"}
    spoken = script.without(["Green tea, please.", "A green teapot.", "Water."], multi_word)
    assert list(spoken) == ["A green teapot.", "Water."]


def test_a_killed_run_goes_on_and_keeps_what_it_has(command, tmp_path):
    audio = tmp_path / "out" / "audio"
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        while len(list(audio.glob("*.flac"))) < 8 and process.poll() is None:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
    kept = {path: path.stat().st_mtime_ns for path in audio.glob("*.flac")}
    assert 8 <= len(kept) < 64
    assert all(soundfile.info(path).duration > 0.3 for path in kept)
    (audio / ".torn.flac.1.part").write_bytes(b"half")

    done = run(command)
    assert (done.returncode, done.stdout.count("clips")) == (0, 3), done.stderr
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    made = {name: rows(tmp_path / "out" / f"{name}.jsonl") for name in ("dev", "test", "train")}
    assert {name: len(lines) for name, lines in made.items()} == {"dev": 2, "test": 2, "train": 60}
    assert len({row["text"] for lines in made.values() for row in lines}) == 64
    assert {path.name for path in audio.iterdir()} == {
        Path(row["audio_filepath"]).name for lines in made.values() for row in lines
    }

    other = run([*command, "--seed", "1"])
    assert other.returncode == 1
    assert "speech made of something else (seed was 0, is 1)" in other.stderr.splitlines()[-1]


def test_warped_speakers_of_a_language_are_many_in_many_places(command, tmp_path):
    done = run([*command, "--warped", "--speakers", "200"])
    assert done.returncode == 0, done.stderr
    made = {name: rows(tmp_path / "out" / f"{name}.jsonl") for name in ("dev", "test", "train")}
    speakers = {name: {row["speaker"] for row in lines if row["text"]} for name, lines in made.items()}
    assert len(speakers["train"]) > 40 and not speakers["train"] & (speakers["dev"] | speakers["test"])
    assert len({row["noise"] for row in made["train"]}) > 4 and len({row["band"] for row in made["train"]}) > 3

    own = run(command)
    assert "speech made of something else (speakers was 200, is 0; warped was True, is not set)" in own.stderr


@pytest.mark.parametrize(
    "arguments, cause",
    [
        (
            ["--lang", "ru", "--speakers", "9"],
            "Kokoro's voices do not speak ru; add --warped, or leave --speakers out",
        ),
        (["--lang", "it", "--warped"], "--warped needs --speakers, how many there are"),
        (["--lang", "it", "--requests", "9"], "requests and commands are there in English only; leave"),
        (["--lang", "it", "--commands", "9"], "requests and commands are there in English only; leave"),
        pytest.param(
            ["--speakers", "9"], INSTALL, marks=pytest.mark.skipif(is_installed(), reason="nothing is missing")
        ),
    ],
)
def test_what_is_missing_or_cannot_be_had_is_named(script, arguments, cause, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["synthesize_speech.py", "--out", str(tmp_path / "out"), *arguments])
    with pytest.raises(SystemExit):
        script.parse_arguments()
    assert cause in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_too_few_sentences_say_what_to_add(script, command, tmp_path, monkeypatch):
    text = tmp_path / "text.txt"
    text.write_text("La casa è bella. Il mare è blu.\n", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", [*command[1:], "--open", "9", "--text", str(text)])
    with pytest.raises(ValueError, match="^2 usable sentences found, 13 wanted: add --text or --debian-text$"):
        script.gather_texts(script.parse_arguments())

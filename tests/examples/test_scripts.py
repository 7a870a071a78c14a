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

"""The scripts of ``examples/`` on a tiny SALM: what they write, how they resume, and what they say of bad input."""

import html
import importlib.util
import json
import logging
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest
import soundfile
import torch
from nemo.collections.asr.models import ASRModel
from omegaconf import OmegaConf

from nemo_speechllm.checkpointing.errors import CheckpointError
from nemo_speechllm.command_line import exit_status
from nemo_speechllm.data.conversation import AudioError
from nemo_speechllm.manifests.manifest import read_manifest
from nemo_speechllm.models import SALM, load_model
from nemo_speechllm.modules.fingerprint import state_digest
from tests.tiny_models import with_blanks

ROOT = Path(__file__).parents[2]


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name.replace("/", "_"), ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call(name: str, **arguments) -> None:
    """The script's ``main`` with the arguments its command line would have."""
    module = script(name)
    schema = getattr(module, f"{name.capitalize()}Arguments")
    module.main(OmegaConf.merge(OmegaConf.structured(schema), arguments))


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# ---------------------------------------------------------------------------------------------------------- transcribe


def test_transcribe_manifest(tiny_nemo, make_manifest, tmp_path):
    manifest, output = make_manifest(), tmp_path / "out" / "predictions.jsonl"
    call("transcribe", model=tiny_nemo, dataset_manifest=str(manifest), output_filename=str(output), batch_size=3)
    rows, expected = read_manifest(output, locate_audio=True), load_model(tiny_nemo).transcribe(str(manifest))
    assert [row["pred_text"] for row in rows] == expected
    assert [row["text"] for row in rows] == [row["text"] for row in read_manifest(manifest)]
    assert os.listdir(output.parent) == [output.name]


def test_transcribe_folder_and_file_print_the_transcripts(tiny_nemo, make_manifest, tmp_path, capsys):
    make_manifest((0.5, 0.7))
    call("transcribe", model=tiny_nemo, audio_dir=str(tmp_path))
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith(str(tmp_path))]
    assert len(printed) == len(list(tmp_path.rglob("*.flac")))
    call("transcribe", model=tiny_nemo, audio=str(tmp_path / "manifest-0.flac"), keywords=["ada"], instruction="Say.")
    assert f"{tmp_path / 'manifest-0.flac'}: " in capsys.readouterr().out


def test_transcribe_reads_keywords_from_a_file(tiny_nemo, make_manifest, tmp_path, capsys):
    make_manifest((0.5,))
    (tmp_path / "names.txt").write_text("Ada Lovelace\nBoston\n")
    arguments = dict(model=tiny_nemo, audio=str(tmp_path / "manifest-0.flac"))
    call("transcribe", **arguments, keywords=["Ada Lovelace", "Boston"])
    expected = capsys.readouterr().out.splitlines()[-1]
    call("transcribe", **arguments, keywords_file=str(tmp_path / "names.txt"))
    assert capsys.readouterr().out.splitlines()[-1] == expected
    with pytest.raises(ValueError, match="keywords= and keywords_file= are two ways"):
        call("transcribe", **arguments, keywords_file="unread.txt", keywords=["Ada"])


@pytest.fixture
def tiny_ctc_nemo(make_ctc_prompted, make_audio, tmp_path) -> str:
    """Path of a tiny CTC-prompted LLM that answers what its CTC hears."""
    model = make_ctc_prompted(generation={"decoder": "ctc"})
    with_blanks(model, make_audio(4.0)).save_to(tmp_path / "model" / "ctc.nemo")
    return str(tmp_path / "model" / "ctc.nemo")


def test_transcribe_with_timestamps_writes_what_nemo_s_script_does(tiny_ctc_nemo, make_manifest, tmp_path):
    manifest, output = make_manifest((1.0, 1.5)), tmp_path / "out.jsonl"
    arguments = dict(model=tiny_ctc_nemo, dataset_manifest=str(manifest), output_filename=str(output))
    call("transcribe", **arguments, timestamps=True)
    hypotheses = load_model(tiny_ctc_nemo).transcribe(str(manifest), timestamps=True)
    for row, hypothesis in zip(lines(output), hypotheses, strict=True):
        assert (row["pred_text"], row["word"]) == (hypothesis.text, hypothesis.timestamp["word"])
        assert row["segment"] == hypothesis.timestamp["segment"] and row["word"]
    call("transcribe", **arguments)
    assert [row["pred_text"] for row in lines(output)] == [hypothesis.text for hypothesis in hypotheses]
    assert not any("word" in row for row in lines(output))


def test_transcribe_with_confidence_marks_doubtful_words(tiny_ctc_nemo, make_manifest, tmp_path, capsys):
    manifest, output = make_manifest((1.5,)), tmp_path / "out.jsonl"
    arguments = dict(model=tiny_ctc_nemo, dataset_manifest=str(manifest), confidence=True)
    call("transcribe", **arguments, output_filename=str(output))
    (hypothesis,) = load_model(tiny_ctc_nemo).transcribe(str(manifest), confidence=True)
    (row,) = lines(output)
    assert row["word_confidence"] == pytest.approx(hypothesis.word_confidence)
    capsys.readouterr()
    call("transcribe", **arguments)
    words = zip(hypothesis.text.split(), hypothesis.word_confidence, strict=True)
    expected = " ".join(f"[{word}]" if confidence < 0.5 else word for word, confidence in words)
    assert "[" in expected and capsys.readouterr().out.endswith(f": {expected}\n")


def test_transcribe_writes_subtitles_and_ctm_by_the_suffix(tiny_ctc_nemo, make_manifest, tmp_path, capsys):
    make_manifest((1.0, 1.5))
    audio = [str(tmp_path / f"manifest-{i}.flac") for i in (0, 1)]
    hypotheses = load_model(tiny_ctc_nemo).transcribe(audio, timestamps=True)
    call("transcribe", model=tiny_ctc_nemo, audio=audio, output_filename=str(tmp_path / "words.ctm"))
    rows = [line.split() for line in (tmp_path / "words.ctm").read_text(encoding="utf-8").splitlines()]
    assert [(row[0], row[4], float(row[2])) for row in rows] == [
        (f"manifest-{i}", word["word"], pytest.approx(word["start"], abs=0.006))
        for i, hypothesis in enumerate(hypotheses)
        for word in hypothesis.timestamp["word"]
    ]
    for suffix in ("srt", "vtt"):
        path = tmp_path / f"one.{suffix}"
        call("transcribe", model=tiny_ctc_nemo, audio=audio[1], output_filename=str(path))
        shown = [
            line for line in path.read_text(encoding="utf-8").splitlines() if not re.match(r"\d*$|WEBVTT|.*-->", line)
        ]
        assert " ".join(shown).split() == html.escape(hypotheses[1].text, quote=False).split()
    capsys.readouterr()
    call("transcribe", model=tiny_ctc_nemo, audio=audio[1], timestamps=True)
    (segment, *_) = hypotheses[1].timestamp["segment"]
    times = f"[{segment['start']:.2f} - {segment['end']:.2f}]"
    assert f"{audio[1]} {times}: {segment['segment']}" in capsys.readouterr().out


def test_transcribe_prints_a_long_recording_piece_by_piece(make_ctc_prompted, make_audio, tmp_path, capsys):
    model = make_ctc_prompted(generation={"decoder": "ctc", "max_audio_seconds": 2.0})
    with_blanks(model, make_audio(4.0)).save_to(tmp_path / "ctc.nemo")
    for name, seconds in (("long", 7.0), ("short", 1.5)):
        soundfile.write(tmp_path / f"{name}.flac", make_audio(seconds), 16000)
    audio = [str(tmp_path / "long.flac"), str(tmp_path / "short.flac")]
    arguments = dict(model=str(tmp_path / "ctc.nemo"), audio=audio, batch_size=2)
    capsys.readouterr()
    call("transcribe", **arguments)
    *pieces, short = capsys.readouterr().out.splitlines()
    long, expected = model.transcribe(audio, verbose=False)
    assert short == f"{audio[1]}: {expected}" and len(pieces) > 3
    found = [re.fullmatch(rf"{audio[0]} \[(\d+\.\d\d) - (\d+\.\d\d)\]: (.*)", piece).groups() for piece in pieces]
    assert [start for start, _, _ in found] == ["0.00", *(end for _, end, _ in found[:-1])] and found[-1][1] == "7.00"
    assert " ".join(text for _, _, text in found if text) == long
    call("transcribe", **arguments, output_filename=str(tmp_path / "out.jsonl"))
    assert [row["pred_text"] for row in lines(tmp_path / "out.jsonl")] == [long, expected]


def test_transcribe_counts_the_times_of_a_part_from_the_beginning_of_its_recording(
    tiny_ctc_nemo, make_manifest, tmp_path
):
    make_manifest((3.0,), "whole.jsonl")
    parts = [{"audio_filepath": "whole-0.flac", "offset": offset, "duration": 1.0} for offset in (1.5, 0.0)]
    (tmp_path / "parts.jsonl").write_text("".join(json.dumps(part) + "\n" for part in parts))
    hypotheses = load_model(tiny_ctc_nemo).transcribe(str(tmp_path / "parts.jsonl"), timestamps=True)
    call(
        "transcribe",
        model=tiny_ctc_nemo,
        dataset_manifest=str(tmp_path / "parts.jsonl"),
        output_filename=str(tmp_path / "words.ctm"),
    )
    starts = [float(line.split()[2]) for line in (tmp_path / "words.ctm").read_text(encoding="utf-8").splitlines()]
    late, early = ([word["start"] for word in hypothesis.timestamp["word"]] for hypothesis in hypotheses)
    assert late and early and starts == pytest.approx([*early, *(1.5 + start for start in late)], abs=0.006)


def test_transcribe_names_what_could_be_given_no_times(tiny_ctc_nemo, make_manifest, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("nemo_logger"), "propagate", True)
    make_manifest((0.1,))
    arguments = dict(model=tiny_ctc_nemo, audio=str(tmp_path / "manifest-0.flac"), decoder="llm")
    with pytest.raises(SystemExit, match="the words of 1 of 1 transcripts could be given no times; the warnings"):
        call("transcribe", **arguments, output_filename=str(tmp_path / "out.jsonl"), timestamps=True)
    assert "have no times: CTC cannot read so much text in so little audio" in caplog.text
    assert lines(tmp_path / "out.jsonl")[0]["word"] == []


def test_transcribe_refuses_subtitles_of_several_recordings_before_any_work(make_manifest, tmp_path):
    make_manifest((0.2, 0.3))
    with pytest.raises(ValueError, match=r"talk.srt: subtitles are of one recording.*\.ctm or \.jsonl"):
        call("transcribe", model="unread.nemo", audio_dir=str(tmp_path), output_filename=str(tmp_path / "talk.srt"))
    assert not (tmp_path / "talk.srt").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give one of audio=, audio_dir= or dataset_manifest=; got none"),
        ({"audio": "a.wav", "audio_dir": "b"}, r"got \['audio', 'audio_dir'\]"),
        ({"audio_dir": ""}, "audio_dir= is empty"),
        ({"audio": []}, "audio= is empty"),
        ({"audio": ""}, "audio= is empty"),
        ({"dataset_manifest": ""}, "dataset_manifest= is empty"),
        ({"audio_dir": "empty"}, "audio_dir=empty holds no audio file"),
        ({"dataset_manifest": "bad.jsonl"}, "bad.jsonl:2: audio_filepath: no such file: gone.wav"),
        ({"dataset_manifest": "keyless.jsonl"}, "keyless.jsonl:1: audio_filepath: the line names no audio"),
    ],
)
def test_transcribe_refuses(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "here.wav").touch()
    (tmp_path / "bad.jsonl").write_text('{"audio_filepath": "here.wav"}\n{"audio_filepath": "gone.wav"}\n')
    (tmp_path / "keyless.jsonl").write_text("{}\n")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        call("transcribe", model="unread.nemo", **arguments)


@pytest.mark.parametrize(
    ("arguments", "output", "message"),
    [
        ({"audio": "here.wav"}, "./here.wav", "here.wav is what is read"),
        ({"audio": ["other.wav", "here.wav"]}, "link.jsonl", "link.jsonl is what is read"),
        ({"audio_dir": "."}, "here.wav", "here.wav is what is read"),
        ({"dataset_manifest": "m.jsonl"}, "m.jsonl", "m.jsonl is what is read"),
        ({"dataset_manifest": "m.jsonl"}, "here.wav", "here.wav is what is read"),
        ({"audio": "here.wav"}, "folder", "folder is a folder; give the name of a file"),
        ({"audio": "here.wav"}, "m.jsonl/out.jsonl", "m.jsonl is no folder; give another place"),
        ({"audio": "here.wav"}, "/proc/out.jsonl", "no file can be written in /proc"),
    ],
)
def test_transcribe_refuses_an_output_before_any_work(arguments, output, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "here.wav").write_text("audio")
    (tmp_path / "link.jsonl").symlink_to("here.wav")
    (tmp_path / "m.jsonl").write_text('{"audio_filepath": "here.wav"}\n')
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises((ValueError, OSError), match=message):
        call("transcribe", model="unread.nemo", output_filename=output, **arguments)
    assert sorted(tmp_path.rglob("*")) == before and (tmp_path / "here.wav").read_text() == "audio"


def test_transcribe_files_named_by_digits(tiny_nemo, make_audio, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    soundfile.write("2024", make_audio(0.5), 16000, format="WAV")
    for audio in (2024, [2024]):
        call("transcribe", model=tiny_nemo, audio=audio)
        assert capsys.readouterr().out.startswith("2024: ")


def test_transcribe_of_a_bad_audio_leaves_no_output(tiny_nemo, tmp_path):
    (tmp_path / "bad.wav").write_text("no audio")
    output = tmp_path / "out.jsonl"
    with pytest.raises(AudioError, match="bad.wav"):
        call("transcribe", model=tiny_nemo, audio=str(tmp_path / "bad.wav"), output_filename=str(output))
    with pytest.raises(FileNotFoundError, match="gone.wav does not exist"):
        call("transcribe", model=tiny_nemo, audio=str(tmp_path / "gone.wav"), output_filename=str(output))
    assert not output.exists()


def test_transcribe_several_files(tiny_nemo, make_manifest, tmp_path):
    make_manifest((0.5, 0.7))
    files, output = [str(tmp_path / f"manifest-{i}.flac") for i in (1, 0)], tmp_path / "out.jsonl"
    call("transcribe", model=tiny_nemo, audio=files, output_filename=str(output))
    rows = read_manifest(output, locate_audio=True)
    assert [row["audio_filepath"] for row in rows] == files
    assert [row["pred_text"] for row in rows] == load_model(tiny_nemo).transcribe(files)


def test_transcribe_folder_leaves_out_what_cannot_be_read(tiny_nemo, make_manifest, tmp_path):
    make_manifest((0.5, 0.7), "m.jsonl")
    folder, output = tmp_path / "mixed", tmp_path / "out.jsonl"
    folder.mkdir()
    (folder / "bad.wav").write_text("no audio")
    with pytest.raises(SystemExit, match="1 of 1 files could not be read"):
        call("transcribe", model=tiny_nemo, audio_dir=str(folder), output_filename=str(output))
    assert not output.exists()
    for name in ("m-0.flac", "m-1.flac"):
        (tmp_path / name).rename(folder / name)
    with pytest.raises(SystemExit, match="1 of 3 files could not be read"):
        call("transcribe", model=tiny_nemo, audio_dir=str(folder), output_filename=str(output))
    rows = read_manifest(output, locate_audio=True)
    assert [Path(row["audio_filepath"]).name for row in rows] == ["m-0.flac", "m-1.flac"]
    assert [row["pred_text"] for row in rows] == load_model(tiny_nemo).transcribe([r["audio_filepath"] for r in rows])


def test_transcribe_folder_follows_links_and_names_what_is_no_file(make_manifest, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("nemo.utils.logging.warning", lambda message, **_: caplog.records.append(message))
    make_manifest((0.5,), "m.jsonl")
    folder, other = tmp_path / "folder", tmp_path / "other"
    (folder / "sub").mkdir(parents=True)
    other.mkdir()
    (tmp_path / "m-0.flac").rename(other / "m-0.flac")
    (folder / "linked").symlink_to(other)
    (folder / "a.flac").symlink_to(other / "m-0.flac")
    (folder / "sub" / "up").symlink_to(folder)
    (other / "back").symlink_to(folder)
    (folder / "dangling.wav").symlink_to("gone.wav")
    (folder / "loop.wav").symlink_to("loop.wav")
    os.mkfifo(folder / "pipe.wav")
    rows, lost = script("transcribe").folder_rows(str(folder), None)
    assert [row["audio_filepath"] for row in rows] == [str(folder / "a.flac"), str(folder / "linked" / "m-0.flac")]
    assert lost == 3
    for name in ("dangling.wav", "loop.wav", "pipe.wav"):
        assert f"left out: {folder / name} is no audio file" in str(caplog.records)


def test_transcribe_folder_reads_what_phones_and_browsers_record(tiny_nemo, make_audio, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("nemo.utils.logging.warning", lambda message, **_: caplog.records.append(message))
    folder, output = tmp_path / "phones", tmp_path / "out.jsonl"
    folder.mkdir()
    for name, codec, rate in (("a.M4A", "aac", 16000), ("b.webm", "libopus", 48000), ("c.mp4", "aac", 16000)):
        write_phone_audio(folder / name, codec, rate, make_audio(0.5))
    soundfile.write(folder / "d.oga", make_audio(0.5), 16000, format="OGG")
    (folder / "notes.txt").write_text("no audio, and not called so")
    call("transcribe", model=tiny_nemo, audio_dir=str(folder), output_filename=str(output))
    assert [Path(row["audio_filepath"]).name for row in lines(output)] == ["a.M4A", "b.webm", "c.mp4", "d.oga"]
    assert "1 files are no audio by their names, and not read: 1 .txt" in str(caplog.records)


def write_phone_audio(path: Path, codec: str, rate: int, samples: np.ndarray) -> None:
    with av.open(str(path), "w", format={".M4A": "ipod"}.get(path.suffix)) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = 16000
        for part in av.AudioResampler(format=stream.format, layout="mono", rate=rate).resample(frame):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))


def test_transcribe_manifest_names_the_lines_it_leaves_out(tiny_nemo, make_manifest, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("nemo.utils.logging.warning", lambda message, **_: caplog.records.append(message))
    rows = [{"offset": 10.0}, {"offset": None, "keywords": None}, {"snr": "loud"}, {}]
    manifest, output = make_manifest((0.5, 0.6, 0.7, 0.8), rows=rows), tmp_path / "out.jsonl"
    with pytest.raises(SystemExit, match="2 of 4 lines could not be read"):
        call("transcribe", model=tiny_nemo, dataset_manifest=str(manifest), output_filename=str(output))
    assert [row["duration"] for row in lines(output)] == [0.6, 0.8] and "manifest_line" not in lines(output)[0]
    told = str(caplog.records)
    assert (
        f"left out: {manifest}:1: duration: the part of" in told
        and f"left out: {manifest}:3: snr: expected a number" in told
    )


def test_transcribe_leaves_out_what_the_model_has_no_instruction_for(
    tiny_nemo, make_manifest, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr("nemo.utils.logging.warning", lambda message, **_: caplog.records.append(message))
    manifest = str(make_manifest((0.5, 0.6, 0.7), rows=[{}, {"task": "sing"}, {"task": "asr"}]))
    given = {"model": tiny_nemo, "dataset_manifest": manifest, "output_filename": str(tmp_path / "out.jsonl")}
    with pytest.raises(SystemExit, match="^1 of 3 lines ask what the model has no instruction for; the warnings"):
        call("transcribe", **given)
    assert [row["duration"] for row in lines(tmp_path / "out.jsonl")] == [0.5, 0.7]
    assert f"left out: {manifest}:2: task 'sing' has no instruction; known are" in str(caplog.records)
    call("transcribe", **given, instruction="Sing it.")  # which is asked in the place of the line's
    assert len(lines(tmp_path / "out.jsonl")) == 3
    alone = str(make_manifest((0.5,), "alone.jsonl", rows=[{"task": "sing"}]))
    with pytest.raises(ValueError, match="alone.jsonl:1: task 'sing' has no instruction"):
        call("transcribe", **given | {"dataset_manifest": alone})


# ------------------------------------------------------------------------------------------------------------ evaluate


@pytest.mark.slow
def test_evaluate_killed_on_the_command_line(tiny_nemo, make_manifest, tmp_path):
    manifest, output = make_manifest((0.5,) * 60), tmp_path / "evaluation"
    command = [sys.executable, str(ROOT / "examples/evaluate.py"), f"model={tiny_nemo}", f"manifest={manifest}"]
    command += [f"output_dir={output}", "batch_size=1"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (output / "predictions.jsonl").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = (output / "predictions.jsonl").read_text()
    assert 0 < len(before.splitlines()) < 60 and not (output / "metrics.json").exists()

    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert (output / "predictions.jsonl").read_text().startswith(before[: before.rfind("\n") + 1])
    assert json.loads((output / "metrics.json").read_text())["utterances"] == 60
    assert "WER %" in finished.stdout


# ---------------------------------------------------------------------------------------------------------------- chat


@pytest.mark.parametrize("n_audios", [0, 1, 2])
def test_chat_answers_one_prompt(n_audios, tiny_nemo, make_manifest, tmp_path, capsys):
    make_manifest((0.5, 0.9))
    files = [str(tmp_path / f"manifest-{i}.flac") for i in range(n_audios)]
    call("chat", model=tiny_nemo, audio=files[0] if n_audios == 1 else files, prompt="What is said?")
    assert capsys.readouterr().out.strip()


def test_chat_keeps_the_conversation(tiny_nemo, monkeypatch, capsys):
    typed = iter(["Hello.", "And then?", ""])
    asked = []
    generate = SALM.generate
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    monkeypatch.setattr(SALM, "generate", lambda self, c, *rest: asked.append(c[0]) or generate(self, c, *rest))
    call("chat", model=tiny_nemo, max_new_tokens=3)
    assert [turn.role for turn in asked[1].turns[:3]] == ["user", "assistant", "user"]
    assert asked[1].turns[2].text == "And then?"


def test_chat_refuses(tiny_nemo, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    with pytest.raises(ValueError, match="give prompt="):
        call("chat", model=tiny_nemo)
    with pytest.raises(FileNotFoundError, match="gone.wav does not exist"):
        call("chat", model=tiny_nemo, audio=str(tmp_path / "gone.wav"), prompt="?")


@pytest.mark.parametrize("prompt", ["", "  "])
def test_chat_refuses_an_empty_prompt_before_it_loads_a_model(prompt):
    with pytest.raises(ValueError, match="prompt= is empty"):
        call("chat", model="gone.nemo", prompt=prompt)


# -------------------------------------------------------------------------------------------------------------- export


def saved(path: Path) -> tuple[dict[str, torch.Tensor], str]:
    """Weights and config text inside a ``.nemo``."""
    with tarfile.open(path) as archive:
        members = {Path(member.name).name: member for member in archive.getmembers()}
        weights = torch.load(archive.extractfile(members["model_weights.ckpt"]), weights_only=True)
        return weights, archive.extractfile(members["model_config.yaml"]).read().decode()


def test_export_rounds_what_was_trained_and_nothing_else(tiny_nemo, tmp_path, make_audio):
    output = tmp_path / "small.nemo"
    call("export", model=tiny_nemo, output=str(output))
    before, _ = saved(tiny_nemo)
    after, config = saved(output)
    assert before.keys() == after.keys()
    assert not any(name.startswith("perception.encoder.") for name in after)
    assert all(torch.equal(after[name].float(), before[name].half().float()) for name in after)
    assert output.stat().st_size < Path(tiny_nemo).stat().st_size / 2
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith(".")} == set()
    references = {part: section.pretrained for part, section in load_model(tiny_nemo).references.items()}
    override = {"llm": {"pretrained": references["llm"]}}  # of a folder, its name alone is exported
    override["perception"] = {"encoder": {"pretrained": references["perception.encoder"]}}
    assert type(ASRModel.restore_from(str(output), override=override)) is SALM
    assert "train_ds" not in config and "optim" not in config and "manifest.jsonl" not in config

    original, restored = load_model(tiny_nemo), SALM.restore_from(output, override=override)
    assert {p.dtype for p in restored.parameters()} == {torch.float32}
    for part in ("llm", "perception.encoder"):
        assert restored.references[part].fingerprint == original.references[part].fingerprint
    restored.save_to(tmp_path / "again.nemo")
    assert state_digest(load_model(tmp_path / "again.nemo")) == state_digest(restored)
    assert len(restored.transcribe([make_audio(0.7)], verbose=False)) == 1


def test_export_save_full_holds_every_weight(tiny_nemo, tmp_path):
    output = tmp_path / "full.nemo"
    call("export", model=tiny_nemo, output=str(output), save_full=True)
    weights, _ = saved(output)
    assert any(name.startswith("perception.encoder.") for name in weights)
    with pytest.raises(ValueError, match="export it with save_full=true"):
        call("export", model=str(output), output=str(tmp_path / "split.nemo"))


def test_export_refuses_an_output_before_any_work(tmp_path):
    (tmp_path / "model.nemo").touch()
    with pytest.raises(CheckpointError, match=r"output=ow must end in \.nemo; give ow\.nemo, say"):
        call("export", model="unread.nemo", output="ow")
    with pytest.raises(ValueError, match="is what is read"):
        call("export", model=str(tmp_path / "model.nemo"), output=str(tmp_path / "model.nemo"))


def test_export_refuses_values_beyond_half_precision(tiny_nemo, tmp_path):
    model = load_model(tiny_nemo)
    model.perception.projection.scale.data.fill_(1e6)
    model.save_to(tmp_path / "large.nemo")
    with pytest.raises(ValueError, match="projection.scale has values.*use dtype=bfloat16"):
        call("export", model=str(tmp_path / "large.nemo"), output=str(tmp_path / "out.nemo"))
    with pytest.raises(ValueError, match="dtype=int8: use float16"):
        call("export", model=tiny_nemo, output=str(tmp_path / "out.nemo"), dtype="int8")
    with pytest.raises(CheckpointError, match="must end in .nemo"):
        call("export", model=tiny_nemo, output=str(tmp_path / "out.ckpt"))
    assert not (tmp_path / "out.nemo").exists()


# ------------------------------------------------------------------------------------------------------ split_manifest


def split(monkeypatch, *arguments) -> int:
    monkeypatch.setattr(sys, "argv", ["split_manifest.py", *map(str, arguments)])
    return exit_status(script("data/split_manifest").main)


def test_split_manifest_puts_no_text_into_two_splits(make_manifest, tmp_path, monkeypatch):
    texts = ["One!", "one", "two", "three", "Four", "four.", "five", "six"]
    manifest = make_manifest((0.3,) * len(texts), rows=[{"text": text} for text in texts])
    out = tmp_path / "splits"
    assert split(monkeypatch, manifest, "--out", out, "--dev", 0.2, "--test", 0.2) == 0
    splits = {name: read_manifest(out / f"{name}.jsonl", locate_audio=True) for name in ("train", "dev", "test")}
    words = {name: {row["text"].strip("!.").lower() for row in rows} for name, rows in splits.items()}
    assert sum(map(len, splits.values())) == len(texts) and sum(map(len, words.values())) == 6
    assert all(words.values())


def test_split_manifest_by_speaker_puts_no_speaker_into_two_splits(make_manifest, tmp_path, monkeypatch):
    manifest = make_manifest((0.3,) * 8, rows=[{"text": "One.", "speaker": name} for name in "aabbccdd"])
    assert split(monkeypatch, manifest, "--out", tmp_path, "--dev", 0.2, "--test", 0.2, "--by", "speaker") == 0
    speakers = [
        [row["speaker"] for row in read_manifest(tmp_path / f"{name}.jsonl")] for name in ("train", "dev", "test")
    ]
    assert [len(names) for names in speakers] == [4, 2, 2]
    assert sorted(name for names in speakers for name in set(names)) == list("abcd")


def test_split_manifest_refuses(make_manifest, tmp_path, monkeypatch, capsys):
    manifest = make_manifest((0.3, 0.3))
    assert split(monkeypatch, manifest, "--out", tmp_path / "out") == 1
    assert "2 distinct texts are too few" in capsys.readouterr().err
    assert split(monkeypatch, tmp_path / "gone.jsonl", "--out", tmp_path / "out") == 1
    assert "gone.jsonl" in capsys.readouterr().err
    textless = make_manifest((0.3,), name="textless.jsonl", text=None)
    assert split(monkeypatch, textless, "--out", tmp_path / "out") == 1
    assert "has no 'text'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

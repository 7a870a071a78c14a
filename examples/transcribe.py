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

"""Transcribes audio with a speech LM.

    python examples/transcribe.py model=salm_whisper_smollm2 audio=clip.wav
    python examples/transcribe.py model=salm_whisper_smollm2 'audio=[one.wav,two.flac]'
    python examples/transcribe.py model=x.nemo audio_dir=recordings output_filename=out.jsonl batch_size=8
    python examples/transcribe.py model=x.nemo dataset_manifest=test.jsonl 'keywords=[Boston,Ada]'
    python examples/transcribe.py model=x.nemo audio=clip.wav keywords_file=names.txt
    python examples/transcribe.py model=x.nemo audio=talk.mp3 output_filename=talk.srt
    python examples/transcribe.py model=x.nemo audio_dir=recordings output_filename=words.ctm

``model`` is the name of a shipped checkpoint, a ``.nemo`` file or a hub id. The output is a manifest with
``pred_text``; it is written at the end, whole or not at all; for a long manifest that must survive a kill, use
evaluate.py. Without ``output_filename`` transcripts are printed as they are found, those of long recordings piece by
piece, with their seconds. A recording is read while it is transcribed, and may be of any length.

With ``timestamps=true`` a manifest's lines get ``word`` and ``segment``, as those of NeMo's transcribe_speech.py do,
and printed transcripts come segment by segment. With ``confidence=true`` they get ``word_confidence``, how probably
each word is right, and printed words that are more probably wrong stand in brackets. An ``output_filename`` that ends
in ``.srt`` or ``.vtt`` gets the subtitles of one recording, in ``.ctm`` the words of all. Times are of the recording
where it is a part of one (``offset``); those in a manifest are of the part.

Files of ``audio_dir`` and lines of a manifest that cannot be read, or that ask for a task of which the model has no
instruction, are named and left out; the exit status is then 1, the other transcripts are there. It is 1 as well where
words that were to have times could be given none. Of ``audio_dir``, every file whose name says that it is audio or
video is read; how many others there are is said.
"""

import os
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from nemo.collections.asr.parts.utils.rnnt_utils import Hypothesis
from nemo.core.config import hydra_runner
from nemo.utils import logging
from omegaconf import MISSING, OmegaConf
from tqdm import tqdm

from nemo_speechllm.audio.audio_file import AUDIO_SUFFIXES
from nemo_speechllm.command_line import check_output_file, check_settings, emit, run_command
from nemo_speechllm.data.conversation import Audio, AudioError
from nemo_speechllm.data.dataset import PLACE_KEY
from nemo_speechllm.data.keywords import keyword_list, read_keywords
from nemo_speechllm.decoding.word_times import Word
from nemo_speechllm.errors import InputError
from nemo_speechllm.manifests.manifest import (
    located,
    raise_for,
    read_lines,
    relocate,
    with_audio_issues,
    write_manifest,
)
from nemo_speechllm.models import load_model
from nemo_speechllm.models.inputs import conversations_of
from nemo_speechllm.models.speech_lm import SpeechLM
from nemo_speechllm.models.transcription import SpeechLMTranscribeConfig, manifest_keys
from nemo_speechllm.subtitles import TIMED_SUFFIXES, check_recordings, write_words

DOUBTFUL = 0.5  # a word of less confidence is more probably wrong than right
MODEL_SETTINGS = [
    *("batch_size", "batch_duration", "num_workers", "instruction", "max_new_tokens", "beam_size", "decoder"),
    *("channel_selector", "confidence"),
]


@dataclass
class TranscribeArguments:
    """What is transcribed by which model, and where the transcripts go."""

    model: str = MISSING
    audio: Any = None  # a file or a list of files
    audio_dir: str | None = None  # searched with its subfolders
    dataset_manifest: str | None = None
    output_filename: str | None = None
    batch_size: int = 8  # recordings, or pieces of long ones, that are transcribed together,
    batch_duration: float | None = None  # of at most so many seconds altogether
    num_workers: int = 0
    instruction: str | None = None  # None: the manifest line's own, or the recipe's
    keywords: list[str] | None = None  # words that may occur
    keywords_file: str | None = None  # the same, one word or phrase a line
    max_new_tokens: int | None = None
    beam_size: int | None = None
    decoder: str | None = None  # llm, or ctc: the model's CTC head; None: the recipe's
    channel_selector: Any = None  # of files with several channels: a number or average
    timestamps: bool = False  # when each word is said; .srt, .vtt and .ctm always tell
    confidence: bool = False  # how probably each word is right


def input_rows(cfg: TranscribeArguments) -> tuple[list[dict], int]:
    """Return a manifest row for each audio that is asked for and can be read, and how many cannot.

    Each of these is named in a warning.
    """
    given = [key for key in ("audio", "audio_dir", "dataset_manifest") if cfg[key] is not None]
    if len(given) != 1:
        raise ValueError(f"give one of audio=, audio_dir= or dataset_manifest=; got {given or 'none'}")
    if not cfg[given[0]]:
        raise ValueError(f"{given[0]}= is empty; is a shell variable unset?")
    if cfg.dataset_manifest is not None:
        return manifest_rows(cfg.dataset_manifest, cfg.channel_selector)
    if cfg.audio_dir is not None:
        return folder_rows(cfg.audio_dir, cfg.channel_selector)
    return [{"audio_filepath": file} for file in audio_files(cfg.audio)], 0


def audio_files(audio: Any) -> list[str | Path]:
    """Return the names that ``audio`` gives: none, one or a list; Hydra reads one of digits as a number."""
    if audio is None:
        return []
    return [str(file) for file in (audio if OmegaConf.is_list(audio) else [audio])]


def given_files(cfg: TranscribeArguments) -> list[str | Path]:
    """Return every file that is read or may be: the output must be none of them."""
    files = audio_files(cfg.audio) + [name for name in (cfg.dataset_manifest, cfg.keywords_file) if name is not None]
    if cfg.dataset_manifest is not None:
        lines = read_lines(cfg.dataset_manifest, needed=("audio_filepath",), answered=False)
        files += [located(line.row, cfg.dataset_manifest)["audio_filepath"] for line in lines if not line.issues]
    if cfg.audio_dir is not None:
        files += [path for path in Path(cfg.audio_dir).rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES]
    return files


def manifest_rows(manifest: str, channel_selector: int | str | None) -> tuple[list[dict], int]:
    """Return the lines of a manifest that can be transcribed, and how many cannot."""
    lines = read_lines(manifest, needed=("audio_filepath",), answered=False)
    lines = with_audio_issues(lines, manifest, channel_selector, decode=True)
    good = [line for line in lines if not line.issues]
    if not good:
        raise_for(manifest, lines)
    for issue in (issue for line in lines for issue in line.issues):
        logging.warning(f"left out: {issue}")
    return [located(line.row, manifest) | {PLACE_KEY: f"{manifest}:{line.number}"} for line in good], len(lines) - len(
        good
    )


def folder_rows(folder: str, channel_selector: int | str | None) -> tuple[list[dict], int]:
    """Return the audio files of a folder that can be read, and how many cannot."""
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"audio_dir={folder} is no folder; the path counts from {Path.cwd()}")
    files = sorted(files_of(folder))
    audio = [path for path in files if path.suffix.lower() in AUDIO_SUFFIXES]
    if len(audio) < len(files):
        suffixes = Counter(path.suffix.lower() or "without a suffix" for path in files)
        others = Counter({suffix: count for suffix, count in suffixes.items() if suffix not in AUDIO_SUFFIXES})
        told = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common())
        logging.warning(
            f"audio_dir={folder}: {others.total()} files are no audio by their names, and not read: {told}"
        )
    if not audio:
        raise ValueError(f"audio_dir={folder} holds no audio file ({', '.join(sorted(AUDIO_SUFFIXES))})")
    rows = readable([{"audio_filepath": str(path)} for path in audio], channel_selector)
    return rows, len(audio) - len(rows)


def files_of(folder: str) -> Iterator[Path]:
    """Yield what lies in a folder and its subfolders and is no folder.

    Links to folders are followed, and each folder is entered once, so that links may lead in circles.
    """
    entered = set()
    for here, subfolders, names in os.walk(folder, followlinks=True, onerror=_raise):
        if os.path.realpath(here) in entered:
            subfolders.clear()
            continue
        entered.add(os.path.realpath(here))
        subfolders.sort()
        yield from (Path(here, name) for name in names)


def _raise(error: OSError) -> None:
    raise error


def keywords_of(cfg: TranscribeArguments) -> list[str] | None:
    """Return the words that may occur, from the command line or a file; None: the manifest lines' own."""
    if cfg.keywords is not None and cfg.keywords_file is not None:
        raise ValueError("keywords= and keywords_file= are two ways to say the same; give one")
    if cfg.keywords_file is not None:
        return read_keywords(cfg.keywords_file)
    return None if cfg.keywords is None else keyword_list(cfg.keywords)


def readable(rows: list[dict], channel_selector: int | str | None) -> list[dict]:
    """Return the rows whose audio can be read; each of the others is named in a warning."""
    kept = []
    for row in rows:
        try:
            _, blocks = Audio.from_file(row["audio_filepath"], channel_selector=channel_selector).stream()
            deque(blocks, maxlen=0)  # read to the end, and kept nothing of
            kept.append(row)
        except (AudioError, FileNotFoundError) as error:
            logging.warning(f"left out: {error}")
    return kept


def is_timed_file(path: str | None) -> bool:
    """Tell whether the output is a file of words with times, by its suffix."""
    return path is not None and Path(path).suffix.lower() in TIMED_SUFFIXES


def answerable(rows: list[dict], model: SpeechLM, settings: SpeechLMTranscribeConfig) -> list[dict]:
    """Return the rows whose question the model has; each of the others is named in a warning.

    Raises:
        InputError: it has none of them.
    """
    kept, refused = [], []
    for row in rows:
        try:
            conversations_of(row, model.builder, settings.channel_selector, partial(manifest_keys, config=settings))
            kept.append(row)
        except InputError as error:
            refused.append(error)
    if not kept:
        raise refused[0]
    for error in refused:
        logging.warning(f"left out: {error}")
    return kept


def transcribe(rows: list[dict], cfg: TranscribeArguments) -> tuple[int, int]:
    """Print or write the rows' transcripts.

    Returns:
        how many rows were left out, and of how many transcripts the words have no times, which were asked for.
    """
    timestamps = cfg.timestamps or is_timed_file(cfg.output_filename)
    options = OmegaConf.to_container(OmegaConf.masked_copy(cfg, MODEL_SETTINGS))
    options |= {"keywords": keywords_of(cfg), "timestamps": timestamps, "return_hypotheses": True}
    model, settings = load_model(cfg.model, answers_only=True), SpeechLMTranscribeConfig(**options)
    given, rows = len(rows), answerable(rows, model, settings)
    if cfg.output_filename is None:
        return given - len(rows), show(rows, model.transcribe_generator(rows, settings), settings)
    hypotheses = model.transcribe(rows, override_config=settings)
    predictions = [prediction_of(row, hypothesis, settings) for row, hypothesis in zip(rows, hypotheses, strict=True)]
    write(predictions, cfg.output_filename)
    return given - len(rows), sum(has_no_times(row) for row in predictions)


def prediction_of(row: dict, hypothesis: Hypothesis, settings: SpeechLMTranscribeConfig) -> dict:
    """Return the manifest's row with what was found."""
    found = {"pred_text": hypothesis.text, **(hypothesis.timestamp if settings.timestamps else {})}
    found |= {"word_confidence": hypothesis.word_confidence} if settings.confidence else {}
    return {key: value for key, value in row.items() if key != PLACE_KEY} | found


def has_no_times(prediction: dict) -> bool:
    """Tell whether a transcript has words that were to have times and could be given none."""
    return bool(prediction["pred_text"].strip()) and prediction.get("word") == []


def show(rows: list[dict], batches: Iterable[list[Hypothesis]], settings: SpeechLMTranscribeConfig) -> int:
    """Print transcripts as they are found, those of long recordings piece by piece.

    Returns:
        how many have words in a piece that could be given no times.
    """
    untimed = set()
    for hypothesis in chain.from_iterable(batches):
        prediction = prediction_of(rows[hypothesis.recording], hypothesis, settings)
        piece = {"segment": hypothesis.text}
        if hypothesis.start > 0 or not hypothesis.is_last:
            piece |= {"start": hypothesis.start, "end": hypothesis.end}
        with tqdm.external_write_mode():
            emit(*printed(prediction, prediction.get("segment") or [piece]))
        if has_no_times(prediction):
            untimed.add(hypothesis.recording)
    return len(untimed)


def write(predictions: list[dict], output: str) -> None:
    """Write transcripts in the form that the suffix of ``output`` names."""
    if is_timed_file(output):
        write_words(output, words_by_recording(predictions))
    else:
        here = Path("manifest")  # the rows' paths hold in the current folder
        write_manifest(output, (relocate(row, here, output) for row in predictions))
    logging.info(f"{len(predictions)} transcripts written to {output}")


def printed(prediction: dict, segments: list[dict]) -> list[str]:
    """Return a line for each segment of a transcript, with its times where it has any; doubtful words in brackets."""
    confidence = iter(prediction.get("word_confidence", ()))
    for part in segments if "word_confidence" in prediction else ():
        words = part["segment"].split()
        part["segment"] = " ".join(f"[{word}]" if next(confidence) < DOUBTFUL else word for word in words)
    times = [f" [{part['start']:.2f} - {part['end']:.2f}]" if "start" in part else "" for part in segments]
    name = prediction["audio_filepath"]
    return [f"{name}{time}: {part['segment']}" for time, part in zip(times, segments, strict=True)]


def words_by_recording(predictions: list[dict]) -> dict[str, list[Word]]:
    """Return all words of each recording, by its path, in the order they are said."""
    recordings: dict[str, list[Word]] = {}
    for row in predictions:
        words = [Word(word["word"], word["start"], word["end"]) for word in row["word"]]
        offset = float(row.get("offset") or 0.0)
        recordings.setdefault(str(row["audio_filepath"]), []).extend(word.delayed(offset) for word in words)
    return {name: sorted(words, key=lambda word: word.start) for name, words in recordings.items()}


@hydra_runner(config_name="TranscribeArguments", schema=TranscribeArguments)
def main(cfg: TranscribeArguments) -> None:
    """Transcribe what can be read; return 1 where something could not."""
    check_settings(cfg)
    if cfg.output_filename is not None:
        check_output_file(cfg.output_filename, given_files(cfg))
    rows, lost = input_rows(cfg)
    if is_timed_file(cfg.output_filename):
        check_recordings(cfg.output_filename, [str(row["audio_filepath"]) for row in rows])
    unasked, untimed = transcribe(rows, cfg) if rows else (0, 0)
    what = "lines" if cfg.dataset_manifest is not None else "files"
    failures = {
        f"{lost} of {len(rows) + lost} {what} could not be read": lost,
        f"{unasked} of {len(rows) + lost} {what} ask what the model has no instruction for": unasked,
        f"the words of {untimed} of {len(rows) - unasked} transcripts could be given no times": untimed,
    }
    if told := [failure for failure, count in failures.items() if count]:
        sys.exit(f"{' and '.join(told)}; the warnings above name them")


if __name__ == "__main__":
    run_command(main)

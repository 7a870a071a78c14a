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

``model`` is the name of a shipped checkpoint, a ``.nemo`` file or a hub id. The output is a manifest with ``pred_text``;
without ``output_filename`` the transcripts are printed. It is written at the end, whole or not at all; for a long manifest
that must survive a kill, use evaluate.py.

Files of ``audio_dir`` that cannot be read are named and left out; the exit status is then 1, the other transcripts are there.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nemo.core.config import hydra_runner
from nemo.utils import logging
from omegaconf import MISSING, OmegaConf

from nemo_speechllm.command_line import emit, run_command
from nemo_speechllm.data.conversation import Audio, AudioError
from nemo_speechllm.data.keywords import read_keywords
from nemo_speechllm.data.manifest import read_manifest, relocate, write_manifest
from nemo_speechllm.models import load_model

AUDIO_SUFFIXES = {".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a"}


@dataclass
class TranscribeArguments:
    model: str = MISSING
    audio: Any = None  # a file or a list of files
    audio_dir: str | None = None  # searched with its subfolders
    dataset_manifest: str | None = None
    output_filename: str | None = None
    batch_size: int = 8
    num_workers: int = 0
    instruction: str | None = None  # None: the manifest line's own, or the recipe's
    keywords: list[str] | None = None  # words that may occur
    keywords_file: str | None = None  # the same, one word or phrase a line
    max_new_tokens: int | None = None
    beam_size: int | None = None
    decoder: str | None = None  # llm, or ctc: the model's CTC head; None: the recipe's
    channel_selector: Any = None  # of files with several channels: a number or average


def input_rows(cfg: TranscribeArguments) -> list[dict]:
    """A manifest row for each audio that is asked for."""
    given = [key for key in ("audio", "audio_dir", "dataset_manifest") if cfg[key] is not None]
    if len(given) != 1:
        raise ValueError(f"give one of audio=, audio_dir= or dataset_manifest=; got {given or 'none'}")
    if cfg.dataset_manifest is not None:
        return read_manifest(cfg.dataset_manifest, locate_audio=True)
    if cfg.audio is not None:
        return [{"audio_filepath": path} for path in ([cfg.audio] if isinstance(cfg.audio, str) else cfg.audio)]
    files = sorted(path for path in Path(cfg.audio_dir).rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
    if not files:
        raise ValueError(f"audio_dir={cfg.audio_dir} holds no audio file ({', '.join(sorted(AUDIO_SUFFIXES))})")
    return [{"audio_filepath": str(path)} for path in files]


def keywords_of(cfg: TranscribeArguments) -> list[str] | None:
    """The words that may occur, from the command line or a file; None: the manifest lines' own."""
    if cfg.keywords is not None and cfg.keywords_file is not None:
        raise ValueError("keywords= and keywords_file= are two ways to say the same; give one")
    if cfg.keywords_file is not None:
        return read_keywords(cfg.keywords_file)
    return None if cfg.keywords is None else list(cfg.keywords)


def readable(rows: list[dict], channel_selector: int | str | None) -> list[dict]:
    """The rows whose audio can be read; each of the others is named in a warning."""
    kept = []
    for row in rows:
        try:
            Audio.from_file(row["audio_filepath"], channel_selector=channel_selector).load()
            kept.append(row)
        except (AudioError, FileNotFoundError) as error:
            logging.warning(f"left out: {error}")
    return kept


def transcribe(rows: list[dict], cfg: TranscribeArguments) -> None:
    """Prints or writes the rows' transcripts."""
    names = (
        "batch_size",
        "num_workers",
        "instruction",
        "max_new_tokens",
        "beam_size",
        "decoder",
        "channel_selector",
    )
    options = OmegaConf.to_container(OmegaConf.masked_copy(cfg, names)) | {"keywords": keywords_of(cfg)}
    texts = load_model(cfg.model).transcribe(rows, **options)
    predictions = [{**row, "pred_text": text} for row, text in zip(rows, texts, strict=True)]
    if cfg.output_filename is None:
        for row in predictions:
            emit(f"{row['audio_filepath']}: {row['pred_text']}")
        return
    here = Path("manifest")  # the rows' paths hold in the current folder
    write_manifest(cfg.output_filename, (relocate(row, here, cfg.output_filename) for row in predictions))
    logging.info(f"{len(predictions)} transcripts written to {cfg.output_filename}")


@hydra_runner(config_name="TranscribeArguments", schema=TranscribeArguments)
def main(cfg: TranscribeArguments) -> None:
    given = input_rows(cfg)
    rows = given if cfg.audio_dir is None else readable(given, cfg.channel_selector)
    if rows:
        transcribe(rows, cfg)
    if len(rows) < len(given):
        sys.exit(f"{len(given) - len(rows)} of {len(given)} files could not be read; the warnings above name them")


if __name__ == "__main__":
    run_command(main)

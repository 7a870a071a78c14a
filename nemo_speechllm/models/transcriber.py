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

"""The transcription of an audio by a recogniser, as text in another model's prompt (2409.20007, section 2.2)."""

import hashlib
from itertools import groupby
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from nemo.utils import logging
from scipy.ndimage import binary_opening
from torch import Tensor

from nemo_speechllm.data.conversation import SAMPLE_RATE, Audio, Conversation, Question, Turn
from nemo_speechllm.data.dataset import ConversationBatch, ConversationBuilder
from nemo_speechllm.desta.metadata import Clip
from nemo_speechllm.files import write_text
from nemo_speechllm.models.answers import Answer
from nemo_speechllm.models.whisper_baseline import WhisperBaseline
from nemo_speechllm.recipes.generation import WINDOW_SECONDS
from nemo_speechllm.recipes.sections import Encoder

AUDIO_ROLE = "audio"
BATCH_SIZE = 8
MIN_VOICE_SECONDS = 0.2
PITCH_SECONDS = 0.016  # between two values of a clip's pitch track


class Recognizer(Protocol):
    """What transcribes: a speech LM or a baseline."""

    builder: ConversationBuilder

    def generate(self, conversations: list[Conversation], batch_size: int = BATCH_SIZE) -> list[Answer]:
        """Return answers in order, as `SpeechLM.generate` does."""


class Transcriber:
    """Transcribes with a recogniser.

    That is a whole Whisper, loaded when it is first needed and in no checkpoint, or one that is given.

    Args:
        encoder: the recipe's ``model.perception.encoder`` section; its ``pretrained`` is the Whisper.
        min_voice_seconds: an audio in which pYIN finds no stretch of voice as long is not transcribed: of silence and
            noise Whisper makes sentences. In white and brown noise the longest was 0.14 s; a hum passes for speech.
        recognizer: what transcribes in the place of the recipe's Whisper.
    """

    def __init__(
        self,
        encoder: Encoder,
        min_voice_seconds: float = MIN_VOICE_SECONDS,
        recognizer: Recognizer | None = None,
    ):
        self.encoder = encoder
        self.min_voice_seconds = min_voice_seconds
        self._folder: Path | None = None
        self._recognizer = recognizer

    def cache(self, folder: str | None) -> None:
        """Keep transcriptions in a folder from now on, found again by the audio's content; None: no longer.

        Several processes may share a folder.
        """
        self._folder = Path(folder) if folder else None

    def __call__(self, batch: ConversationBatch) -> list[list[str]]:
        """Return texts of each conversation's audios.

        They are the manifest's ``transcription`` (a text, or a list of one for each audio), or else what Whisper
        hears.

        Raises:
            ValueError: a ``transcription`` does not fit its conversation's audios; the conversation is named.
        """
        samples = iter([row[:length] for row, length in zip(batch.audio, batch.audio_lengths.tolist(), strict=True)])
        given, unknown = [], []
        for conversation in batch.conversations:
            audios = [(next(samples), conversation.metadata.get("lang")) for _ in conversation.audios]
            given.append(_given_transcriptions(conversation))
            unknown += audios if given[-1] is None else []
        recognized = iter(self.transcribe(unknown))
        return [
            [next(recognized) for _ in conversation.audios] if texts is None else texts
            for conversation, texts in zip(batch.conversations, given, strict=True)
        ]

    def transcribe(self, audios: list[tuple[Tensor, str | None]]) -> list[str]:
        """Return texts of audios (T,) at 16 kHz, each with its language or None; empty where nobody speaks.

        Raises:
            ValueError: the recipe names no pretrained Whisper, or Whisper does not know a language.
            nemo_speechllm.assets.AssetError: the Whisper cannot be found.
        """
        texts = [self._kept(*audio) for audio in audios]
        missing = [index for index, text in enumerate(texts) if text is None]
        for index, text in zip(missing, self._recognize_spoken([audios[index] for index in missing]), strict=True):
            texts[index] = text
            self._keep(*audios[index], text)
        return cast(list[str], texts)  # none is missing now

    def _recognize_spoken(self, audios: list[tuple[Tensor, str | None]]) -> list[str]:
        spoken = [index for index, (samples, _) in enumerate(audios) if self._is_spoken(samples)]
        answers = dict(zip(spoken, self._ask([audios[index] for index in spoken]), strict=True)) if spoken else {}
        if any(answer.truncated for answer in answers.values()):
            logging.warning(
                "the transcription of an audio in this batch reached the recogniser's limit and ends there"
            )
        return [answers[index].text if index in answers else "" for index in range(len(audios))]

    def _ask(self, audios: list[tuple[Tensor, str | None]]) -> list[Answer]:
        recognizer = self._load()
        questions = [
            recognizer.builder.conversation(Audio(samples.cpu()), {"lang": language}, "transcription")
            for samples, language in audios
        ]
        return recognizer.generate(questions, BATCH_SIZE)

    def _is_spoken(self, samples: Tensor) -> bool:
        stretch = np.ones(round(self.min_voice_seconds / PITCH_SECONDS))
        windows = samples.float().cpu().split(WINDOW_SECONDS * SAMPLE_RATE)
        tracks = (Clip(window.numpy(), SAMPLE_RATE, {}).pitch_track for window in windows)
        return any(binary_opening(voiced, stretch).any() for _, voiced in tracks)

    def _load(self) -> Recognizer:
        if self._recognizer is None:
            if not self.encoder.pretrained:
                raise ValueError(
                    "model.perception.encoder.pretrained is not given, so there is no Whisper to transcribe with; "
                    "give each manifest line its `transcription`"
                )
            self._recognizer = WhisperBaseline(self.encoder.pretrained)
        return self._recognizer

    def _kept(self, samples: Tensor, language: str | None) -> str | None:
        path = self._path(samples, language)
        return path.read_text(encoding="utf-8") if path is not None and path.exists() else None

    def _keep(self, samples: Tensor, language: str | None, text: str) -> None:
        path = self._path(samples, language)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, text)

    def _path(self, samples: Tensor, language: str | None) -> Path | None:
        """Return where the text belongs: its name is made of all that it depends on."""
        if self._folder is None:
            return None
        digest = hashlib.sha256(f"{self.encoder.fingerprint} {self.min_voice_seconds} {language} ".encode())
        digest.update(samples.detach().float().cpu().numpy().tobytes())
        key = digest.hexdigest()[:40]
        return self._folder / key[:2] / f"{key}.txt"


def with_transcriptions(conversation: Conversation, transcriptions: list[str], keywords: str = "") -> Conversation:
    """Return the conversation with each audio, and its transcription behind it, as a message of the role ``audio``.

    Args:
        conversation: its questions are written out; see `Question.rendered` for ``keywords``.
        transcriptions: of its audios.
    """
    texts = iter(transcriptions)
    turns: list[Turn | Question] = []
    for turn in conversation.rendered(keywords):
        for is_audio, parts in groupby(turn.parts, lambda part: isinstance(part, Audio)):
            if is_audio:
                turns += [Turn(AUDIO_ROLE, [audio, next(texts)]) for audio in parts]
            else:
                turns.append(Turn(turn.role, list(parts)))
    return Conversation(conversation.id, turns, conversation.metadata)


def _given_transcriptions(conversation: Conversation) -> list[str] | None:
    given = conversation.metadata.get("transcription")
    if given is None:
        return None
    texts = [given] if isinstance(given, str) else list(given)
    if len(texts) != len(conversation.audios):
        raise ValueError(
            f"{conversation.id}: {len(texts)} texts in `transcription` and {len(conversation.audios)} audios; give a "
            "text for each, or leave the key out and Whisper transcribes"
        )
    return texts

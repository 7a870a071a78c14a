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

"""The models behind a server: recordings are read, cut into pieces, answered with those of others, and joined."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from nemo_speechllm.audio.audio_file import audio_info
from nemo_speechllm.data.conversation import Conversation
from nemo_speechllm.models.answering import require_transcript
from nemo_speechllm.models.answers import OF_WORDS, Answer, generation_options, joined
from nemo_speechllm.models.inputs import conversations_of
from nemo_speechllm.models.loading import split_reference
from nemo_speechllm.models.segmentation import split_long_audio
from nemo_speechllm.models.speech_lm import SpeechLM
from nemo_speechllm.models.transcription import SpeechLMTranscribeConfig, manifest_keys
from nemo_speechllm.serving.batching import REQUESTS, SECONDS, Admission, Batcher, Group
from nemo_speechllm.serving.errors import RequestError
from nemo_speechllm.serving.metrics import Metrics
from nemo_speechllm.serving.upload import Upload

READERS = 2  # recordings that are decoded at a time


@dataclass(frozen=True)
class Limits:
    """What a server takes.

    Attributes:
        batch_size: pieces that are answered together.
        requests: that wait or are being answered; further ones are to come again.
        seconds: of audio in one request; four times as many may wait.
        characters: of text that the model reads in one request; all that are answered together wait for the longest.
        channel_selector: of recordings with several channels.
    """

    batch_size: int = 8
    requests: int = 64
    seconds: float = 3600.0
    channel_selector: int | str | None = "average"
    characters: int = 8000


@dataclass(frozen=True)
class Pending:
    """A request that is being answered.

    Attributes:
        answers: to its pieces, as they come.
        starts: of the pieces, in seconds.
        seconds: of its audio.
    """

    answers: "list[asyncio.Future[Answer]]"
    starts: list[float]
    seconds: float

    async def pieces(self) -> AsyncIterator[Answer]:
        """Yield the answers to the pieces in order, each when it is there."""
        for answer in self.answers:
            yield await answer

    async def whole(self) -> Answer:
        """Return the answer to the whole recording."""
        return joined([answer async for answer in self.pieces()], self.starts)


class Service:
    """Answers requests with models, by their names.

    Args:
        models: in evaluation mode.
        limits: what is taken.
    """

    def __init__(self, models: dict[str, SpeechLM], limits: Limits | None = None):
        self.models, self.limits = models, limits or Limits()
        self.metrics = Metrics()
        self.admission = Admission(self.limits.requests, 4 * self.limits.seconds)
        self.batcher = Batcher(self._answer, self.limits.batch_size, self.metrics.batch_size.observe)
        self._readers = ThreadPoolExecutor(READERS, "reading")
        self.metrics.watch(lambda: self.admission.held[REQUESTS], lambda: self.batcher.waiting)

    def close(self) -> None:
        """End the threads."""
        self.batcher.close()
        self._readers.shutdown(cancel_futures=True)

    def model(self, name: str) -> SpeechLM:
        """Return the model of a name.

        Raises:
            RequestError: there is none.
        """
        if name in self.models:
            return self.models[name]
        raise RequestError(
            f"the model {name[:80]!r} is not served here; there are {', '.join(self.models)}",
            *("model", 404, "model_not_found"),
        )

    @asynccontextmanager
    async def transcribing(
        self, name: str, upload: Upload, settings: SpeechLMTranscribeConfig
    ) -> AsyncIterator[Pending]:
        """Answer a recording as ``transcribe`` of the model does with these settings; leaving ends what is not done.

        Args:
            name: of the model.
            upload: the recording.
            settings: of the call.

        Raises:
            RequestError: there is no such model, no place, or more audio or text than a request may have.
            AudioError, ValueError: the audio cannot be read, or the settings cannot be.
        """
        model = self.model(name)
        options = generation_options(
            model.cfg.generation, settings.max_new_tokens, settings.beam_size, settings.decoder
        )
        options |= {purpose: bool(getattr(settings, purpose)) for purpose in OF_WORDS}
        _check_keywords(model, settings)
        self._check_text("instruction", [settings.instruction or ""])
        if not _chooses_keywords(model, settings.keywords or []):
            self._check_text("prompt", settings.keywords or [])
        make = partial(_asked, model, upload, settings, self.limits.channel_selector)
        async with self._answering(name, options, [upload], make) as pending:
            yield pending

    @asynccontextmanager
    async def conversing(
        self, name: str, parts: list[str | Upload], make: Callable[[], Conversation], **given: Any
    ) -> AsyncIterator[Pending]:
        """Answer a conversation as ``generate`` of the model does; see `transcribing`.

        Args:
            name: of the model.
            parts: the texts and audio files in it.
            make: gives it.
            given: arguments of `generation_options`.
        """
        options = generation_options(self.model(name).cfg.generation, **given)
        self._check_text("messages", [part for part in parts if isinstance(part, str)])
        uploads = [part for part in parts if isinstance(part, Upload)]
        async with self._answering(name, options, uploads, make) as pending:
            yield pending

    @asynccontextmanager
    async def _answering(
        self, name: str, options: dict[str, Any], uploads: list[Upload], make: Callable[[], Conversation]
    ) -> AsyncIterator[Pending]:
        read = partial(asyncio.get_running_loop().run_in_executor, self._readers)
        with self.admission.place(REQUESTS):
            seconds = await read(self._seconds, uploads)
            with self.admission.place(SECONDS, seconds):
                pieces, starts = await read(self._pieces, name, make)
                group = (name, *sorted(options.items()))
                futures = [asyncio.wrap_future(answer) for answer in self.batcher.submit(group, pieces)]
                try:
                    yield Pending(futures, starts, seconds)
                    self.metrics.audio_seconds.inc(seconds)
                finally:
                    for future in futures:
                        future.cancel()
                        future.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _seconds(self, uploads: list[Upload]) -> float:
        """Return how long audio files last."""
        seconds = sum(audio_info(upload.content, upload.name).duration for upload in uploads)
        if seconds > self.limits.seconds:
            raise RequestError(
                f"the audio lasts {seconds:.1f} s, and this server takes {self.limits.seconds:g} s in a request; "
                "send it in parts",
                *("file", 400, "audio_too_long"),
            )
        return seconds

    def _check_text(self, field: str, texts: list[str]) -> None:
        """Refuse more text of a field than a model is to read in one request."""
        characters = sum(map(len, texts))
        if characters > self.limits.characters:
            raise RequestError(
                f"{field}: {characters} characters are more than the {self.limits.characters} of text that this "
                "server takes in a request; send fewer",
                *(field, 400, "text_too_long"),
            )

    def _pieces(self, name: str, make: Callable[[], Conversation]) -> tuple[list[Conversation], list[float]]:
        pieces = list(split_long_audio(make(), self.models[name].cfg.generation.max_audio_seconds))
        return [piece.conversation.loaded() for piece in pieces], [piece.start for piece in pieces]

    def _answer(self, group: Group, conversations: list[Conversation]) -> list[Answer]:
        name, *options = group
        return self.models[name].answering.answer(conversations, len(conversations), **dict(options))


def _asked(
    model: SpeechLM, upload: Upload, settings: SpeechLMTranscribeConfig, channel_selector: int | str | None
) -> Conversation:
    """Return what ``transcribe`` would answer."""
    metadata_of = partial(manifest_keys, config=settings)
    (conversation,) = conversations_of(upload, model.builder, channel_selector, metadata_of)
    for purpose in OF_WORDS:
        if getattr(settings, purpose):
            require_transcript(model, [conversation], purpose)
    return conversation


def _check_keywords(model: SpeechLM, settings: SpeechLMTranscribeConfig) -> None:
    """Refuse keywords that a model's prompt has no place for: it would not hear of them."""
    if settings.keywords and not model.cfg.prompt.get("keywords"):
        raise RequestError(
            f"this {type(model).__name__}'s prompt has no place for keywords (model.prompt.keywords); leave prompt, "
            "keywords and hotwords unset",
            *("prompt", 400, "unsupported_value"),
        )


def _chooses_keywords(model: SpeechLM, keywords: list[str]) -> bool:
    """Tell whether CTC chooses some of a list, and the rest is not read."""
    limit = model.cfg.generation.max_keywords
    return limit is not None and len(keywords) > limit


def named(references: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the name that each model is served by, that of its file without ``.nemo``, with its reference.

    ``int8:`` and ``with_whisper:`` before it stay.

    Raises:
        ValueError: two would have the same name.
    """
    names: dict[str, str] = {}
    for reference in references:
        prefix, place = split_reference(reference)
        name = prefix + place.rstrip("/").rpartition("/")[2].removesuffix(".nemo")
        if name in names:
            raise ValueError(f"model: {names[name]} and {reference} would both be served as {name}; rename one")
        names[name] = reference
        yield name, reference

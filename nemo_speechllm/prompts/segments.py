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

"""A prompt is a list of segments: token ids, or the place of an audio."""

from dataclasses import dataclass

from nemo_speechllm.errors import InputError

END_OF_INSTRUCTION = "[EOT]"  # what parts instruction and answer in a decoder's text (2309.09843, section 3)


@dataclass(frozen=True)
class TextSegment:
    """Token ids; ``loss`` says whether the model is trained to produce them.

    Attributes:
        read: what the model reads in their stead, as many ids (masked text); None: the ids themselves.
    """

    ids: list[int]
    loss: bool = False
    read: list[int] | None = None


@dataclass(frozen=True)
class AudioSegment:
    """Place of the conversation's ``index``-th audio; it becomes as many positions as the audio has embeddings."""

    index: int


Segment = TextSegment | AudioSegment


class ContextError(InputError):
    """A conversation has more tokens than its model can read; the message names it, both numbers and the remedy."""


def check_context(segments: list[Segment], audio_lengths: list[int], limit: int | None, name: str) -> None:
    """Compare what a prompt takes with what the model can read, before it is run.

    Args:
        audio_lengths: positions that each audio takes.
        limit: positions that the model can read; None: any number.
        name: of the conversation, for the message.

    Raises:
        ContextError: it takes more.
    """
    text = sum(len(segment.ids) for segment in segments if isinstance(segment, TextSegment))
    audio = sum(audio_lengths[segment.index] for segment in segments if isinstance(segment, AudioSegment))
    if limit is not None and text + audio > limit:
        raise ContextError(
            f"{name}: {text} tokens of text and {audio} positions of audio are more than the {limit} that the model "
            "can read; shorten its text or keywords, or cut the recording"
        )

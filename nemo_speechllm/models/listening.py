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

"""The listening diagnostic of a validation: an answer's loss with its own audio beside that with another's."""

from typing import Protocol

import torch
from nemo.utils import logging
from torch import Tensor

from nemo_speechllm.data.conversation import Conversation
from nemo_speechllm.data.dataset import ConversationBatch
from nemo_speechllm.metrics.error_rate import basic_normalizer
from nemo_speechllm.metrics.listening import ListeningTally
from nemo_speechllm.modules.ctc import CTC, frames_needed
from nemo_speechllm.modules.losses import Mean, count_targets
from nemo_speechllm.modules.perception import PerceptionOutput, States


class ListeningModel(Protocol):
    """What is asked whether it listens."""

    @property
    def ctc(self) -> CTC | None:
        """What reads text by CTC, if anything."""

    def ctc_states(self, perceived: PerceptionOutput) -> States:
        """Return what `ctc` reads."""

    def ctc_texts(self, batch: ConversationBatch) -> dict[int, str]:
        """Return what `ctc` is taught to read."""

    def lm_loss(self, batch: ConversationBatch, perceived: PerceptionOutput) -> Mean:
        """Return the text decoder's loss."""


def report_listening(tally: ListeningTally, stage: str, remedy: str) -> None:
    """Say what answers cost with the right audio and with another; warn of a model that writes and does not listen.

    Args:
        tally: of all data sets and processes.
        stage: ``val`` or ``test``, of the figures' names.
        remedy: what can be done about a model that does not listen.
    """
    figures, asked = tally.figures(), tally.answers + tally.left_out
    if not asked:
        return
    if "listening" not in figures:
        logging.info(
            f"{stage}_listening is not known: none of {asked} answers is in a batch with another audio in which "
            "something else is said; validate with a larger batch_size"
        )
        return
    right, other = figures["loss_right_audio"], figures["loss_other_audio"]
    message = (
        f"{stage}_listening is {figures['listening']:.2f} nats per token: answers cost {right:.2f} with the right "
        f"audio and {other:.2f} with another's ({tally.answers} of {asked} answers)"
    )
    if tally.is_deaf:
        logging.warning(f"{message}. The model writes fluently and hardly listens; {remedy}")
    else:
        logging.info(message)


@torch.no_grad()
def count_listening(
    model: ListeningModel, tally: ListeningTally, batch: ConversationBatch, perceived: PerceptionOutput
) -> None:
    """Add to a tally what a batch's answers cost with their own audios and with others of the batch.

    Prompt and answer stay as they are, and so does a transcription that stands in the prompt. Another audio is cut to
    the length of the one that it replaces.

    Args:
        model: in evaluation mode.
        tally: is changed.
        batch, perceived: conversations with answers, and what perception made of their audios; what the answers cost
            beside these is known from the batch's loss, or else there is nothing to compare.
    """
    _count_alignment(model, tally, batch, perceived)
    if perceived.of_answers is None:
        return
    others = other_audios(batch)
    compared = _are_compared(batch.conversations, others)
    tally.left_out += compared.count(False)
    if not any(compared):
        return
    places = [place if other is None else other for place, other in enumerate(others)]
    other = model.lm_loss(batch, perceived.exchanged(places)).of_answers
    assert other is not None, "it is told of the same model"
    for is_compared, *answer in zip(compared, *_numbers(perceived.of_answers), *_numbers(other)[:1], strict=True):
        if is_compared:
            nats, tokens, with_other = answer
            tally.count_answer(nats, with_other, int(tokens))


def other_audios(batch: ConversationBatch) -> list[int | None]:
    """Return for each of N audios the place of the next in which something else is said, the first after the last.

    That is one of a conversation with another answer and another transcript, and other samples; None: there is none.
    """
    conversations = [item for item in batch.conversations for _ in item.audios]
    answers = [basic_normalizer(item.answer or "") for item in conversations]
    transcripts = [basic_normalizer(item.metadata.get("text") or "") for item in conversations]

    def is_another(place: int, other: int) -> bool:
        says_the_same = transcripts[place] == transcripts[other] != ""
        return answers[place] != answers[other] and not says_the_same and not _is_same_audio(batch, place, other)

    size = len(conversations)
    return [
        next((other for step in range(1, size) if is_another(place, other := (place + step) % size)), None)
        for place in range(size)
    ]


def _is_same_audio(batch: ConversationBatch, place: int, other: int) -> bool:
    spoken = batch.spoken.get(place), batch.spoken.get(other)
    if any(text is not None for text in spoken):
        return spoken[0] == spoken[1]
    samples = (batch.audio[item, : batch.audio_lengths[item]] for item in (place, other))
    return torch.equal(*samples)


def _are_compared(conversations: list[Conversation], others: list[int | None]) -> list[bool]:
    """Tell which conversations have audio, and another one for each of it."""
    remaining = iter(others)
    of_each = [[next(remaining) for _ in conversation.audios] for conversation in conversations]
    return [bool(places) and None not in places for places in of_each]


def _numbers(of_answers: tuple[Tensor, Tensor]) -> list[list[float]]:
    return [part.double().tolist() for part in of_answers]


def _count_alignment(
    model: ListeningModel, tally: ListeningTally, batch: ConversationBatch, perceived: PerceptionOutput
) -> None:
    """Add what CTC gives each text that fits into its audio; one by one, for its classes may depend on the batch."""
    ctc = model.ctc
    if ctc is None:
        return
    states, lengths = model.ctc_states(perceived)
    for place, text in model.ctc_texts(batch).items():
        (ids,) = ctc.ids([text])
        length = int(lengths[place])
        if length and frames_needed(ids) <= length:
            loss = ctc.loss(states[place : place + 1, :length], lengths[place : place + 1], {0: text})
            tokens = count_targets([ids])
            tally.count_alignment(-float(loss.value) * tokens, tokens)

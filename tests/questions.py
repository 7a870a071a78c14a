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

"""What tests ask about their recordings."""

from pathlib import Path

import torch
from lhotse import MonoCut, Recording, SupervisionSegment

from nemo_speechllm.data.conversation import Audio, Conversation, Turn
from nemo_speechllm.data.dataset import (
    ConversationBatch,
    ConversationDataset,
)
from nemo_speechllm.recipes.sections import Prompt

DURATIONS = (1.0, 0.31, 2.4, 0.7, 1.77, 0.5, 3.1, 1.2)


def asked(samples, answer=None, instruction="Transcribe the speech.", task=None):
    turns = [Turn("user", [Audio(torch.as_tensor(samples)), instruction])]
    turns += [Turn("assistant", [answer])] if answer is not None else []
    return Conversation("test", turns, {"text": answer, "task": task})


def collate(model, conversations) -> ConversationBatch:
    return ConversationDataset(model.builder).collate(conversations)


PROMPT = Prompt(
    {"asr": "Transcribe.", "ast": "Translate from {lang} into {target_lang}."}, keywords="Keywords: {keywords}. "
)


def conversations(batches) -> list[Conversation]:
    return [conversation for batch in batches for conversation in batch.conversations]


def cut_of(path: Path, text: str | None = "hello", custom: dict | None = None, **fields) -> MonoCut:
    cut = Recording.from_file(path).to_cut()
    cut.supervisions = [SupervisionSegment(cut.id, cut.recording_id, 0.0, cut.duration, text=text, **fields)]
    cut.custom = custom
    return cut


def user_text(conversation: Conversation) -> str:
    return conversation.rendered("Keywords: {keywords}. ")[0].text

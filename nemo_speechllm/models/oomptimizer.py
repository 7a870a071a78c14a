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

"""What NeMo's OOMptimizer, which finds the largest batches, asks of a speech LM: batches of given sizes."""

from functools import partial
from typing import Any

from nemo.core.neural_types import AudioSignal, LabelsType, LengthsType, NeuralType
from torch import Tensor

from nemo_speechllm.data.conversation import Audio
from nemo_speechllm.data.dataset import ConversationBatch, ConversationBuilder


def schema_of(builder: ConversationBuilder, tokenizer: Any) -> dict[str, Any]:
    """Return what OOMptimizer makes artificial batches of, for the longest audio and answer of a bucket."""
    return {
        "cls": partial(artificial_batch, builder, tokenizer),
        "inputs": [
            {"name": "audio", "type": NeuralType(("B", "T"), AudioSignal()), "seq_length": "input"},
            {"name": "audio_lengths", "type": NeuralType(("B",), LengthsType()), "seq_length": "input"},
            {
                "name": "answers",
                "type": NeuralType(("B", "T"), LabelsType()),
                "seq_length": "output",
                "vocab_size": tokenizer.vocab_size,
            },
        ],
    }


def artificial_batch(
    builder: ConversationBuilder, tokenizer: Any, audio: Tensor, audio_lengths: Tensor, answers: Tensor
) -> ConversationBatch:
    """Return a batch of noise with answers of as many tokens; which tokens does not matter for memory.

    Args:
        builder, tokenizer: of the model.
        audio: (B, T), audio_lengths (B,).
        answers: (B, N) token ids.
    """
    text = _text_of_length(tokenizer, answers.shape[1])
    metadata = {"lang": "en", "text": text, "transcription": text}
    conversations = [
        builder.conversation(Audio(samples), metadata, f"artificial-{index}", text)
        for index, samples in enumerate(audio)
    ]
    return ConversationBatch(conversations, audio, audio_lengths)


def _text_of_length(tokenizer: Any, tokens: int) -> str:
    """Return words of at least so many tokens; equal neighbours, which cost CTC another frame, are avoided."""
    words = [("a", "b")[index % 2] for index in range(max(1, tokens))]
    ids = tokenizer(" ".join(words), add_special_tokens=False).input_ids
    return " ".join(words[: -(-len(words) * tokens // len(ids))])

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

"""SALM reads what the paper says: audio, keywords, instruction, inside the LLM's chat template."""

import pytest

from nemo_speechllm.data.conversation import Audio
from nemo_speechllm.prompts.segments import AudioSegment


@pytest.fixture
def read(salm, make_manifest, tmp_path):
    """``read(**metadata)`` → what the LLM reads before and behind the audio, and what of it is learned."""
    make_manifest((0.5,))

    def segments(**metadata) -> tuple[str, str, str]:
        audio = Audio.from_file(tmp_path / "manifest-0.flac")
        conversation = salm.builder.conversation(audio, metadata, "x")
        if "text" in metadata:
            conversation = conversation.with_answer(metadata["text"])
        found = salm.prompt_segments(conversation)
        (place,) = [index for index, segment in enumerate(found) if isinstance(segment, AudioSegment)]
        parts = found[:place], found[place + 1 :], [segment for segment in found if getattr(segment, "loss", False)]
        return tuple("".join(salm.tokenizer.decode(segment.ids) for segment in part) for part in parts)

    return segments


def test_it_reads_audio_keywords_and_instruction(read):
    before, behind, learned = read(keywords=["Ada", "NeMo"])
    assert before.endswith("<|im_start|>user\n")
    asked = "The following words may occur: Ada, NeMo. Transcribe the speech."
    assert behind == f"{asked}<|im_end|>\n<|im_start|>assistant\n" and not learned


def test_translation_is_asked_for_by_instruction(read):
    assert read(lang="en", target_lang="es")[1].startswith("Translate the speech into es.<|im_end|>")


def test_the_answer_and_its_end_are_learned(read):
    assert read(text="hello there")[2] == "hello there<|im_end|>"

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

"""An LLM that reads what a recogniser has transcribed, and systems by name."""

import pytest
import torch

from nemo_speechllm.data.conversation import Audio, Conversation
from nemo_speechllm.data.dataset import ConversationDataset
from nemo_speechllm.models import SALM, cascade, transcriber
from nemo_speechllm.models.cascade import Cascade
from nemo_speechllm.modules.fingerprint import state_digest


@pytest.fixture
def salm(tiny_salm_config) -> SALM:
    """The LLM alone answers, as its CTC hears nothing, and its weights are so large that it does not repeat the
    prompt's end."""
    torch.manual_seed(0)
    tiny_salm_config.model.generation.ctc_weight = 0
    model = SALM(tiny_salm_config.model).eval()
    with torch.no_grad():
        for parameter in model.llm.model.layers.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8.0)
    return model


@pytest.fixture
def ask(make_audio):
    """``ask(system, **metadata)`` → a conversation of a second of audio."""

    def conversation(system, **metadata) -> Conversation:
        audio = Audio(torch.from_numpy(make_audio(1.0)))
        return system.builder.conversation(audio, metadata, "x")

    return conversation


@pytest.fixture
def prompts(monkeypatch, tokenizer):
    """The texts of all prompts that the LLM has read."""
    seen, join = [], cascade.join_segments

    def spy(segments, *rest):
        seen.extend(tokenizer.decode(segment.ids) for (segment,) in segments)
        return join(segments, *rest)

    monkeypatch.setattr(cascade, "join_segments", spy)
    return seen


def test_the_llm_reads_the_transcription_and_the_instruction(salm, tiny_llm_folder, ask, prompts):
    system = Cascade(salm, str(tiny_llm_folder))
    rows = [{"instruction": "Happy or sad?"}, {"lang": "en", "target_lang": "es-MX"}]
    answers = system.generate([ask(system, transcription="what a day", **row) for row in rows], max_new_tokens=2)
    assert len(answers) == 2 and all(len(answer.ids) <= 2 for answer in answers)
    for prompt, instruction in zip(prompts, ("Happy or sad?", "Translate the speech into Spanish."), strict=False):
        assert prompt.endswith(
            f'<|im_start|>user\nTranscription of the audio: "what a day"\n{instruction}<|im_end|>\n'
            "<|im_start|>assistant\n"
        )


def test_any_model_transcribes_as_it_does_alone_and_nobody_transcribes_silence(
    salm, tiny_llm_folder, ask, monkeypatch
):
    monkeypatch.setattr(transcriber.Transcriber, "_is_spoken", lambda self, samples: bool(samples.any()))
    system = Cascade(salm, str(tiny_llm_folder))
    (alone,) = salm.generate([ask(salm, lang="en")])
    spoken, silent = ask(system, lang="en", target_lang="fr"), ask(system, target_lang="fr")
    silent.audios[0].source = torch.zeros(16000)
    assert system.transcriber(ConversationDataset(system.builder).collate([spoken, silent])) == [[alone.text], [""]]
    assert alone.text


def test_its_digest_tells_recognisers_and_llms_apart(salm, tiny_llm_folder):
    system = Cascade(salm, str(tiny_llm_folder))
    before = state_digest(system)
    names = system.state_dict().keys()
    assert any(name.startswith("llm.") for name in names) and not any(
        "recognizer.perception.encoder." in n for n in names
    )
    with torch.no_grad():
        salm.perception.projection.scale.add_(1)
    assert state_digest(system) != before


def test_refuses_a_decoder_of_its_recogniser(salm, tiny_llm_folder, ask):
    system = Cascade(salm, str(tiny_llm_folder))
    with pytest.raises(ValueError, match="decoder=ctc: Cascade has its own"):
        system.generate([ask(system)], decoder="ctc")


def test_what_asks_nothing_is_named(salm, tiny_llm_folder, ask):
    system = Cascade(salm, str(tiny_llm_folder))
    with pytest.raises(ValueError, match="conversation new: nothing is asked"):
        system.generate([ask(system), Conversation("new", [])])

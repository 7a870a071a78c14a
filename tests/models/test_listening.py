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

"""Does a model listen? What a validation says of one that does, and of one that writes without listening."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from nemo_speechllm.data.conversation import Audio, Conversation, SpokenText, Turn
from nemo_speechllm.data.dataset import ConversationBatch, ConversationBuilder, ConversationDataset
from nemo_speechllm.metrics.listening import ListeningTally
from nemo_speechllm.models import SALM, CTCPromptedLLM, DeSTA2, InstructLAS
from nemo_speechllm.models.listening import count_listening, other_audios
from nemo_speechllm.models.speech_lm import SpeechLM
from nemo_speechllm.recipes.sections import Prompt

ROOT = Path(__file__).parents[2]
TEXTS = ("thank you", "please hold the line", "press one for support", "your call is important to us")


@pytest.fixture
def make_desta2(tiny_llm_folder, tiny_whisper_folder) -> Callable[[], DeSTA2]:
    """``make_desta2()`` → a tiny DeSTA2; each line is to give its transcription."""
    tiny = {
        "llm": {"pretrained": str(tiny_llm_folder)},
        "perception": {
            "encoder": {"pretrained": str(tiny_whisper_folder), "taps": [1]},
            "adapter": {"n_queries": 4, "n_heads": 2},
        },
        "train_ds": None,
        "validation_ds": None,
    }

    def make() -> DeSTA2:
        torch.manual_seed(0)
        cfg = OmegaConf.load(ROOT / "conf/desta2/whisper_base_smollm2.yaml").model
        model = DeSTA2(OmegaConf.merge(cfg, tiny)).eval()
        with torch.no_grad():  # random queries differ from each other more than what they hear
            model.perception.adapter.queries.copy_(model.perception.adapter.queries[:, :1].clone())
        return model

    return make


@pytest.fixture(params=[SALM, CTCPromptedLLM, InstructLAS, DeSTA2], ids=lambda model: model.__name__)
def model(request) -> SpeechLM:
    """Each of the four at tiny size, in eval mode; all of it may be trained."""
    name, changes = {
        SALM: ("make_salm", {"ctc_compression": False, "train_ds": None, "validation_ds": None}),
        CTCPromptedLLM: ("make_ctc_prompted", {}),
        InstructLAS: ("make_instruct_las", {}),
        DeSTA2: ("make_desta2", {}),
    }[request.param]
    made = request.getfixturevalue(name)(**changes)
    made.cfg.generation.max_new_tokens = 2
    return made.requires_grad_(True)


def said(model: SpeechLM, samples, text: str, name: str = "test") -> Conversation:
    metadata = {"text": text, "lang": "en", "transcription": "hello"}
    return model.builder.conversation(Audio(torch.as_tensor(samples)), metadata, name, text)


@pytest.fixture
def lessons(model, make_audio) -> list[Conversation]:
    """Four recordings of one length, each of another text."""
    return [said(model, make_audio(1.0, seed), text, str(seed)) for seed, text in enumerate(TEXTS)]


def collate(model: SpeechLM, conversations: list[Conversation]) -> ConversationBatch:
    return ConversationDataset(model.builder).collate(conversations)


def counted(model: SpeechLM, batch: ConversationBatch) -> ListeningTally:
    tally = ListeningTally()
    with torch.no_grad():
        perceived = model.perceive(batch)
        model.loss(batch, perceived)
        count_listening(model, tally, batch, perceived)
    return tally


def learn(model: SpeechLM, batch: ConversationBatch, is_done: Callable[[ListeningTally], bool]) -> ListeningTally:
    """Lets the decoder learn the batch by heart until it is done, and returns what is counted then."""
    decoder = model.text_decoder if isinstance(model, InstructLAS) else model.llm
    optimizer = torch.optim.Adam(decoder.parameters(), lr=3e-3)
    with torch.no_grad():
        perceived = model.perceive(batch)
    for step in range(300):
        if step % 5 == 0 and is_done(tally := counted(model, batch)):
            break
        optimizer.zero_grad()
        model.lm_loss(batch, perceived).value.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
    return tally


@torch.no_grad()
def centre(model: SpeechLM, batch: ConversationBatch) -> None:
    """States of random weights are much alike: of what is projected the mean is taken away, so that audios differ."""
    linear, (states, _) = model.perception.projection.linear, model.perceive(batch).adapted
    linear.bias.copy_(-(linear.weight @ states.mean((0, 1))))


def test_a_model_that_does_not_listen_is_told_so_until_it_does(model, lessons, nemo_log):
    batch, scale = collate(model, lessons), model.perception.projection.scale
    centre(model, batch)
    size = scale.detach().clone()
    scale.data.zero_()  # nothing of the audio reaches the decoder
    deaf = learn(model, batch, lambda tally: tally.figures()["loss_right_audio"] < 4.0)
    assert deaf.figures()["listening"] == pytest.approx(0.0, abs=1e-4) and deaf.is_deaf
    model.validation_step(batch, 0)
    model.on_validation_epoch_end()
    last = nemo_log.records[-1]
    assert last.levelname == "WARNING" and "val_listening is " in last.message and "(4 of 4 answers)" in last.message
    assert last.message.endswith(f"The model writes fluently and hardly listens; {type(model).deaf_remedy}")

    nemo_log.clear()
    scale.data.copy_(size)
    listens = learn(model, batch, lambda tally: tally.other > 2 * tally.right)
    assert listens.other > 2 * listens.right and not listens.is_deaf
    model.validation_step(batch, 0)
    model.on_validation_epoch_end()
    assert [record.levelname for record in nemo_log.records if "val_listening" in record.message] == ["INFO"]


def test_the_loss_with_another_audio_is_that_of_the_same_text_beside_it(model, lessons):
    batch = collate(model, lessons)
    found = counted(model, batch).figures()
    tokens = model.losses(batch, model.perceive(batch))["lm_loss"].of_answers[1]
    shares = (tokens / tokens.sum()).tolist()
    audios = [lesson.audios for lesson in lessons]
    exchanged = [item.with_audios(other) for item, other in zip(lessons, audios[1:] + audios[:1], strict=True)]
    for name, conversations in (("loss_right_audio", lessons), ("loss_other_audio", exchanged)):
        losses = model.answer_losses(conversations)
        expected = sum(share * loss for share, loss in zip(shares, losses, strict=True))
        assert found[name] == pytest.approx(expected, rel=1e-4)
    assert found["listening"] == pytest.approx(found["loss_other_audio"] - found["loss_right_audio"])


def test_what_is_counted_changes_no_random_number_and_no_other_figure(model, lessons):
    batch = collate(model, lessons)
    expected = float(model.loss(batch)["loss"].detach())
    before = torch.get_rng_state()
    model.validation_step(batch, 0)
    assert torch.equal(torch.get_rng_state(), before)
    (tally,) = model._validation_tallies.values()
    assert float(tally.loss / tally.items) == pytest.approx(expected, rel=1e-6)
    assert set(tally.figures()) - {"alignment"} == {
        *("loss", "wer", "cer", "loss_right_audio", "loss_other_audio", "listening"),
    }
    assert ("alignment" in tally.figures()) == (model.ctc is not None)


def test_an_answer_alone_in_its_batch_is_left_out_and_counted(model, lessons, nemo_log):
    for lesson in lessons[:2]:
        model.validation_step(collate(model, [lesson]), 0)
    (tally,) = model._validation_tallies.values()
    assert (tally.listening.answers, tally.listening.left_out) == (0, 2)
    assert "listening" not in tally.figures()
    model.on_validation_epoch_end()
    assert "none of 2 answers is in a batch with another audio" in nemo_log.messages[-1]


class TestOtherAudios:
    builder = ConversationBuilder(OmegaConf.structured(Prompt))

    def others(self, *rows: tuple) -> list[int | None]:
        """Of rows (samples or text, transcript, answer)."""
        conversations = []
        for audio, text, answer in rows:
            item = SpokenText(audio) if isinstance(audio, str) else Audio(torch.tensor(audio))
            turns = [Turn("user", [item]), Turn("assistant", [answer])]
            conversations.append(Conversation("a", turns, {"text": text} if text else {}))
        return other_audios(ConversationDataset(self.builder).collate(conversations))

    def test_it_is_the_next_one(self):
        assert self.others(([0.1], "a", "a"), ([0.2], "b", "b"), ([0.3], "c", "c")) == [1, 2, 0]

    def test_it_is_not_one_with_the_same_answer(self):
        assert self.others(([0.1], "a", "A."), ([0.2], "b", "a"), ([0.3], "c", "c")) == [2, 2, 0]

    def test_it_is_not_one_in_which_the_same_is_said(self):
        rows = ([0.1], "Un, deux.", "un deux"), ([0.2], "un deux", "deux un"), ([0.3], "trois", "trois")
        assert self.others(*rows) == [2, 2, 0]

    def test_it_is_not_the_same_recording(self):
        assert self.others(([0.1], None, "hello"), ([0.1], None, "hola"), ([0.1, 0.1], None, "one")) == [2, 2, 0]

    def test_nothing_is_said_in_an_audio_without_speech(self):
        assert self.others(([0.1], "", ""), ([0.2], "", ""), ([0.3], "a", "a")) == [2, 2, 0]

    def test_texts_in_the_place_of_audio_are_compared_as_texts(self):
        assert self.others(("a", "a", "a"), ("b", "b", "b")) == [1, 0]

    def test_there_may_be_none(self):
        assert self.others(([0.1], "a", "a")) == [None]
        assert self.others(([0.1], "a", "a"), ([0.2], "b", "a")) == [None, None]

    def test_a_conversation_may_have_several(self):
        turns = [Turn("user", [Audio(torch.tensor([x])) for x in (0.1, 0.2)]), Turn("assistant", ["a"])]
        other = Conversation("b", [Turn("user", [Audio(torch.tensor([0.3]))]), Turn("assistant", ["b"])])
        batch = ConversationDataset(self.builder).collate([Conversation("a", turns), other])
        assert other_audios(batch) == [2, 2, 0]


def test_another_audio_is_cut_to_the_length_of_the_one_it_replaces(salm, make_audio):
    lessons = [said(salm, make_audio(seconds, 0), text) for seconds, text in zip((0.5, 2.0), TEXTS, strict=False)]
    perceived = salm.perceive(collate(salm, lessons))
    exchanged = perceived.exchanged([1, 0])
    for name in ("encoded", "adapted", "embeddings", "frames"):
        (values, lengths), (other, other_lengths) = getattr(perceived, name), getattr(exchanged, name)
        assert other_lengths.tolist() == [lengths[0], lengths[0]]
        assert torch.equal(other[0, : lengths[0]], values[1, : lengths[0]])


def test_a_text_that_does_not_fit_into_its_audio_is_not_aligned(make_salm, make_audio):
    salm = make_salm(train_ds=None, validation_ds=None)
    batch = collate(
        salm, [said(salm, make_audio(0.3), "one two three four five six " * 9), said(salm, make_audio(1.0), "a")]
    )
    assert counted(salm, batch).aligned_tokens == 1


@pytest.mark.parametrize("model_class", [SALM, CTCPromptedLLM, InstructLAS, DeSTA2], ids=lambda m: m.__name__)
def test_remedies_name_recipes_that_are_there(model_class):
    recipes = re.findall(r"conf/[\w/]+\.yaml", model_class.deaf_remedy)
    assert recipes and all((ROOT / recipe).is_file() for recipe in recipes)

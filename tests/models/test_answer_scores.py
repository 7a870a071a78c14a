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

"""How likely the answers are that a model is given: the same numbers as in training, whatever stands beside them."""

import pytest
import torch

from nemo_speechllm.data.conversation import Conversation, Turn
from nemo_speechllm.decoding import rescoring
from nemo_speechllm.models.answer_scores import require_answer_scores, require_trained_decoder
from nemo_speechllm.models.cascade import Cascade
from nemo_speechllm.models.whisper_baseline import WhisperBaseline
from tests.questions import asked, collate

LABELS = ["happy", "not happy at all", "Angry", "happy and calm"]
SECONDS = (1.0, 0.4, 1.7)


@pytest.fixture(params=["salm", "desta2", "instruct_las"])
def model(request):
    """A model whose answers depend on the audio."""
    if request.param == "salm":
        return request.getfixturevalue("salm")
    return request.getfixturevalue(f"make_{request.param}")()


@pytest.fixture
def cascade(salm, tiny_llm_folder) -> Cascade:
    return Cascade(salm, str(tiny_llm_folder))


@pytest.fixture
def conversations(make_audio):
    found = [
        asked(make_audio(seconds, seed=i), instruction="How do they feel? " * (1 + i))
        for i, seconds in enumerate(SECONDS)
    ]
    for index, conversation in enumerate(found):
        conversation.metadata["transcription"] = "what a day " * index
    return found


def log_probs(scores):
    return [[score.log_prob for score in of_one] for of_one in scores]


def test_a_score_is_minus_the_loss_of_the_answer_times_its_tokens(model, conversations):
    scores = model.score_answers(conversations, [LABELS] * 3)
    for conversation, of_one in zip(conversations, scores, strict=True):
        losses = model.answer_losses([conversation.with_answer(label) for label in LABELS])
        for score, loss in zip(of_one, losses, strict=True):
            assert score.log_prob == pytest.approx(-loss * score.tokens, rel=1e-4, abs=1e-4)
    assert [len(set(column)) for column in zip(*log_probs(scores), strict=True)] == [3] * 4  # the audio is heard


def test_the_end_is_one_of_the_tokens(salm, conversations):
    (scores,) = salm.score_answers(conversations[:1], [["happy", "happy and calm"]])
    assert [score.tokens for score in scores] == [
        1 + len(salm.tokenizer(text, add_special_tokens=False).input_ids) for text in ("happy", "happy and calm")
    ]


def test_neither_batch_nor_order_nor_other_answers_change_a_score(model, conversations, monkeypatch):
    alone = [model.score_answers([item], [[label]])[0][0].log_prob for item in conversations for label in LABELS]
    together = log_probs(model.score_answers(conversations, [LABELS] * 3))
    assert sum(together, []) == pytest.approx(alone, rel=1e-4, abs=1e-4)
    backwards = log_probs(model.score_answers(conversations[::-1], [LABELS[::-1], LABELS[:2], LABELS[::-1]]))
    assert backwards[0] == pytest.approx(together[2][::-1], rel=1e-4, abs=1e-4)
    assert backwards[1] == pytest.approx(together[1][:2], rel=1e-4, abs=1e-4)
    monkeypatch.setattr(rescoring, "ANSWERS_AT_ONCE", 3)  # more than are read at once
    in_parts = log_probs(model.score_answers(conversations, [LABELS] * 3))
    assert sum(in_parts, []) == pytest.approx(alone, rel=1e-4, abs=1e-4)


def test_every_audio_is_encoded_once_and_its_own_answers_are_not_read(model, conversations):
    encoded: list[int] = []
    model.perception.encoder.register_forward_hook(lambda _, given, __: encoded.extend(given[1].tolist()))
    scores = model.score_answers(conversations, [LABELS] * 3)
    assert sorted(encoded) == sorted(len(audio.load()) for item in conversations for audio in item.audios)
    answered = [conversation.with_answer("calm") for conversation in conversations]
    assert log_probs(model.score_answers(answered, [LABELS] * 3)) == log_probs(scores)


def test_a_cascade_scores_as_its_llm_does(cascade, conversations):
    scores = cascade.score_answers(conversations, [LABELS] * 3)
    for conversation, of_one in zip(conversations, scores, strict=True):
        (instruction,) = [part for part in conversation.turns[0].parts if isinstance(part, str)]
        question = f'Transcription of the audio: "{conversation.metadata["transcription"]}"\n{instruction}'
        text = cascade.tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, tokenize=False
        )
        for label, score in zip(LABELS, of_one, strict=True):
            prompt, answer = (cascade.tokenizer(part, add_special_tokens=False).input_ids for part in (text, label))
            answer.append(cascade.prompt.end_token_id)
            with torch.no_grad():
                logits = cascade.llm(torch.tensor([prompt + answer], device=cascade.llm.device)).logits[0]
            expected = logits[len(prompt) - 1 : -1].log_softmax(-1)[range(len(answer)), answer].sum()
            assert score.log_prob == pytest.approx(float(expected), rel=1e-4, abs=1e-4)
            assert score.tokens == len(answer)


def test_a_cascade_transcribes_once(cascade, conversations, monkeypatch):
    calls: list[int] = []
    heard = lambda audios: calls.append(len(audios)) or ["what a day"] * len(audios)  # noqa: E731
    monkeypatch.setattr(cascade.transcriber, "transcribe", heard)
    for conversation in conversations:
        del conversation.metadata["transcription"]
    cascade.score_answers(conversations, [LABELS] * 3)
    assert calls == [3]


def test_what_was_taught_is_the_likeliest(make_salm):
    """By construction: each question was answered with one of the labels until that was learned."""
    model, labels = make_salm(lora=None), ["happy", "sad", "not happy at all"]
    lessons = [
        Conversation(who, [Turn("user", [f"Which mood is {who} in?"]), Turn("assistant", [label])])
        for who, label in zip(("Ann", "Bob", "Joe"), labels, strict=True)
    ]
    batch, llm = collate(model, lessons), model.llm.requires_grad_(True)
    perceived, optimizer = model.perceive(batch), torch.optim.AdamW(llm.parameters(), lr=5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = model.lm_loss(batch, perceived).value
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.1
    for lesson, scores in zip(lessons, model.score_answers(lessons, [labels] * 3), strict=True):
        means = {label: score.log_prob / score.tokens for label, score in zip(labels, scores, strict=True)}
        assert max(means, key=means.__getitem__) == lesson.answer


def test_who_cannot_score_is_told_so(make_salm, make_instruct_las, cascade, conversations, whole_whisper_folder):
    assert require_answer_scores(cascade) is cascade
    with pytest.raises(
        ValueError, match="WhisperBaseline has no text decoder that reads an instruction.*scoring=text"
    ):
        require_answer_scores(WhisperBaseline(str(whole_whisper_folder)))
    by_ctc = make_instruct_las(loss={"lm_weight": 0.0, "encoder_ctc_weight": 1.0}, generation={"decoder": None})
    for refuse in (
        lambda: require_answer_scores(by_ctc),
        lambda: require_trained_decoder(by_ctc),
        lambda: by_ctc.score_answers(conversations, [LABELS] * 3),
    ):
        with pytest.raises(ValueError, match="InstructLAS was trained by CTC alone"):
            refuse()
    salm = make_salm().train()
    with pytest.raises(ValueError, match="training mode"):
        salm.score_answers(conversations, [LABELS] * 3)
    with pytest.raises(TypeError, match="conversation 1 is str"):
        salm.eval().score_answers(["x"], [LABELS])

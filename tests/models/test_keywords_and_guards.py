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

"""A model's long keyword lists, its guards and its training on keywords, with a tiny SALM."""

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from nemo_speechllm.data.conversation import Audio
from nemo_speechllm.data.dataset import ConversationDataset
from nemo_speechllm.decoding.keyword_filter import best_path_ratios
from nemo_speechllm.models import SALM
from nemo_speechllm.models.answers import Answer
from nemo_speechllm.modules.ctc import Transcript
from nemo_speechllm.recipes import complete
from nemo_speechllm.recipes.generation import CTCHeadGeneration

CONTEXT = {
    "probability": 0.5,
    "words": 4,
    "positive_ratio": 0.5,
    "distractors_only": 0.1,
    "max_count": None,
    "vocabulary": None,
    "seed": 0,
}


def test_training_asks_with_keywords_also_after_a_resume(
    tiny_salm_config, make_manifest, make_trainer, save_at, tmp_path
):
    tiny_salm_config.model.validation_ds.manifest_filepath = str(make_manifest((0.5,), "dev.jsonl"))

    def fit(steps, ckpt_path=None, callbacks=()):
        torch.manual_seed(0)
        trainer = make_trainer(max_steps=steps, callbacks=list(callbacks), limit_val_batches=0)
        model = SALM(OmegaConf.merge(tiny_salm_config.model, {"keyword_context": CONTEXT}), trainer)
        asked, loss = [], model.loss

        def recorded(batch, *known):
            asked.extend((c.id, c.question) for c in batch.conversations)
            return loss(batch, *known)

        model.loss = recorded
        trainer.fit(model, ckpt_path=ckpt_path)
        return asked

    whole = fit(6, callbacks=[save_at(3, tmp_path / "x.ckpt")])
    assert len(whole) == 12 and fit(6, ckpt_path=tmp_path / "x.ckpt") == whole[6:]
    lists = [question.keywords for _, question in whole if question.keywords]
    assert 0 < len(lists) < 12 and all(len(keywords) == 4 for keywords in lists)
    assert all(question.instruction == "Transcribe the speech." for _, question in whole)


@pytest.fixture
def ask(make_audio):
    """``ask(model, samples=None, **metadata)`` → the answer to one question of the model's own."""

    def answer(model, samples=None, **metadata) -> Answer:
        audio = Audio(torch.from_numpy(make_audio(1.0)) if samples is None else samples)
        return model.generate([model.builder.conversation(audio, metadata, "x")])[0]

    return answer


@pytest.fixture
def says(salm, monkeypatch):
    """``says(llm, ctc, beam="")`` → the SALM, whose LLM and CTC now answer so, and what the LLM was asked."""

    def pretend(llm: str, ctc: str, beam: str = ""):
        asked = []

        def generate_answers(batch, perceived, max_new_tokens, beam_size):
            questions = [conversation.question for conversation in batch.conversations]
            asked.extend(item.keywords if item.prompted is None else item.prompted for item in questions)
            return [Answer(beam if beam_size > 1 else llm, [1], False) for _ in batch.conversations]

        monkeypatch.setattr(salm, "generate_answers", generate_answers)
        monkeypatch.setattr(salm.ctc, "greedy", lambda _, lengths: [Transcript([1], ctc) for _ in lengths])
        return salm, asked

    return pretend


def test_a_long_list_is_cut_to_what_ctc_may_have_heard(says, ask):
    model, asked = says("", "call ada lovelace")
    model.ctc.log_ratios = lambda states, tokens: torch.zeros(4, 1 + len(tokens))
    model.cfg.generation.max_keywords = 2
    ask(model, keywords=["Ottawa", "Lovelace", "zebra", "Ada"])
    assert asked == [["Lovelace", "Ada"]]
    asked.clear()
    ask(model, keywords="Ottawa, Lovelace")
    assert asked == [["Ottawa", "Lovelace"]], "short enough to stay as it is"
    model.cfg.generation.max_keywords = None
    asked.clear()
    ask(model, keywords=[f"a{number}" for number in range(99)])
    assert len(asked) == 1


def test_a_long_list_in_a_batch_is_that_of_its_own_item(salm, make_audio):
    salm.cfg.generation.max_keywords = 3
    audios = [make_audio(seconds, seed=i) for i, seconds in enumerate((1.0, 0.6, 1.4))]
    keywords = [f"{a}{b}" for a in "abcdefgh" for b in ("an", "et", "is")]
    together = salm.transcribe(audios, keywords=keywords, batch_size=3, verbose=False)
    assert together == [salm.transcribe([audio], keywords=keywords, verbose=False)[0] for audio in audios]


def test_a_long_list_for_a_translation_is_refused(salm, ask):
    salm.cfg.generation.max_keywords = 2
    with pytest.raises(ValueError, match="x: 3 keywords of a translation, more than generation.max_keywords=2"):
        ask(salm, keywords=["uno", "dos", "tres"], task="ast", lang="en", target_lang="es")


@pytest.mark.parametrize("kind", ["salm", "ctc_prompted", "instruct_las"])
def test_ctcs_own_answer_is_the_likeliest_in_its_evidence(kind, make_audio, request):
    model = request.getfixturevalue(f"make_{kind}")().eval()
    if kind == "salm":
        model.ctc.seen[:] = True
    audios = [make_audio(seconds, seed=i) for i, seconds in enumerate((1.0, 0.6))]
    metadata = {"task": "asr", "lang": "en"}
    conversations = [model.builder.conversation(Audio(torch.from_numpy(audio)), metadata, "x") for audio in audios]
    batch = ConversationDataset(model.builder).collate(conversations).to(model.device)
    found = model.answering.evidence(batch, model.perceive(batch))
    for answer, evidence in zip(model.generate(conversations, decoder="ctc"), found, strict=True):
        assert answer.ids and answer.text == evidence.text
        tokens, classes = torch.tensor(answer.ids).unique(return_inverse=True)
        log_ratios = evidence.log_ratios(tokens)
        assert log_ratios.max() < 1e-4
        found = best_path_ratios(log_ratios, classes[None] + 1, torch.tensor([len(answer.ids)]))
        assert found.item() == pytest.approx(0, abs=1e-4)


def test_without_ctc_a_long_list_is_refused(make_salm, ask):
    model = make_salm(loss={"ctc_weight": 0}, ctc_compression=False, generation={"ctc_weight": 0, "max_keywords": 2})
    with pytest.raises(
        ValueError, match="3 keywords, more than generation.max_keywords=2: this needs CTC's hypothesis"
    ):
        ask(model, keywords=["a", "b", "c"])
    model.cfg.generation.guards = {"disagreement": "ctc"}
    with pytest.raises(ValueError, match="guards: disagreement: this needs CTC's hypothesis"):
        ask(model)


@pytest.mark.parametrize(
    ("generation", "message"),
    [
        ({"max_tokens": 9}, "generation has no setting 'max_tokens'; did you mean 'max_new_tokens'"),
        ({"guards": {"loops": "ctc"}}, "model.generation.guards has no setting 'loops'; did you mean 'loop'"),
        (
            {"max_keywords": -1},
            "generation.max_keywords is -1; it must be a whole number, at least 0, or null",
        ),
        ({"max_keywords": "8"}, "generation.max_keywords is '8'"),
        ({"ctc_weight": 7}, "generation.ctc_weight is 7; it must be a number, from 0 to 1"),
        ({"max_audio_seconds": 0}, "generation.max_audio_seconds is 0; it must be a number, at least 0.5, or null"),
    ],
)
def test_a_wrong_setting_is_an_error_before_anything_is_heard(make_salm, generation, message):
    with pytest.raises(ValueError, match=message):
        make_salm(generation=generation)


@pytest.mark.parametrize(
    ("guards", "llm", "expected", "found"),
    [
        ({"loop": "ctc"}, "one two " * 20, "press one", ("loop: ctc",)),
        ({"loop": "retry"}, "one two " * 20, "from the beam", ("loop: retry",)),
        ({"chatter": "empty"}, "As an AI I cannot hear.", "", ("chatter: empty",)),
        ({"disagreement": "ctc"}, "good morning", "press one", ("disagreement: ctc",)),
        ({"loop": "ctc", "disagreement": "ctc"}, "press one", "press one", ()),
        (None, "one two " * 20, "one two " * 20, ()),
    ],
)
def test_a_fault_is_mended_and_noted(says, ask, guards, llm, expected, found):
    model, _ = says(llm, "press one", "from the beam")
    model.cfg.generation.guards = guards
    answer = ask(model)
    assert (answer.text, answer.interventions) == (expected, found)


@pytest.mark.parametrize("guard", ["loop", "chatter", "disagreement"])
def test_a_limit_of_tokens_is_kept_where_what_was_said_is_right(says, make_audio, monkeypatch, guard):
    """CTC's whole text in the place of the few words that were asked for undid the limit."""
    said = "press one for sales or two for all other things"
    model, _ = says(said, said)
    model.cfg.generation.guards = {guard: "ctc"}

    def cut(batch, perceived, max_new_tokens, beam_size):
        return [Answer(" ".join(said.split()[:max_new_tokens]), [1] * max_new_tokens, True)]

    monkeypatch.setattr(model, "generate_answers", cut)
    question = model.builder.conversation(Audio(torch.from_numpy(make_audio(1.0))), {}, "x")
    (answer,) = model.generate([question], max_new_tokens=2)
    assert (answer.text, answer.truncated, answer.interventions) == ("press one", True, ())


def test_only_transcripts_are_guarded(says, ask):
    model, _ = says("As an AI I cannot hear.", "press one")
    model.cfg.generation.guards = {"silence": "empty", "chatter": "ctc"}
    silence = torch.zeros(16000)
    assert ask(model, silence, instruction="Who speaks?").text == "As an AI I cannot hear."
    assert ask(model, silence).interventions == ("silence: empty",)


def test_silence_is_answered_with_nothing_also_by_checkpoints_that_know_no_guards(salm, make_audio):
    saved = {name: value for name, value in salm.cfg.generation.items() if name != "guards"}
    salm.cfg.generation = complete(CTCHeadGeneration, saved)
    silence, speech = np.zeros(48000, dtype=np.float32), make_audio(1.0)
    hypotheses = salm.transcribe([silence, speech], return_hypotheses=True, verbose=False)
    assert hypotheses[0].text == "" and hypotheses[0].interventions == ("silence: empty",)
    assert hypotheses[1].text == salm.transcribe([speech], verbose=False)[0] != ""
    assert hypotheses[1].interventions == ()


def test_interventions_in_the_pieces_of_a_long_recording_are_kept(salm, make_audio):
    salm.cfg.generation.max_audio_seconds = 2.0
    samples = np.concatenate([make_audio(2.0), np.zeros(48000, dtype=np.float32)])
    (hypothesis,) = salm.transcribe([samples], return_hypotheses=True, verbose=False)
    assert "silence: empty" in hypothesis.interventions and hypothesis.text

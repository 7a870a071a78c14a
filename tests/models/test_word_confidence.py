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

"""How probably the words of a transcript are right, whatever model and decoder gave them."""

import pytest
import torch
from omegaconf import open_dict

from nemo_speechllm.data.dataset import ConversationDataset
from nemo_speechllm.models import load_model
from tests.models.test_timestamps import MODELS, RECORDINGS
from tests.tiny_models import asked, knowing_words


def confident(model, audio, **options) -> list:
    return model.transcribe(audio, confidence=True, verbose=False, **options)


class TestEveryModel:
    @pytest.mark.parametrize("decoder", ["llm", "ctc"])
    @pytest.mark.parametrize("kind", MODELS)
    def test_each_word_of_the_transcript_has_a_probability(self, make, audios, kind, decoder):
        model, options = make(kind), {"decoder": decoder, "max_new_tokens": 3}
        hypotheses = confident(model, audios, **options)
        assert [hypothesis.text for hypothesis in hypotheses] == model.transcribe(audios, verbose=False, **options)
        assert any(hypothesis.word_confidence for hypothesis in hypotheses)
        for hypothesis in hypotheses:
            assert len(hypothesis.word_confidence) == len(hypothesis.text.split())
            assert all(0 <= value <= 1 for value in hypothesis.word_confidence)

    @pytest.mark.parametrize("kind", MODELS)
    def test_they_do_not_depend_on_the_batch(self, make, audios, kind):
        model, options = make(kind), {"decoder": "ctc"}
        alone = [value for h in confident(model, audios, batch_size=1, **options) for value in h.word_confidence]
        together = [value for h in confident(model, audios, batch_size=5, **options) for value in h.word_confidence]
        assert together == pytest.approx(alone, abs=1e-4)

    @pytest.mark.parametrize("kind", MODELS)
    def test_silence_has_no_words(self, make, kind):
        (hypothesis,) = confident(make(kind), torch.zeros(16000))
        assert (hypothesis.text, hypothesis.word_confidence) == ("", [])

    @pytest.mark.parametrize("kind", MODELS)
    def test_words_and_the_end_are_as_likely_as_the_answer(self, make, audios, kind):
        """A text of one word has the log-probability of `score_answers`, but for the end token's."""
        model = make(kind)
        questions = [asked(model, samples) for samples in audios]
        batch = ConversationDataset(model.builder).collate(questions)
        with torch.inference_mode():
            of_words = model.word_log_probs(batch, model.perceive(batch), ["one two"] * len(audios))
            shorter = model.word_log_probs(batch, model.perceive(batch), ["one"] * len(audios))
        scores = model.score_answers(questions, [["one two"]] * len(audios))
        for (first, second), (alone,), (whole,) in zip(of_words, shorter, scores, strict=True):
            assert first == pytest.approx(alone, abs=1e-3)
            assert whole.log_prob < first + second < 0

    def test_a_long_recording_s_are_those_of_its_pieces(self, make, make_audio):
        model = make("salm")
        model.cfg.generation.max_audio_seconds = 2.0
        (whole,) = confident(model, make_audio(7.0), decoder="ctc")
        assert len(whole.word_confidence) == len(whole.text.split()) > 3


def test_times_and_confidence_stand_side_by_side(salm, audios):
    knowing_words(salm)
    (hypothesis,) = confident(salm, audios[2], timestamps=True, decoder="ctc")
    assert [word["confidence"] for word in hypothesis.timestamp["word"]] == hypothesis.word_confidence != []


def test_times_and_confidence_come_of_one_alignment_and_are_those_of_each_alone(salm, audios):
    knowing_words(salm)
    align, aligned = salm.ctc.align, []
    salm.ctc.align = lambda *given: aligned.append(given) or align(*given)
    options = {"decoder": "ctc", "return_hypotheses": True, "verbose": False}
    both, timed, sure = (
        salm.transcribe(audios[2], **options, **asked_for)[0]
        for asked_for in ({"timestamps": True, "confidence": True}, {"timestamps": True}, {"confidence": True})
    )
    assert len(aligned) == 3 and both.text == timed.text != ""
    assert both.word_confidence == sure.word_confidence
    times = [(word["start"], word["end"]) for word in both.timestamp["word"]]
    assert times == [(word["start"], word["end"]) for word in timed.timestamp["word"]]


def test_it_is_not_computed_unless_it_is_asked_for(salm, audios):
    salm.word_log_probs = lambda *_: pytest.fail("the LLM was asked")
    (hypothesis,) = salm.transcribe(audios[0], return_hypotheses=True, verbose=False)
    assert hypothesis.word_confidence is None
    assert salm.generate([asked(salm, audios[0])])[0].word_confidence is None


def test_a_recipe_s_calibration_is_what_counts(make_ctc_prompted, audios):
    model = make_ctc_prompted()
    with open_dict(model.cfg):
        model.cfg.generation.confidence = dict.fromkeys(("decoder", "ctc", "hypotheses", "letters"), 0.0) | {
            "bias": 2.0
        }
    (hypothesis,) = confident(model, audios[2], decoder="ctc")
    assert hypothesis.word_confidence == pytest.approx(
        [torch.tensor(2.0).sigmoid().item()] * len(hypothesis.text.split())
    )


@pytest.mark.parametrize("said", [{"instruction": "Say it backwards."}, {"lang": "en", "target_lang": "es"}])
def test_what_is_no_transcript_is_refused(salm, make_manifest, said):
    with pytest.raises(ValueError, match=r"manifest.jsonl:2: only the transcript of one audio has confidence"):
        confident(salm, str(make_manifest((0.5, 0.6), rows=[{}, said])))


def test_a_model_without_ctc_is_named(make_salm, audios):
    model = make_salm(loss={"ctc_weight": 0}, ctc_compression=False, generation={"ctc_weight": 0})
    with pytest.raises(ValueError, match="confidence: .*this SALM has none.*ctc_weight"):
        confident(model, audios[0])


def test_a_model_that_was_trained_by_ctc_alone_is_named(make_instruct_las, audios):
    model = make_instruct_las()
    with open_dict(model.cfg):
        model.cfg.loss.lm_weight = 0.0
    with pytest.raises(ValueError, match="trained by CTC alone"):
        confident(model, audios[0], decoder="ctc")


def test_clear_digits_are_sure():
    model = load_model("instruct_las_digits")
    (clear,) = confident(model, str(RECORDINGS / "digits_theo.flac"))
    assert clear.text == "three one four one five" and min(clear.word_confidence) > 0.8

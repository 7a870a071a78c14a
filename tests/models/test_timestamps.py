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

"""Times of the words of an answer, whatever model and decoder gave it."""

import logging
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from omegaconf import open_dict

from nemo_speechllm.data.conversation import Audio, Conversation, Turn
from nemo_speechllm.models import load_model
from nemo_speechllm.models.segmentation import split_at_pauses
from nemo_speechllm.models.speech_lm import SpeechLM
from tests.tiny_models import DURATIONS, asked, knowing_words

MODELS = ("salm", "ctc_prompted", "instruct_las")
RECORDINGS = Path(__file__).parents[1] / "recordings"


def timed(model: SpeechLM, audio, **options) -> list:
    return model.transcribe(audio, timestamps=True, verbose=False, **options)


class TestEveryModel:
    @pytest.mark.parametrize("decoder", ["llm", "ctc"])
    @pytest.mark.parametrize("kind", MODELS)
    def test_words_are_those_of_the_answer_in_order_inside_the_audio(self, make, audios, kind, decoder):
        model = make(kind)
        options = {
            "decoder": decoder,
            "max_new_tokens": 1,
        }  # more, at random, are more than CTC could read in a second
        hypotheses = timed(model, audios, **options)
        texts = model.transcribe(audios, verbose=False, **options)
        assert [hypothesis.text for hypothesis in hypotheses] == texts
        assert any(hypothesis.timestamp["word"] for hypothesis in hypotheses)
        for hypothesis, seconds in zip(hypotheses, DURATIONS, strict=True):
            words = hypothesis.timestamp["word"]
            assert [word["word"] for word in words] in ([], hypothesis.text.split())
            times = [time for word in words for time in (word["start"], word["end"])]
            assert times == sorted(times) and all(0 <= time <= seconds for time in times)
            assert " ".join(part["segment"] for part in hypothesis.timestamp["segment"]) == " ".join(
                word["word"] for word in words
            )

    @pytest.mark.parametrize("kind", MODELS)
    def test_they_do_not_depend_on_the_batch(self, make, audios, kind):
        model = make(kind)
        alone = [hypothesis.timestamp for hypothesis in timed(model, audios, batch_size=1, decoder="ctc")]
        assert [h.timestamp for h in timed(model, audios, batch_size=5, decoder="ctc")] == alone
        assert [h.timestamp for h in timed(model, audios[::-1], batch_size=3, decoder="ctc")] == alone[::-1]

    @pytest.mark.parametrize("kind", MODELS)
    def test_the_encoder_is_run_once(self, make, audios, kind):
        model, runs = make(kind), []
        model.perception.encoder.register_forward_hook(lambda *_: runs.append(1))
        guards = {kind: "ctc" for kind in ("silence", "loop", "chatter", "disagreement")}
        with open_dict(model.cfg):
            model.cfg.generation.guards = guards
        timed(model, audios[:2])
        assert runs == [1]

    @pytest.mark.parametrize("kind", MODELS)
    def test_a_long_recording_s_are_those_of_its_pieces_from_where_they_begin(self, make, make_audio, kind):
        model = make(kind)
        model.cfg.generation.max_audio_seconds = 2.0
        samples = torch.from_numpy(make_audio(7.0))
        pieces = list(split_at_pauses([samples], len(samples), 2.0))
        expected, times, start = [], [], 0.0
        for piece in pieces:
            (hypothesis,) = timed(model, piece.numpy(), decoder="ctc")
            expected += [word["word"] for word in hypothesis.timestamp["word"]]
            times += [word[place] + start for word in hypothesis.timestamp["word"] for place in ("start", "end")]
            start += len(piece) / 16000
        (whole,) = timed(model, samples.numpy(), decoder="ctc", batch_size=3)
        words = whole.timestamp["word"]
        assert len(pieces) > 3 and len(words) > 3
        assert [word["word"] for word in words] == expected == whole.text.split()
        assert [word[place] for word in words for place in ("start", "end")] == pytest.approx(times)

    @pytest.mark.parametrize("kind", MODELS)
    def test_a_frame_lasts_as_long_as_the_audio_says(self, make, make_audio, kind):
        """What CTC reads of 8 s has as many frames as its shift says, but for one at either end."""
        model = make(kind)
        audio, lengths = torch.from_numpy(make_audio(8.0))[None], torch.tensor([128000])
        perceived = model.perception(audio, lengths)
        states = model.ctc_states(perceived)
        assert int(states[1]) == pytest.approx(8.0 / model.perception.shift_of(perceived, states), abs=1.01)


class TestWithoutTimes:
    def test_an_answer_that_ctc_cannot_read_is_named(self, make_ctc_prompted, audios, nemo_log):
        model = make_ctc_prompted()
        with nemo_log.at_level(logging.WARNING):
            (answer,) = model.answering.answer(
                [asked(model, audios[1])], 1, timestamps=True, max_new_tokens=64, beam_size=1, decoder="llm"
            )
        assert answer.text and answer.words is None
        assert "recording 7: the words of" in nemo_log.text and "so little audio" in nemo_log.text

    def test_silence_has_no_words(self, make_ctc_prompted):
        model = make_ctc_prompted()
        with open_dict(model.cfg):
            model.cfg.generation.guards = {"silence": "empty"}
        (hypothesis,) = timed(model, np.zeros(16000, dtype=np.float32))
        assert (hypothesis.text, hypothesis.timestamp) == ("", {"word": [], "segment": []})

    def test_they_are_not_computed_unless_they_are_asked_for(self, salm, audios):
        (hypothesis,) = salm.transcribe(audios[0], return_hypotheses=True, verbose=False)
        assert "word" not in hypothesis.timestamp
        (answer,) = salm.generate([asked(salm, audios[0])])
        assert answer.words is None

    @pytest.mark.parametrize("said", [{"instruction": "Say it backwards."}, {"lang": "en", "target_lang": "es"}])
    def test_what_is_no_transcript_is_refused_before_any_audio_is_encoded(self, salm, make_manifest, said):
        manifest = make_manifest(rows=[{}, {}, said, {}])
        salm.perception.encode = lambda *_: pytest.fail("the encoder was run")
        with pytest.raises(ValueError, match=r"manifest.jsonl:3: only the transcript of one audio has timestamps"):
            timed(salm, str(manifest), batch_size=1)

    def test_a_transcript_in_one_s_own_words_has_times(self, salm, make_manifest):
        knowing_words(salm)
        manifest = make_manifest((2.0,), task="asr", instruction="Write down what is said.")
        assert timed(salm, str(manifest), decoder="ctc")[0].timestamp["word"]

    def test_several_audios_are_refused(self, salm, audios):
        parts = [*map(Audio.from_samples, audios[:2]), "Transcribe the speech."]
        conversation = Conversation("two", [Turn("user", parts)], {"task": "asr"})
        with pytest.raises(ValueError, match="two: only the transcript of one audio has timestamps"):
            salm.answering.answer([conversation], 1, timestamps=True, max_new_tokens=4, beam_size=1)

    def test_a_model_without_ctc_is_named(self, make_salm, audios):
        model = make_salm(loss={"ctc_weight": 0}, ctc_compression=False, generation={"ctc_weight": 0})
        with pytest.raises(ValueError, match="timestamps: .*this SALM has none.*ctc_weight"):
            timed(model, audios[0])

    def test_ctc_that_hears_no_words_gives_no_times(self, salm, audios):
        salm.alignment.transcribes = False
        with pytest.raises(ValueError, match="timestamps: .*none that hears words"):
            timed(salm, audios[0])


@pytest.mark.parametrize(
    ("name", "starts"),
    [("digits_theo", (0.0, 0.325, 0.733, 1.096, 1.415)), ("digits_jackson", (0.0, 0.637, 1.34, 1.943))],
)
def test_the_shipped_digits_are_found_where_they_are_said(name, starts):
    """The recordings were joined of single words, so it is known where each begins."""
    path = RECORDINGS / f"{name}.flac"
    (hypothesis,) = timed(load_model("instruct_las_digits"), str(path))
    words = hypothesis.timestamp["word"]
    assert [word["word"] for word in words] == hypothesis.text.split()
    assert [word["start"] for word in words] == pytest.approx(starts, abs=0.2)
    assert all(word["start"] < word["end"] <= soundfile.info(path).duration for word in words)
    assert all(word["end"] <= after["start"] for word, after in pairwise(words))

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
"""Whisper's own decoder on the states of a speech LM's encoder."""

import math
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from nemo_speechllm.data.conversation import Audio
from nemo_speechllm.models.whisper_baseline import WhisperBaseline
from nemo_speechllm.models.whisper_reader import SILENCE_SECONDS, WhisperReader, WhisperReading
from nemo_speechllm.modules.encoders import build_encoder

RECORDING = Path(__file__).parents[1] / "recordings/evening.flac"
TEXTS = ["Hold on.", "", "Please hold the line!"]


def section(whisper: Path | str, **changes):
    encoder = {"type": "whisper", "pretrained": str(whisper), "config": None, "trim": True}
    return OmegaConf.create(encoder | {"taps": None, "spec_augment": None} | changes)


@pytest.fixture(scope="module")
def base():
    """Whisper-base: an encoder of a speech LM, and a reader of its states."""
    cfg = section("whisper-base")
    return build_encoder(cfg).eval(), WhisperReader(cfg)


@pytest.fixture
def reading(whole_whisper_folder, make_audio) -> WhisperReading:
    cfg = section(whole_whisper_folder)
    return WhisperReader(cfg).read(build_encoder(cfg).eval(), torch.from_numpy(make_audio(1.0)), "en")


@pytest.mark.parametrize("language", ["en-US", None])
def test_it_writes_what_whisper_does_of_its_whole_window_and_finds_that_likeliest(base, language):
    encoder, reader = base
    audio = Audio.from_file(RECORDING)
    reading = reader.read(encoder, audio.load(), language)
    (text,) = reading.texts()
    whisper = WhisperBaseline("whisper-base")
    (whole,) = whisper.generate([whisper.builder.conversation(audio, {"lang": "en"}, "test")])
    assert text == whole.text and len(text.split()) > 8
    of_it, *others = reading.log_probs([text, "For the twentieth time that morning.", "", text + " Thank you."])
    assert -20 < of_it < 0 and of_it > max(others) + 2


def test_a_text_has_the_log_probability_of_hugging_faces_loss_whatever_stands_beside_it(reading):
    model, tokenizer, states = reading._model, reading._tokenizer, reading._states
    begin = tokenizer.convert_tokens_to_ids(["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"])
    for text, found in zip(TEXTS, reading.log_probs(TEXTS), strict=True):
        ids = tokenizer(" " + text if text else "", add_special_tokens=False).input_ids + [tokenizer.eos_token_id]
        with torch.no_grad():
            outputs = model(
                encoder_outputs=(states,),
                decoder_input_ids=torch.tensor([begin + ids[:-1]]),
                labels=torch.tensor([[-100] * (len(begin) - 1) + ids]),
            )
        assert found == pytest.approx(-float(outputs.loss) * len(ids), abs=1e-3)
        assert reading.log_probs([text]) == pytest.approx([found], abs=1e-3)


def test_a_text_with_more_tokens_than_whisper_reads_cannot_have_been_said(reading):
    short, long = reading.log_probs(["Hold on.", "please hold the line " * 5])
    assert math.isfinite(short) and long == -math.inf
    assert reading.log_probs([]) == [] and reading.log_probs(["please hold the line " * 5]) == [-math.inf]


def test_words_share_the_log_probability_of_their_text_but_for_its_end(reading, monkeypatch):
    text = "Please hold the line!"
    (whole,) = reading.log_probs([text])
    monkeypatch.setattr(reading, "_token_log_probs", lambda rows: pytest.fail("it was read twice"))
    of_words = reading.word_log_probs(text)
    end = reading._read[text][1][-1]
    assert len(of_words) == 4 and max(of_words) < 0 and sum(of_words) + end == pytest.approx(whole)
    assert reading.word_log_probs("please hold the line " * 5) is None


def test_what_comes_to_no_end_is_no_text(reading):
    assert reading.texts() == []


def test_silence_is_added_up_to_a_window_and_not_beyond(base):
    seen = []

    def encoder(samples, lengths):
        seen.append((samples.shape[1] / 16000, lengths.tolist()))
        return torch.zeros(1, 50, 512), lengths

    for seconds in (1, 25, 30):
        base[1].read(encoder, torch.zeros(seconds * 16000), "en")
    assert seen == [(1 + SILENCE_SECONDS, [16000 * (1 + SILENCE_SECONDS)]), (30, [480000]), (30, [480000])]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"type": "nemo"}, "encoder is no Whisper's"),
        ({"pretrained": None}, "names no Whisper"),
        ({"taps": [1, 3]}, r"last layer alone.*taps=\[1, 3\]"),
    ],
)
def test_an_encoder_that_whispers_decoder_cannot_read_is_named(changes, message):
    with pytest.raises(ValueError, match=f"model.generation.whisper_weight: .*{message}.*set it to 0"):
        WhisperReader(section("whisper-base", **changes)).read(torch.nn.Identity(), torch.zeros(16000), None)


def test_a_language_that_whisper_does_not_know_is_named(base):
    with pytest.raises(ValueError, match="clips/7.wav: lang 'xx' is no language that Whisper knows"):
        base[1].read(base[0], torch.zeros(16000), "xx", "clips/7.wav")

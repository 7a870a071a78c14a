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

"""Long recordings: text comes piece by piece, of a file that is never whole in memory, and is that of `transcribe`."""

import math

import numpy as np
import pytest
import soundfile
import torch
from nemo.collections.asr.parts.mixins.transcription import TranscribeConfig
from omegaconf import open_dict
from torch import nn
from torch.utils.data import DataLoader

from nemo_speechllm.data.conversation import Audio
from nemo_speechllm.data.dataset import ConversationDataset
from nemo_speechllm.models.transcription import SpeechLMTranscribeConfig
from tests.models.test_timestamps import MODELS
from tests.questions import asked


def settings(**options) -> SpeechLMTranscribeConfig:
    return SpeechLMTranscribeConfig(**{"verbose": False, "batch_size": 2} | options)


@pytest.fixture
def long_file(make_audio, tmp_path):
    """Eleven seconds of stereo at 48 kHz."""
    samples = make_audio(33.0)
    soundfile.write(tmp_path / "long.flac", np.stack([samples, 0.5 * samples], 1), 48000)
    return str(tmp_path / "long.flac")


def cut_as_a_whole(samples: torch.Tensor, max_seconds: float) -> list[torch.Tensor]:
    """The pieces of samples that are all there: how recordings were cut before they came as streams."""
    limit = int(max_seconds * 16000)
    count = math.ceil(len(samples) / (0.75 * limit))
    reach = int((limit - len(samples) / count) / 2)
    cuts = []
    for centre in (round(i * len(samples) / count) for i in range(1, count)):
        power = samples[centre - reach : centre + reach].square()[None, None]
        energy = nn.functional.avg_pool1d(power, 3200, stride=160)
        cuts.append(centre - reach + int(energy.argmin()) * 160 + 1600)
    return list(samples.tensor_split(cuts))


class TestPieces:
    @pytest.mark.parametrize("kind", MODELS)
    @pytest.mark.parametrize("decoder", ["llm", "ctc"])
    def test_a_stream_s_answers_are_those_of_pieces_cut_from_the_whole(self, make, long_file, kind, decoder):
        model = make(kind)
        model.cfg.generation.max_audio_seconds = 2.0
        pieces = cut_as_a_whole(Audio.from_file(long_file, channel_selector=0).load(), 2.0)
        options = {"decoder": decoder, "return_hypotheses": True, "verbose": False}
        alone = model.transcribe([piece.numpy() for piece in pieces], batch_size=3, **options)
        (whole,) = model.transcribe(long_file, batch_size=3, channel_selector=0, **options)
        assert len(pieces) > 6 and whole.y_sequence.tolist() == [i for item in alone for i in item.y_sequence.tolist()]

    def test_they_come_before_the_rest_is_read_and_none_is_loaded_whole(self, salm, long_file, monkeypatch):
        salm.cfg.generation.max_audio_seconds = 2.0
        load, read = Audio.load, []

        def watched(audio):
            assert isinstance(audio.source, torch.Tensor), "the file was loaded as a whole"
            read.append(audio.duration)
            return load(audio)

        monkeypatch.setattr(Audio, "load", watched)
        for number, texts in enumerate(salm.transcribe_generator(long_file, settings(channel_selector=0)), 1):
            assert len(read) <= 2 * number and len(texts) <= 2
        assert number > 3 and sum(read) == pytest.approx(11.0)

    def test_they_are_the_whole(self, salm, long_file, make_audio):
        salm.cfg.generation.max_audio_seconds = 2.0
        given = [make_audio(5.0, seed=1), make_audio(0.7, seed=2), make_audio(3.0, seed=3)]
        whole = salm.transcribe(given, verbose=False)
        for workers in (0, 1):
            texts = [
                text for texts in salm.transcribe_generator(given, settings(num_workers=workers)) for text in texts
            ]
            assert " ".join(text for text in texts if text) == " ".join(text for text in whole if text)
            assert len(texts) > len(given)

    def test_a_hypothesis_tells_its_place(self, make_ctc_prompted, make_audio):
        model = make_ctc_prompted()
        model.cfg.generation.max_audio_seconds = 2.0
        given = [make_audio(seconds, seed=i) for i, seconds in enumerate((5.0, 0.7, 3.0))]
        asked_for = settings(timestamps=True, confidence=True, decoder="ctc", batch_size=2)
        items = [item for items in model.transcribe_generator(given, asked_for) for item in items]
        whole = model.transcribe(given, override_config=asked_for)
        assert sorted({item.recording for item in items}) == [0, 1, 2]
        for number, samples in enumerate(given):
            own = [item for item in items if item.recording == number]
            assert [item.is_last for item in own] == [False] * (len(own) - 1) + [True]
            assert [item.start for item in own] == pytest.approx([0.0, *(item.end for item in own[:-1])])
            assert own[-1].end == pytest.approx(len(samples) / 16000)
            words = [word for item in own for word in item.timestamp["word"]]
            assert words == whole[number].timestamp["word"]
            assert [c for item in own for c in item.word_confidence] == whole[number].word_confidence

    def test_what_is_short_or_asks_of_the_whole_is_one(self, salm, make_audio):
        salm.cfg.generation.max_audio_seconds = 2.0
        asks = settings(return_hypotheses=True, instruction="What is it about?")
        ((item,),) = salm.transcribe_generator(make_audio(5.0), asks)
        assert (item.recording, item.start, item.end, item.is_last) == (0, 0.0, 5.0, True)

    def test_nemo_s_settings_and_a_caller_s_loader_will_do(self, salm, make_audio):
        salm.cfg.generation.max_audio_seconds = 2.0
        audio = make_audio(5.0)
        (text,) = salm.transcribe(audio, verbose=False)
        loader = DataLoader(
            [asked(audio, task="asr")], batch_size=1, collate_fn=ConversationDataset(salm.builder).collate
        )
        for given in (audio, loader):
            batches = list(salm.transcribe_generator(given, TranscribeConfig(verbose=False, batch_size=1)))
            assert len(batches) > 2 and " ".join(text for (text,) in batches if text) == text

    def test_guards_see_each_piece(self, make_ctc_prompted, make_audio):
        model = make_ctc_prompted()
        with open_dict(model.cfg):
            model.cfg.generation.guards = {"silence": "empty"}
        model.cfg.generation.max_audio_seconds = 2.0
        samples = np.concatenate([make_audio(4.0), np.zeros(4 * 16000, np.float32)])
        items = [i for items in model.transcribe_generator(samples, settings(return_hypotheses=True)) for i in items]
        silent = [item for item in items if item.start > 4.2]
        assert silent and all(item.text == "" for item in silent) and any(item.text for item in items)


class TestBatches:
    def test_they_are_bounded_in_seconds(self, salm, make_audio):
        salm.cfg.generation.max_audio_seconds = 2.0
        given, shapes, encode = [make_audio(9.0), make_audio(0.5, seed=1)], [], salm.perception.encode

        def counted(audio, lengths):
            shapes.append(audio.shape)
            return encode(audio, lengths)

        salm.perception.encode = counted
        texts = salm.transcribe(given, batch_size=8, verbose=False)
        assert max(rows for rows, _ in shapes) > 4
        shapes.clear()
        assert salm.transcribe(given, batch_size=8, batch_duration=4.0, verbose=False) == texts
        assert max(rows * samples for rows, samples in shapes) <= 4.0 * 16000 and max(rows for rows, _ in shapes) > 1

    @pytest.mark.parametrize("value", [0, -1.0, "4", True, float("nan")])
    def test_a_bound_that_is_none_is_named(self, salm, make_audio, value):
        with pytest.raises(ValueError, match="^batch_duration is .*; it must be a number of seconds above 0, or null"):
            salm.transcribe(make_audio(0.3), batch_duration=value, verbose=False)


def test_the_bar_counts_seconds_of_audio(salm, long_file, make_audio, capfd):
    salm.cfg.generation.max_audio_seconds = 2.0
    salm.transcribe([long_file, make_audio(1.0)], channel_selector=0, batch_size=2)
    assert "Transcribing: 100%" in (shown := capfd.readouterr().err) and "12/12 s of audio" in shown
    salm.transcribe(make_audio(1.0), verbose=False)
    assert capfd.readouterr().err == ""

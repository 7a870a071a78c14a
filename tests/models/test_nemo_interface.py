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

"""What NeMo's scripts ask of an ASR model, a speech LM does, or says what to use instead."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from nemo.collections.asr.parts.mixins.transcription import TranscribeConfig
from nemo.collections.asr.parts.submodules.ctc_decoding import CTCDecodingConfig
from nemo.collections.asr.parts.submodules.rnnt_decoding import RNNTDecodingConfig
from nemo.collections.asr.parts.utils.rnnt_utils import Hypothesis
from omegaconf import OmegaConf
from torch.utils.data import DataLoader

from nemo_speechllm.data.conversation import AudioError
from nemo_speechllm.data.dataset import ConversationDataset
from tests.questions import DURATIONS, asked, collate


class TestWaysOfNeMoModels:
    @pytest.mark.parametrize(
        ("name", "instead"),
        [
            ("forward", "transcribe"),
            ("export", "save_to"),
            ("save_pretrained", "save_to"),
            ("change_vocabulary", "recipe"),
        ],
    )
    def test_a_method_that_is_missing_says_what_to_use(self, salm, name, instead):
        with pytest.raises(NotImplementedError, match=f"SALM has no {name}: .*{instead}"):
            getattr(salm, name)("x")

    def test_an_attribute_that_is_missing_says_why(self, salm):
        for name in ("decoder", "joint", "preprocessor"):
            assert not hasattr(salm, name)
            with pytest.raises(AttributeError, match=f"SALM has no {name}, "):
                getattr(salm, name)
        with pytest.raises(AttributeError, match="no attribute 'anything'"):
            _ = salm.anything

    def test_nothing_but_defaults_changes_nothing(self, salm):
        before = OmegaConf.to_yaml(salm.cfg)
        for decoding in (None, CTCDecodingConfig(), OmegaConf.structured(RNNTDecodingConfig())):
            salm.change_decoding_strategy(decoding)
        assert OmegaConf.to_yaml(salm.cfg) == before
        with pytest.raises(ValueError, match="strategy=greedy"):
            salm.change_decoding_strategy({"strategy": "greedy"})


class TestTranscribe:
    @pytest.fixture
    def audio_file(self, tmp_path, make_audio):
        def make(
            seconds: float = 1.0, seed: int = 0, rate: int = 16000, channels: int = 1, name: str = "a.wav"
        ) -> Path:
            samples = make_audio(seconds * rate / 16000, seed)
            soundfile.write(tmp_path / name, np.stack([samples * (c + 1) for c in range(channels)], 1), rate)
            return tmp_path / name

        return make

    def test_path_list_array_and_tensor_agree(self, salm, audio_file):
        path = audio_file()
        samples = soundfile.read(path, dtype="float32")[0]
        expected = salm.transcribe(str(path), verbose=False)
        assert len(expected) == 1 and isinstance(expected[0], str)
        for audio in (path, [path], [str(path)], samples, torch.from_numpy(samples), [samples]):
            assert salm.transcribe(audio, verbose=False) == expected

    def test_order_does_not_depend_on_batch_size(self, salm, audio_file):
        paths = [audio_file(seconds, i, name=f"{i}.wav") for i, seconds in enumerate(DURATIONS[:5])]
        expected = [salm.transcribe(path, verbose=False)[0] for path in paths]
        assert len(set(expected)) > 2
        assert salm.transcribe(paths, batch_size=2, verbose=False) == expected
        assert salm.transcribe(paths, batch_size=5, verbose=False) == expected

    def test_hypotheses(self, salm, audio_file):
        path = audio_file()
        (hypothesis,) = salm.transcribe(path, return_hypotheses=True, verbose=False)
        assert isinstance(hypothesis, Hypothesis)
        assert hypothesis.text == salm.transcribe(path, verbose=False)[0]
        assert salm.tokenizer.decode(hypothesis.y_sequence, skip_special_tokens=True).strip() == hypothesis.text

    def test_instruction_and_keywords_are_asked(self, salm, audio_file):
        path = audio_file()
        samples = soundfile.read(path, dtype="float32")[0]
        asked_for = "The following words may occur: SALM, NeMo. What is said?"
        expected = salm.generate([asked(samples, instruction=asked_for)])[0].text
        assert salm.transcribe(path, instruction="What is said?", keywords=["SALM", "NeMo"], verbose=False) == [
            expected
        ]

    def test_an_empty_list_takes_a_manifests_keywords_away(self, salm, audio_file):
        row = {"audio_filepath": str(audio_file()), "keywords": ["SALM"]}
        for keywords, given in ((None, ["SALM"]), ([], []), (["NeMo"], ["NeMo"])):
            (item,) = salm._conversations_of([row], replace(salm.get_transcribe_config(), keywords=keywords))
            assert item.metadata["keywords"] == given

    def test_manifest_with_offset_and_duration(self, salm, audio_file, tmp_path):
        path = audio_file(3.0)
        samples = soundfile.read(path, dtype="float32")[0]
        rows = [
            {"audio_filepath": path.name, "offset": 1.0, "duration": 0.5},
            {"audio_filepath": path.name, "offset": 0.0, "duration": 0.5},
            {"audio_filepath": path.name, "instruction": "What?"},
        ]
        manifest = tmp_path / "in.jsonl"
        manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
        expected = salm.generate(
            [
                asked(samples[16000:24000], task="asr"),
                asked(samples[:8000], task="asr"),
                asked(samples, instruction="What?"),
            ]
        )
        assert salm.transcribe(str(manifest), verbose=False) == [answer.text for answer in expected]

    def test_dataloader_of_batches(self, salm, make_audio):
        conversations = [asked(make_audio(0.5)), asked(make_audio(0.9, 1))]
        loader = DataLoader(conversations, batch_size=1, collate_fn=ConversationDataset(salm.builder).collate)
        assert salm.transcribe(loader, verbose=False) == [answer.text for answer in salm.generate(conversations)]

    def test_nemos_config_objects(self, salm, audio_file):
        path = audio_file()
        expected = salm.transcribe(path, verbose=False)
        config = salm.get_transcribe_config()
        assert isinstance(config, TranscribeConfig)
        config.batch_size, config.max_new_tokens = 1, 2
        assert salm.transcribe([path], override_config=config) != expected
        assert salm.transcribe([path], override_config=TranscribeConfig(verbose=False)) == expected

    def test_missing_and_unreadable_files_are_named(self, salm, tmp_path):
        with pytest.raises(FileNotFoundError, match="gone.wav"):
            salm.transcribe(str(tmp_path / "gone.wav"), verbose=False)
        (tmp_path / "noise.wav").write_bytes(b"this is no audio")
        with pytest.raises(AudioError, match="noise.wav"):
            salm.transcribe(str(tmp_path / "noise.wav"), verbose=False)
        with pytest.raises(ValueError, match="no audio"):
            salm.transcribe([], verbose=False)

    def test_a_part_beyond_the_end_is_named(self, salm, audio_file, tmp_path):
        manifest = tmp_path / "in.jsonl"
        manifest.write_text(json.dumps({"audio_filepath": audio_file(1.0).name, "offset": 5.0, "duration": 1.0}))
        with pytest.raises(AudioError, match="a.wav"):
            salm.transcribe(str(manifest), verbose=False)

    def test_telephone_audio_is_resampled(self, salm, audio_file):
        path = audio_file(1.0, rate=8000)
        batch = collate(salm, salm._conversations_of([path], salm.get_transcribe_config()))
        assert batch.audio_lengths.tolist() == [16000]
        assert len(salm.transcribe(path, verbose=False)) == 1

    def test_stereo_needs_a_channel(self, salm, audio_file):
        path = audio_file(channels=2)
        with pytest.raises(AudioError, match="a.wav.*channel_selector"):
            salm.transcribe(path, verbose=False)
        left, right = soundfile.read(path, dtype="float32")[0].T
        for selector, samples in ((0, left), (1, right), ("average", (left + right) / 2)):
            expected = salm.transcribe(np.ascontiguousarray(samples), verbose=False)
            assert salm.transcribe(path, channel_selector=selector, verbose=False) == expected

    def test_long_audio_and_silence(self, salm, make_audio):
        long, silence = make_audio(33.0), np.zeros(8000, dtype=np.float32)
        _, lengths = salm.perception(torch.from_numpy(long)[None], torch.tensor([len(long)])).embeddings
        assert lengths.item() == -(-33 * 50 // 4)
        assert len(salm.transcribe([long, silence], verbose=False)) == 2

    def test_what_it_cannot_do_is_refused(self, salm, audio_file):
        with pytest.raises(ValueError, match="augmentor"):
            salm.transcribe(audio_file(), augmentor={"noise": {}})

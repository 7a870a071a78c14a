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

"""Attributes that a trained model hears are those that it gives by itself."""

import json

import numpy as np
import pytest
import scipy.signal
import torch
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from nemo_speechllm.desta.classifiers import AudioClassifier, WhisperLanguage
from nemo_speechllm.desta.metadata import Clip

RATE = 16000
TONE = scipy.signal.chirp(np.arange(RATE) / RATE, 100, 1, 2000).astype(np.float32)


def test_any_audio_classifier_from_a_folder(tmp_path):
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, conv_dim=(32,) * 7
    )
    config.num_conv_pos_embeddings, config.num_conv_pos_embedding_groups, config.classifier_proj_size = 16, 2, 16
    config.id2label, config.label2id = {0: "happy", 1: "sad"}, {"happy": 0, "sad": 1}
    model = Wav2Vec2ForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(tmp_path)
    samples = torch.from_numpy(TONE)
    with torch.inference_mode():
        probabilities = model(samples[None]).logits.softmax(-1)[0]
    record = AudioClassifier(str(tmp_path))(Clip(np.asarray(samples), RATE, {}))
    assert record["value"] == config.id2label[int(probabilities.argmax())]
    assert (record["source"], record["confidence"]) == ("model", pytest.approx(float(probabilities.max()), abs=1e-3))


def make_whisper(folder, multilingual: bool) -> WhisperForConditionalGeneration:
    torch.manual_seed(0)
    sizes = {
        f"{side}_{size}": value
        for side in ("encoder", "decoder")
        for size, value in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 32))
    }
    tokens = dict(pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=3)
    whisper = WhisperForConditionalGeneration(WhisperConfig(d_model=32, vocab_size=64, **sizes, **tokens)).eval()
    whisper.save_pretrained(folder)
    languages = {"is_multilingual": multilingual, "lang_to_id": {"<|en|>": 10, "<|de|>": 11, "<|ru|>": 12}}
    (folder / "generation_config.json").write_text(json.dumps(tokens | languages))
    WhisperFeatureExtractor().save_pretrained(folder)
    return WhisperForConditionalGeneration.from_pretrained(folder).eval()


def test_whisper_names_the_language_it_would_detect(tmp_path):
    whisper = make_whisper(tmp_path, multilingual=True)
    samples = TONE
    features = WhisperFeatureExtractor()(samples, sampling_rate=RATE, return_tensors="pt").input_features
    expected = {10: "en", 11: "de", 12: "ru"}[int(whisper.detect_language(features))]
    record = WhisperLanguage(str(tmp_path))(Clip(np.asarray(samples), RATE, {}))
    assert (record["value"], record["source"]) == (expected, "model") and 1 / 3 < record["confidence"] < 1


def test_an_english_whisper_cannot_name_languages(tmp_path):
    make_whisper(tmp_path, multilingual=False)
    with pytest.raises(ValueError, match="knows English only; give a multilingual one"):
        WhisperLanguage(str(tmp_path))

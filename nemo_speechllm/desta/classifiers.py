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

"""Attributes that a trained model hears: any Hugging Face audio classifier, and Whisper for the language."""

import numpy as np
import torch
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, pipeline

from nemo_speechllm import assets
from nemo_speechllm.desta.metadata import Clip, Record


class AudioClassifier:
    """A Hugging Face ``audio-classification`` model: its likeliest label.

    Args:
        reference: folder or hub id.

    Raises:
        nemo_speechllm.assets.AssetError: it cannot be found.
    """

    def __init__(self, reference: str):
        self.classify = pipeline("audio-classification", model=str(assets.resolve(reference)))

    def __call__(self, clip: Clip) -> Record:
        """Return the likeliest label of a clip."""
        audio = {"raw": clip.samples.astype(np.float32), "sampling_rate": clip.sampling_rate}
        best = self.classify(audio, top_k=1)[0]
        return {"value": best["label"], "unit": None, "source": "model", "confidence": round(best["score"], 4)}


class WhisperLanguage:
    """The language by Whisper: its likeliest language token, in the first 30 s (2212.04356, section 2.3).

    Args:
        reference: asset name, folder or hub id of a multilingual Whisper.

    Raises:
        nemo_speechllm.assets.AssetError: it cannot be found.
        ValueError: this Whisper knows English only.
    """

    def __init__(self, reference: str):
        folder = assets.resolve(reference)
        self.whisper = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        self.whisper.to("cuda" if torch.cuda.is_available() else "cpu")
        if not self.whisper.generation_config.is_multilingual:
            raise ValueError(
                f"{reference}: this Whisper knows English only; give a multilingual one, e.g. whisper-base"
            )
        self.feature_extractor = WhisperFeatureExtractor.from_pretrained(folder)
        tokens = self.whisper.generation_config.lang_to_id
        self.languages, self.token_ids = [token.strip("<|>") for token in tokens], list(tokens.values())

    @torch.inference_mode()
    def __call__(self, clip: Clip) -> Record:
        """Return the likeliest language of a clip."""
        features = self.feature_extractor(clip.samples, sampling_rate=clip.sampling_rate, return_tensors="pt")
        start = torch.tensor([[self.whisper.config.decoder_start_token_id]], device=self.whisper.device)
        logits = self.whisper(features.input_features.to(self.whisper.device), decoder_input_ids=start).logits[0, -1]
        probabilities = logits[self.token_ids].softmax(dim=-1)
        best = int(probabilities.argmax())
        return {
            "value": self.languages[best],
            "unit": None,
            "source": "model",
            "confidence": round(float(probabilities[best]), 4),
        }

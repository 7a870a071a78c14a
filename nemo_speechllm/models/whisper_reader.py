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

"""Whisper's own decoder on the states of a speech LM's encoder: what it would write, and how likely it finds texts."""

import math
from typing import Any, cast

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers.modeling_outputs import BaseModelOutput

from nemo_speechllm.data.conversation import SAMPLE_RATE
from nemo_speechllm.decoding.word_confidence import sums_by_word
from nemo_speechllm.errors import InputError
from nemo_speechllm.languages import base_language
from nemo_speechllm.models.whisper_baseline import WhisperBaseline
from nemo_speechllm.modules.encoders import Encoder
from nemo_speechllm.modules.segments import IGNORE_INDEX
from nemo_speechllm.recipes.generation import WINDOW_SECONDS
from nemo_speechllm.versions import cache_argument, named

# behind an audio: without it Whisper's decoder goes on for ever, after 6 s or more it writes what it does of a whole
# window, at a quarter of its cost: see docs/results/whisper_encoder.md
SILENCE_SECONDS = 8


class WhisperReading:
    """An audio as Whisper's decoder reads it.

    Args:
        whisper: with its decoder and tokenizer.
        states: of its encoder, (1, T', d_model), float32.
        language: as a manifest names it; None: Whisper's guess.
        name: of the audio, for messages.

    Raises:
        ValueError: Whisper does not know the language.
    """

    def __init__(self, whisper: WhisperBaseline, states: Tensor, language: str | None, name: str):
        self._whisper, self._model, self._tokenizer = whisper, whisper.whisper, whisper.tokenizer
        self._states = states
        self._read: dict[str, tuple[list[int], list[float]]] = {}  # tokens up to the end, and how likely each is
        self._language: str | None = None
        begin = ["<|startoftranscript|>"]
        if whisper.is_multilingual:
            spoken = f"<|{base_language(language)}|>" if language else self._guessed_language()
            if spoken not in self._model.generation_config.lang_to_id:  # type: ignore[attr-defined]
                raise InputError(
                    f"{name}: lang {language!r} is no language that Whisper knows; leave it out and Whisper guesses, "
                    "or set model.generation.whisper_weight to 0"
                )
            self._language = spoken
            begin += [spoken, "<|transcribe|>"]
        self._begin = cast(list[int], self._tokenizer.convert_tokens_to_ids([*begin, "<|notimestamps|>"]))

    def _guessed_language(self) -> str:
        (token,) = self._model.detect_language(encoder_outputs=self._encoded).tolist()
        return str(self._tokenizer.convert_ids_to_tokens(token))

    @property
    def _encoded(self) -> BaseModelOutput:
        return BaseModelOutput(last_hidden_state=cast(Any, self._states))

    def texts(self) -> list[str]:
        """Return what Whisper writes, greedily; nothing if it comes to no end."""
        limit = self._whisper.cfg.generation.max_new_tokens
        (answer,) = self._whisper.write(self._language, limit, encoder_outputs=self._encoded)
        return [] if answer.truncated else [answer.text]

    @torch.inference_mode()
    def log_probs(self, texts: list[str]) -> list[float]:
        """Return the log-probability of each text, up to its end; -inf of one with more tokens than Whisper can read.

        The audio is read once for all.
        """
        self._read_new(texts)
        return [sum(self._read[text][1]) if text in self._read else -math.inf for text in texts]

    @torch.inference_mode()
    def word_log_probs(self, text: str) -> list[float] | None:
        """Return the log-probability of each word after those before it; None if Whisper cannot read so many tokens.

        A text that `log_probs` has read is not read again.
        """
        self._read_new([text])
        if text not in self._read:
            return None
        ids, log_probs = self._read[text]
        return sums_by_word(ids[:-1], log_probs, text, lambda ids: cast(str, self._tokenizer.decode(ids)))

    def _read_new(self, texts: list[str]) -> None:
        """Read those of the texts that were not yet and have no more tokens than Whisper can read."""
        end = cast(int, self._tokenizer.convert_tokens_to_ids("<|endoftext|>"))
        room = self._model.config.max_target_positions - len(self._begin) + 1
        rows = {}
        for text in texts:
            ids = [*self._tokenizer(f" {text}" if text else "", add_special_tokens=False).input_ids, end]
            if text not in self._read and len(ids) <= room:
                rows[text] = ids
        if rows:
            log_probs = self._token_log_probs(list(rows.values()))
            self._read |= {text: (rows[text], found) for text, found in zip(rows, log_probs, strict=True)}

    def _token_log_probs(self, rows: list[list[int]]) -> list[list[float]]:
        """Return the log-probability of each token of each row."""
        decoder, device = self._model.model.decoder, self._states.device
        ids = [torch.tensor(row, device=device) for row in rows]
        labels = pad_sequence(ids, batch_first=True, padding_value=IGNORE_INDEX)
        begin = torch.tensor([self._begin], device=device)
        asked = decoder(**named(decoder, input_ids=begin, encoder_hidden_states=self._states, use_cache=True))
        hidden = asked.last_hidden_state[:, -1:].expand(len(rows), -1, -1)
        if labels.shape[1] > 1:  # not where all texts are empty
            asked.past_key_values.batch_repeat_interleave(len(rows))
            known = cache_argument(decoder, asked.past_key_values)
            states = self._states.expand(len(rows), -1, -1)
            given = named(decoder, input_ids=labels[:, :-1].clamp(min=0), encoder_hidden_states=states, **known)
            hidden = torch.cat([hidden, decoder(**given).last_hidden_state], dim=1)
        logits = self._model.proj_out(hidden)
        nats = nn.functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX, reduction="none"
        )
        log_probs = -nats.view_as(labels)
        return [of_row[: len(row)].tolist() for of_row, row in zip(log_probs, rows, strict=True)]


class WhisperReader:
    """Reads speech with the decoder of the Whisper whose encoder a speech LM has.

    The decoder is loaded when it is first needed, and is in no checkpoint.

    Args:
        encoder: the recipe's ``model.perception.encoder`` section.
    """

    def __init__(self, encoder: DictConfig):
        self.encoder = encoder
        self._whisper: WhisperBaseline | None = None

    @torch.inference_mode()
    def read(self, encoder: Encoder, samples: Tensor, language: str | None, name: str = "audio") -> WhisperReading:
        """Return an audio as Whisper's decoder reads it.

        Args:
            encoder: the model's own.
            samples: of one audio of at most 30 s, (T,).
            language: as a manifest names it; None: Whisper's guess.
            name: of the audio, for messages.

        Raises:
            ValueError: the encoder is no Whisper's, not the last layer's, or has no decoder; or Whisper does not know
                the language.
            nemo_speechllm.assets.AssetError: the Whisper cannot be found.
        """
        whisper = self._load().to(samples.device)
        length = min(len(samples) + SILENCE_SECONDS * SAMPLE_RATE, WINDOW_SECONDS * SAMPLE_RATE)
        heard = nn.functional.pad(samples, (0, length - len(samples)))
        states, _ = encoder(heard[None], torch.tensor([length], device=samples.device))
        return WhisperReading(whisper, states.float(), language, name)

    def require(self) -> None:
        """Refuse a recipe whose encoder Whisper's decoder cannot read.

        Raises:
            ValueError: see `read`.
        """
        setting = "model.generation.whisper_weight"
        if self.encoder.type != "whisper":
            raise InputError(f"{setting}: this model's encoder is no Whisper's ({self.encoder.type}); set it to 0")
        if not self.encoder.pretrained:
            raise InputError(
                f"{setting}: model.perception.encoder.pretrained names no Whisper; name one, or set it to 0"
            )
        if self.encoder.taps is not None:
            raise InputError(
                f"{setting}: Whisper's decoder reads the encoder's last layer alone, and "
                f"model.perception.encoder.taps={list(self.encoder.taps)}; set it to 0"
            )

    def _load(self) -> WhisperBaseline:
        if self._whisper is None:
            self.require()
            self._whisper = WhisperBaseline(cast(str, self.encoder.pretrained))
        return self._whisper

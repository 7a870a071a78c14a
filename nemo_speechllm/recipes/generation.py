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

"""The ``model.generation`` section: how an answer is found, and what is done about one that was not heard."""

from dataclasses import dataclass
from typing import Any

from nemo_speechllm.recipes.settings import SettingError, setting

DECODERS = ("llm", "ctc")
ACTIONS = ("empty", "retry", "ctc")
WINDOW_SECONDS = 30  # that Whisper hears at once


@dataclass
class Guards:
    """What is done about an answer that was not heard, by its fault; of several the first counts. Null: nothing.

    ``empty``: no words; ``retry``: a beam search; ``ctc``: what the model's own CTC heard.
    """

    silence: str | None = setting("empty", one_of=ACTIONS)  # no moment of the recording is above -60 dB
    loop: str | None = setting(None, one_of=ACTIONS)  # words that come again and again
    chatter: str | None = setting(None, one_of=ACTIONS)  # an assistant talks of itself
    disagreement: str | None = setting(None, one_of=ACTIONS)  # CTC heard something else


@dataclass
class Confidence:
    """What the evidence for a word of a transcript is worth; see `nemo_speechllm.decoding.word_confidence`.

    The defaults were fitted on dev prompts of the shipped models (docs/results/confidence.md);
    ``examples/evaluate_confidence.py`` fits those of a model to its own.
    """

    bias: float = setting(0.7)
    decoder: float = setting(1.85)
    ctc: float = setting(0.8)
    hypotheses: float = setting(1.6)
    letters: float = setting(0.8)
    recogniser: float = setting(0.4)


@dataclass
class Generation:
    """How an answer is found."""

    decoder: str | None = setting(None, one_of=DECODERS)  # null: what the model was trained for
    max_new_tokens: int = setting(128, at_least=1)  # of an answer
    beam_size: int = setting(1, at_least=1, at_most=128)  # 1: greedy
    repetition_penalty: float = setting(1.0, above=0)
    # of CTC in the choice of a transcript's next token; with a CTC head, of one of its 16 hypotheses
    ctc_weight: float = setting(0.0, at_least=0, at_most=1)
    # ctc: what CTC hears is read by the LLM at once, which writes on from where it differs: the same text, sooner
    draft: str | None = setting(None, one_of=("ctc",))
    max_audio_seconds: float | None = setting(None, at_least=0.5)  # longer recordings are cut at pauses; null: none
    max_keywords: int | None = setting(None, at_least=0)  # of longer lists CTC chooses the likely; null: all
    guards: Guards | None = setting(Guards)
    confidence: Confidence = setting(Confidence)


@dataclass
class CTCHeadGeneration(Generation):
    """How it is found where a CTC head's hypotheses are chosen among."""

    # of Whisper's own decoder in that choice, which also adds what it writes; 0: it is not loaded
    whisper_weight: float = setting(0.0, at_least=0, below=1)

    @staticmethod
    def check(settings: dict[str, Any], key: str) -> None:
        """Refuse a say of Whisper's where nothing is chosen, or in more than it hears at once."""
        if settings["whisper_weight"] == 0:
            return
        seconds = settings["max_audio_seconds"]
        if settings["ctc_weight"] == 0:
            raise SettingError(
                f"{key}.whisper_weight is a say in the choice among CTC's hypotheses, and {key}.ctc_weight=0 leaves "
                f"none; give {key}.ctc_weight, 0.3 for example"
            )
        if seconds is None or seconds > WINDOW_SECONDS:
            raise SettingError(
                f"{key}.whisper_weight: Whisper's decoder hears {WINDOW_SECONDS} s at once and "
                f"{key}.max_audio_seconds is {'null' if seconds is None else f'{seconds:g}'}; give "
                f"{key}.max_audio_seconds={WINDOW_SECONDS} or less, and longer recordings are cut at pauses"
            )

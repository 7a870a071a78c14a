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

"""What other frameworks have no place for: what an export refuses, and what it leaves behind and says so."""

from collections.abc import Iterable

from nemo_speechllm.models.speech_lm import SpeechLM


class ExportError(ValueError):
    """A model cannot be exported to a format; the message names the settings for which there is no place."""


def refuse(model: SpeechLM, form: str, obstacles: Iterable[str]) -> None:
    """Raise an error if anything stands in the way.

    Args:
        form: the format, as it is asked for.
        obstacles: each a setting, and why.

    Raises:
        ExportError: there is one.
    """
    reasons = list(obstacles)
    if reasons:
        raise ExportError(
            f"this {type(model).__name__} cannot be exported with format={form}: {'; '.join(reasons)}. "
            "format=nemo keeps all of it"
        )


def left_behind(model: SpeechLM) -> list[str]:
    """Return what a model does beside its LLM's answering, which no other framework does, with the settings of it."""
    generation = model.cfg.generation
    guards = [name for name, action in (generation.guards or {}).items() if action is not None]
    found = {
        f"CTC's say in the choice of words (model.generation.ctc_weight={generation.ctc_weight})": (
            generation.ctc_weight > 0
        ),
        f"the say of Whisper's own decoder (model.generation.whisper_weight={generation.get('whisper_weight')})": bool(
            generation.get("whisper_weight")
        ),
        f"guards against answers that were not heard (model.generation.guards: {', '.join(guards)})": bool(guards),
        "the choice of keywords that may have been said (model.generation.max_keywords="
        f"{generation.max_keywords})": generation.max_keywords is not None,
        "the cutting of long recordings at pauses (model.generation.max_audio_seconds="
        f"{generation.max_audio_seconds})": generation.max_audio_seconds is not None,
        "times and confidence of words, answers by CTC (decoder=ctc)": model.ctc is not None,
    }
    return [what for what, is_used in found.items() if is_used]

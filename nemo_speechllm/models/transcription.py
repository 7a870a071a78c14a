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

"""The settings of `transcribe`: NeMo's and a speech LM's own. Each is honoured or refused by name."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any

from nemo.collections.asr.parts.mixins.transcription import TranscribeConfig
from omegaconf import OmegaConf
from tqdm import tqdm

from nemo_speechllm.data.conversation import Conversation
from nemo_speechllm.errors import InputError
from nemo_speechllm.manifests.rows import INSTRUCTION_KEYS
from nemo_speechllm.models.answers import OF_WORDS
from nemo_speechllm.models.inputs import without_path
from nemo_speechllm.recipes.settings import Limits, whole_number

# slots of NeMo's prompts → what a manifest's line calls the same
PROMPT_SLOTS = {key: "instruction" for key in INSTRUCTION_KEYS} | {
    "keywords": "keywords",
    "task": "task",
    "lang": "lang",
    "source_lang": "lang",
    "target_lang": "target_lang",
}
# settings of NeMo's that a speech LM does not have → the values that ask for nothing
UNSUPPORTED: dict[str, tuple[tuple[Any, ...], str]] = {
    "use_lhotse": ((True, None), "audio is always read by Lhotse"),
    "augmentor": ((None, {}), "mix noise in with examples/data/add_noise.py first"),
    "partial_hypothesis": ((None, []), "a recording is transcribed as a whole"),
}


@dataclass
class SpeechLMTranscribeConfig(TranscribeConfig):
    """NeMo's transcription settings and what a speech LM adds.

    Attributes:
        instruction: what to ask about each audio; None: the manifest line's own, or the recipe's for its task.
        keywords: words that may occur, put before the instruction; of more than the recipe's
            ``generation.max_keywords`` those that CTC may have heard. An empty list takes the manifest lines' own
            away. Those of a file are ``nemo_speechllm.data.keywords.read_keywords(path)``; for a list of its own for
            each audio give rows or a manifest with ``keywords``.
        max_new_tokens, beam_size: of generation; None: the recipe's.
        batch_duration: the most seconds of audio that are answered together, padding counted; None: as many as
            ``batch_size`` recordings, or pieces of ``generation.max_audio_seconds``, have.
        confidence: NeMo ``Hypothesis`` objects with ``word_confidence``, how probably each word is right, by what the
            text decoder, CTC and CTC's other hypotheses say of it (see `nemo_speechllm.decoding.word_confidence`).
        decoder: what answers, ``llm`` or ``ctc`` (a model's CTC head); None: the recipe's.
        prompt: NeMo's way to say the same: slots (``instruction``, ``keywords``, ``task``, ``source_lang``,
            ``target_lang``) as a dict or as one turn ``{role: user, slots: {…}}``. They replace what a manifest's
            lines say.
        text_field: what a manifest calls the reference; it is not read here.
        lang_field: what a manifest calls the language.
    """

    instruction: str | None = None
    keywords: list[str] | None = None
    max_new_tokens: int | None = None
    beam_size: int | None = None
    batch_duration: float | None = None
    decoder: str | None = None
    confidence: bool | None = None
    prompt: Any = None
    text_field: str = "text"
    lang_field: str = "lang"


SETTINGS = tuple(field.name for field in fields(SpeechLMTranscribeConfig))


def transcription_config(given: dict[str, Any], override_config: TranscribeConfig | None) -> TranscribeConfig:
    """Return the settings of a call of ``transcribe``.

    Args:
        given: its arguments by name.
        override_config: a config in their place, of this package or NeMo's.

    Raises:
        TypeError: an argument is no setting, or ``override_config`` no config.
        ValueError: an argument stands beside ``override_config`` and differs from it.
    """
    unknown = sorted(set(given) - set(SETTINGS))
    if unknown:
        raise TypeError(f"transcribe has no argument {', '.join(unknown)}; there are {', '.join(_public(SETTINGS))}")
    if override_config is None:
        return SpeechLMTranscribeConfig(**given)
    if not isinstance(override_config, TranscribeConfig):
        raise TypeError(f"override_config is {override_config!r}; it must be what get_transcribe_config() returns")
    default = SpeechLMTranscribeConfig(num_workers=0)
    for name, value in given.items():
        if value != getattr(default, name) and value != getattr(override_config, name, None):
            raise ValueError(f"transcribe was given {name}={value} beside override_config; set it there")
    return override_config


def check_takes_settings(config: TranscribeConfig) -> None:
    """Refuse settings that a dataloader does not take.

    Raises:
        ValueError: the config says how audio is to be read or asked about, which a dataloader has settled.
    """
    default = SpeechLMTranscribeConfig()
    names = ("instruction", "keywords", "prompt", "channel_selector", "lang_field")
    asked = [name for name in names if getattr(config, name, None) not in (getattr(default, name), None, [], {})]
    if asked:
        raise ValueError(
            f"transcribe was given a dataloader, whose questions are made already, and {', '.join(asked)}"
        )


def check_settings(config: TranscribeConfig) -> None:
    """Refuse settings that a speech LM does not have, and numbers that are none.

    Raises:
        ValueError: the config asks for what a speech LM does not have, or ``batch_size``, ``batch_duration``,
            ``num_workers``, ``timestamps``, ``confidence`` or ``lang_field`` cannot be. It is named.
    """
    whole_number("batch_size", config.batch_size, Limits(at_least=1))
    if config.num_workers is not None:
        whole_number("num_workers", config.num_workers, Limits(at_least=0))
    duration = getattr(config, "batch_duration", None)
    if duration is not None and (
        isinstance(duration, bool) or not isinstance(duration, Real) or not float(duration) > 0
    ):
        raise ValueError(f"batch_duration is {duration!r}; it must be a number of seconds above 0, or null")
    for name in OF_WORDS:
        value = getattr(config, name, None)
        if value not in (None, False, True):
            raise ValueError(f"{name} is {value!r}; it must be true or false (null: false)")
    lang_field = getattr(config, "lang_field", None)
    if not isinstance(lang_field, str | None):
        raise ValueError(f"lang_field is {lang_field!r}; it must be the name of a manifest's key, such as lang")
    for name, (idle, instead) in UNSUPPORTED.items():
        value = getattr(config, name, None)
        if value not in idle:
            raise ValueError(f"transcribe cannot do {name}={value}: {instead}; leave it unset")
    unknown = [f"{name}={value}" for name, value in vars(config).items() if name not in SETTINGS and value]
    if unknown:
        raise ValueError(
            f"transcribe has no setting {', '.join(unknown)}; there are {', '.join(_public(SETTINGS))} "
            "(get_transcribe_config())"
        )
    prompt_keys(config)


def manifest_keys(row: dict[str, Any], config: TranscribeConfig) -> dict[str, Any]:
    """Return what a manifest's line says of its audio, with what the config says in the place of the line's own."""
    metadata = without_path(row)
    lang_field = getattr(config, "lang_field", "lang")
    if lang_field != "lang" and row.get(lang_field) is not None:
        metadata["lang"] = row[lang_field]
    asked = prompt_keys(config)
    for key in ("instruction", "keywords"):
        if getattr(config, key, None) is not None:  # an empty list takes a manifest's keywords away
            asked[key] = getattr(config, key)
    if "task" in asked or "target_lang" in asked:  # the recipe's instruction for it, not the line's
        metadata = {key: value for key, value in metadata.items() if key not in INSTRUCTION_KEYS}
    return metadata | asked


def prompt_keys(config: TranscribeConfig) -> dict[str, Any]:
    """Return the slots of ``prompt`` by the names of a manifest's keys.

    Raises:
        ValueError: there are several turns, one that is not the user's, or a slot that nothing reads.
    """
    prompt = getattr(config, "prompt", None)
    if not prompt:
        return {}
    prompt = OmegaConf.to_container(prompt, resolve=True) if OmegaConf.is_config(prompt) else prompt
    turns = prompt.get("turns", [prompt]) if isinstance(prompt, dict) else prompt
    if not isinstance(turns, list) or len(turns) != 1 or not isinstance(turns[0], dict):
        raise InputError(f"prompt={prompt}: give the slots of one turn; for several use generate(conversations)")
    slots = dict(turns[0])
    role = slots.pop("role", "user")
    slots = slots.get("slots", slots)
    unknown = sorted(set(slots) - set(PROMPT_SLOTS))
    if unknown or role != "user":
        raise InputError(
            f"prompt: {f'no slot is called {unknown}' if unknown else f'a turn of the role {role!r}'}; a speech LM "
            f"reads the user's {list(PROMPT_SLOTS)}"
        )
    return {PROMPT_SLOTS[name]: value for name, value in slots.items() if value is not None}


def seconds_bar(conversations: Iterable[Conversation] | None, verbose: bool) -> tqdm:
    """Return a progress bar of the seconds of audio that have been transcribed.

    Args:
        conversations: all there are; None: it is not known.
        verbose: show it.
    """
    total = None if conversations is None else sum(audio.duration for item in conversations for audio in item.audios)
    form = "{l_bar}{bar}| {n:.0f}/{total:.0f} s of audio [{elapsed}<{remaining}]" if total else None
    return tqdm(total=total, desc="Transcribing", unit="s", disable=not verbose, bar_format=form)


def _public(names: tuple[str, ...]) -> list[str]:
    return [name for name in names if not name.startswith("_") and name not in UNSUPPORTED]

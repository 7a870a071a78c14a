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

"""Synthetic telephone speech from text: sentences, speaking styles and audio effects.

Everything but the voices' own excitation noise is a pure function of `(seed, index)`, so a set can be
extended or resumed. The languages are those of `synthesis_languages`, the voices those of `synthesis_voices`.
"""

import html
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import scipy.signal
import soundfile
import soxr
import yaml

from nemo_speechllm.audio.flac import write_flac
from nemo_speechllm.corpora.synthesis_languages import LANGUAGES, Language
from nemo_speechllm.corpora.synthesis_voices import VoicePool

SAMPLE_RATE = 16000
ENGLISH = LANGUAGES["en"]
REQUESTS = Path(__file__).with_name("synthesis_requests.yaml")  # the caller fills the slots `word` and `proper`
COMMANDS = Path(__file__).with_name("synthesis_commands.yaml")  # of a closed vocabulary

_LETTER = re.compile(r"[^\W\d_]")
_WORD = re.compile(rf"(?:{_LETTER.pattern}|')+")
_SLOT = re.compile(r"\{(\w+)\}")
_BLOCK_TAG = re.compile(r"</?(?:p|div|li|ul|ol|h\d|td|tr|dt|dd|br|blockquote|pre|center)\b[^>]*>", re.IGNORECASE)
_TAG = re.compile(r"<[^>]+>")
_QUOTES = str.maketrans({"’": "'", "‘": "'", "`": "'", "“": None, "”": None, '"': None, "«": None, "»": None})


class TemplateGrammar:
    """A context-free grammar of sentences: `slots` (name → alternatives) and `templates` (group → sentences).

    Args:
        path: YAML file; see `synthesis_templates.yaml`.
        more_slots: alternatives of slots that the file leaves to the caller.

    Raises:
        ValueError: if a template or an alternative names a slot that neither the file nor `more_slots` defines.
    """

    def __init__(
        self, path: str | Path = ENGLISH.templates, more_slots: Mapping[str, list[str]] | None = None
    ) -> None:
        grammar = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        self.slots: dict[str, list[str]] = grammar["slots"] | dict(more_slots or {})
        self.groups: dict[str, list[str]] = grammar["templates"]
        self.templates = [template for group in self.groups.values() for template in group]
        for line in [*self.templates, *(entry for entries in self.slots.values() for entry in entries)]:
            if not isinstance(line, str):
                raise ValueError(f"{path}: {line!r} is not text; put it in quotes")
            for slot in set(_SLOT.findall(line)) - set(self.slots):
                raise ValueError(f"{path}: '{line}' uses the slot '{slot}', which is not under 'slots'")

    def sentence(self, rng: np.random.Generator) -> str:
        """Draws one sentence with every slot filled."""
        text = self._fill(str(rng.choice(self.templates)), rng)
        return _LETTER.sub(lambda match: match[0].upper(), text, count=1)

    def sentences(self, seed: int) -> Iterator[str]:
        """Endless draws, the i-th a pure function of `(seed, i)`."""
        index = 0
        while True:
            yield self.sentence(np.random.default_rng([seed, index]))
            index += 1

    def _fill(self, text: str, rng: np.random.Generator) -> str:
        return _SLOT.sub(lambda match: self._fill(str(rng.choice(self.slots[match[1]])), rng), text)


def text_key(text: str) -> str:
    """Return what two texts share when they are spoken alike: lower-case words only."""
    return " ".join(_WORD.findall(text.lower()))


def distinct(texts: Iterable[str], count: int, seen: set[str]) -> list[str]:
    """Return the first `count` texts whose `text_key` is not in `seen`, which grows by theirs."""
    chosen: list[str] = []
    for text in texts:
        if len(chosen) == count:
            break
        if text_key(text) not in seen:
            seen.add(text_key(text))
            chosen.append(text)
    return chosen


def is_speakable(sentence: str, language: Language = ENGLISH) -> bool:
    """Return True for a few plain words of the language with natural case and punctuation.

    It has no digits, markup, initials or coarse words.
    """
    fewest, most = language.words
    return (
        fewest <= len(sentence.split()) <= most
        and language.sentence.fullmatch(sentence) is not None
        and not language.unfit.search(sentence)
    )


def split_sentences(text: str, language: Language = ENGLISH) -> list[str]:
    """Return the speakable sentences of running text (see `is_speakable`), double quotes removed."""
    flat = " ".join(text.translate(_QUOTES).split())
    return [sentence for sentence in language.sentence_end.split(flat) if is_speakable(sentence, language)]


def read_sentences(path: Path, language: Language = ENGLISH) -> list[str]:
    """Speakable sentences of an HTML, a fortune (`%` between entries) or a plain text file."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix == ".html":
        text = html.unescape(_TAG.sub("", _BLOCK_TAG.sub("\n\n", text)))
    text = re.sub(r"^\s*--.*$", "", text, flags=re.MULTILINE)  # who said it, in a fortune
    blocks = re.split(r"\n\s*\n|^%$", text, flags=re.MULTILINE)
    return [sentence for block in blocks for sentence in split_sentences(block, language)]


def read_examples(path: Path, language: Language = ENGLISH) -> list[str]:
    """Speakable sentences among the quoted examples of a file of WordNet, which lack capital and full stop."""
    quoted = re.findall(r'"([^"]+)"', path.read_text(encoding="utf-8", errors="replace"))
    sentences = (
        text[0].upper() + text[1:] + ("" if text[-1] in ".?!" else ".") for text in map(str.strip, quoted) if text
    )
    return [sentence for sentence in sentences if is_speakable(sentence, language)]


def read_words(path: Path, language: Language = ENGLISH) -> list[str]:
    """Read a word list, one a line: its words of three letters or more that are no inflection with an apostrophe."""
    word = re.compile(rf"[{language.letters.upper()}{language.letters}][{language.letters}]{{2,}}")
    words = path.read_text(encoding="utf-8").split()
    return [entry for entry in words if word.fullmatch(entry) and not language.unfit.search(entry)]


@dataclass(frozen=True)
class Style:
    """How one sentence is spoken and recorded.

    Attributes:
        voice: a key of `VOICES`.
        speed: tempo, 1.0 the voice's own.
        shift: factor on pitch and formants: another apparent speaker.
        peak_db: peak level, dB below full scale.
        telephone: limited to 8 kHz telephone bandwidth.
        snr_db: signal-to-noise ratio in dB, None for no added noise.
        seed: seed of the noise.
    """

    voice: str
    speed: float
    shift: float
    peak_db: float
    telephone: bool
    snr_db: float | None
    seed: int

    @property
    def speaker(self) -> str:
        """The apparent speaker."""
        return f"{self.voice}-{round(100 * self.shift)}"


def draw_style(seed: int, index: int, language: Language = ENGLISH) -> Style:
    """Draw the style of sentence `index`, a pure function of `(seed, index)` and the language."""
    rng = np.random.default_rng([seed, index])
    voices, shares = zip(*language.voices.items(), strict=True)
    return Style(
        voice=voices[int(np.searchsorted(np.cumsum(shares[:-1]), rng.random(), side="right"))],
        speed=float(rng.uniform(0.8, 1.3)),
        shift=float(rng.choice(np.linspace(0.88, 1.15, 10).round(2))),
        peak_db=float(rng.uniform(-18.0, -1.0)),
        telephone=bool(rng.random() < 0.3),
        snr_db=float(rng.uniform(15.0, 35.0)) if rng.random() < 0.3 else None,
        seed=int(rng.integers(2**31)),
    )


def apply_style(wave: np.ndarray, rate: int, style: Style) -> np.ndarray:
    """Give speech the style's apparent speaker, band, noise and level.

    Args:
        wave: float samples, shape (T,), spoken at tempo `style.speed / style.shift`.
        rate: their rate in Hz.

    Returns:
        float32 samples at 16 kHz, shape (T * 16000 / (rate * shift),), peak at `style.peak_db`.
    """
    # Played at `rate * shift` Hz, pitch, formants and tempo all rise by `shift`.
    wave = soxr.resample(wave.astype(np.float64), rate * style.shift, SAMPLE_RATE)
    if style.snr_db is not None:
        noise = np.random.default_rng(style.seed).standard_normal(len(wave))
        wave = wave + noise * np.sqrt(np.mean(wave**2) / 10 ** (style.snr_db / 10))
    if style.telephone:
        band = scipy.signal.butter(4, (200.0, 3400.0), "bandpass", fs=SAMPLE_RATE, output="sos")
        wave = scipy.signal.sosfilt(band, wave)
    return (wave * 10 ** (style.peak_db / 20) / np.max(np.abs(wave))).astype(np.float32)


class Recorder(Protocol):
    """Who speaks a sentence, and how it is recorded."""

    def columns(self, index: int, text: str) -> dict[str, object]:
        """Return what the manifest tells of clip `index`: `speaker` and the like."""

    def __call__(self, index: int, text: str) -> np.ndarray:
        """float32 samples at 16 kHz, shape (T,).

        Raises:
            ValueError: if the voice finds nothing to say in the text.
        """


class LanguageVoices:
    """The voices of a language, each loaded when first used, in the styles that `draw_style` draws.

    Args:
        seed: seed of the styles.
        language: what is spoken.
    """

    def __init__(self, seed: int, language: Language = ENGLISH) -> None:
        self.seed = seed
        self.language = language
        self.voices = VoicePool()

    def columns(self, index: int, text: str) -> dict[str, object]:
        """Return the speaker of clip `index`."""
        return {"speaker": draw_style(self.seed, index, self.language).speaker}

    def __call__(self, index: int, text: str) -> np.ndarray:
        """Return clip `index`, the text as it is spoken."""
        return self.speak(text, draw_style(self.seed, index, self.language))

    def speak(self, text: str, style: Style) -> np.ndarray:
        """float32 samples of shape (T,) at 16 kHz."""
        wave, rate = self.voices.speak(style.voice, text, style.speed / style.shift, style.seed)
        return apply_style(wave, rate, style)


class Synthesizer:
    """Speaks sentences into FLAC files, 16 kHz mono.

    Args:
        folder: where the FLAC files go; files already there are kept.
        recorder: who speaks.
        lang: the `lang` of the rows.
        readings: by text, how it is written for the voice where that is not the text itself.
    """

    def __init__(
        self, folder: Path, recorder: Recorder, lang: str = ENGLISH.code, readings: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.recorder = recorder
        self.lang = lang
        self.readings = readings or {}

    def __call__(self, index: int, name: str, text: str) -> dict:
        """Speaks sentence `index` into `folder/name`; returns its manifest row (`audio_filepath` = `name`)."""
        path = self.folder / name
        if not path.exists():
            write_flac(path, self.recorder(index, self.readings.get(text, text)), SAMPLE_RATE)
        duration = round(soundfile.info(path).duration, 3)
        row = {"audio_filepath": name, "duration": duration, "text": text, "lang": self.lang}
        return row | self.recorder.columns(index, text)

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

"""What the synthesis of speech has to know of a language: letters, unfit words, sentence templates and voices."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path


@dataclass(frozen=True)
class Language:
    """A language that speech is synthesised in.

    Attributes:
        code: ISO 639-1 code, the `lang` of manifest rows.
        letters: its lower-case letters.
        voices: voice → its share of the sentences, 1 in all.
        words: fewest and most words of a sentence from running text.
        one_letter: regular expression of what may stand as a word of one letter, elided words with their apostrophe.
        abbreviations: what does not end a sentence although a dot follows.
        foreign: list in ``words_kept_out`` of words that betray another language with the same letters.
        more_voices: voices that speak in a crowd only.
    """

    code: str
    letters: str
    voices: Mapping[str, float]
    words: tuple[int, int]
    one_letter: str
    abbreviations: tuple[str, ...]
    foreign: str | None = None
    more_voices: tuple[str, ...] = ()

    @property
    def all_voices(self) -> tuple[str, ...]:
        """The voices that speak in a crowd."""
        return (*self.voices, *self.more_voices)

    @property
    def templates(self) -> Path:
        """The grammar of its telephone prompts."""
        suffix = "" if self.code == "en" else f"_{self.code}"
        return Path(__file__).with_name(f"synthesis_templates{suffix}.yaml")

    @cached_property
    def sentence(self) -> re.Pattern:
        """Matches what looks like a sentence, as a whole."""
        return re.compile(rf"[¿¡]?[{self._capitals}][{self._capitals}{self.letters}' ,;:-]*[.?!]")

    @cached_property
    def sentence_end(self) -> re.Pattern:
        """Matches the space between two sentences."""
        capital = self._capitals
        kept = "".join(rf"(?<!{re.escape(abbreviation)}\.)" for abbreviation in self.abbreviations)
        return re.compile(rf"(?<=[.!?])(?<![ .][{capital}]\.){kept}\s+(?=[¿¡]?[{capital}])")

    @cached_property
    def unfit(self) -> re.Pattern:
        """Pattern of what a voice cannot say or shall not.

        Capitals inside words, initials, stray marks, coarse and foreign words.
        """
        capital, small = self._capitals, self.letters
        marks = rf"\bA[:.]|--|\s-|-\s|^'|\s'|'\s|\s[,;:.?!]|[,;:][^ ]|'[{capital}]|[{small}]:[{small}]|.[¿¡]"
        letters = rf"[{capital}]{{2}}|\w[{capital}]|(?<!')\b(?!{self.one_letter})[{capital}{small}]\b"
        lists = [f"coarse_{self.code}", *([self.foreign] if self.foreign else [])]
        words = "|".join(rf"(?i:\b(?:{'|'.join(words_kept_out(name))})\b)" for name in lists)
        return re.compile(f"{letters}|{marks}|{words}")

    @property
    def _capitals(self) -> str:
        return self.letters.upper()


def words_kept_out(name: str) -> list[str]:
    """Return a list of ``words_kept_out``: regular expressions of words."""
    path = Path(__file__).with_name("words_kept_out") / f"{name}.txt"
    return [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]


LANGUAGES: dict[str, Language] = {
    language.code: language
    for language in (
        Language(
            code="en",
            letters="abcdefghijklmnopqrstuvwxyz",
            voices={"joe": 0.3, "heart": 0.7},  # on a CPU joe takes eight times as long as heart
            more_voices=("alan", "bdl", "clb", "slt", "awb", "rms", "pico-us", "pico-gb"),
            words=(3, 16),
            one_letter="[aAiI]",
            abbreviations=(" Mr", " Dr", " St", "Mrs"),
        ),
        Language(
            code="es",
            letters="abcdefghijklmnopqrstuvwxyzáéíóúüñ",
            voices={"pico-es": 1.0},
            words=(2, 14),
            one_letter="[aeouyAEOUY]",
            abbreviations=(" Sr", " Sra", " Dr", " Dra", " Ud", " Uds", " pág", " etc"),
            foreign="english",
        ),
        Language(
            code="fr",
            letters="abcdefghijklmnopqrstuvwxyzàâæçèéêëîïôœùûüÿ",
            voices={"pico-fr": 1.0},
            words=(2, 14),
            one_letter="(?:[aàyAÀY]|[cdjlmnstCDJLMNST]')",
            abbreviations=(" MM", " Mme", " Mlle", " Dr", " etc", " ex", " cf"),
            foreign="english",
        ),
        Language(
            code="it",
            letters="abcdefghijklmnopqrstuvwxyzàèéìíòóùú",
            voices={"pico-it": 1.0},
            words=(2, 14),
            one_letter="(?:[aeioèAEIOÈ]|[cdlmnstvCDLMNSTV]')",
            abbreviations=(" Sig", " Dott", " Ing", " pag", " ecc", " es"),
            foreign="english",
        ),
        Language(
            code="ru",
            letters="абвгдежзийклмнопрстуфхцчшщъыьэюяё",
            voices={"aleksandr": 0.25, "anna": 0.25, "elena": 0.25, "irina": 0.25},
            words=(2, 14),
            one_letter="[авикосуяАВИКОСУЯ]",
            abbreviations=(" г", " гг", " др", " пр", " т", " д", " п", " см", " стр"),
        ),
    )
}

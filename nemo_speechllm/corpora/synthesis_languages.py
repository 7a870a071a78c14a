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
        coarse: regular expression of words that no voice shall say.
        foreign: regular expression of words that betray another language with the same letters.
        more_voices: voices that speak in a crowd only.
    """

    code: str
    letters: str
    voices: Mapping[str, float]
    words: tuple[int, int]
    one_letter: str
    abbreviations: tuple[str, ...]
    coarse: str
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
        words = rf"(?i:\b(?:{self.coarse})\b)" + (rf"|(?i:\b(?:{self.foreign})\b)" if self.foreign else "")
        return re.compile(f"{letters}|{marks}|{words}")

    @property
    def _capitals(self) -> str:
        return self.letters.upper()


ENGLISH_WORDS = (
    "the|and|of|with|is|are|was|were|be|been|have|you|your|for|this|that|these|those|to|from|by|not|user|can|may|will|should|"
    "more|many|several|some|such|like|when|which|than|then|how|why|what|using|used|also|only|other|it|we|they|run|at|"
    "see|here|there"
)

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
            coarse=r"fuck\w*|shit\w*|cunt\w*|bitch\w*|bastard\w*|ass|asses|asshole\w*|dick|cock|tits?|whore\w*|slut\w*|"
            r"piss\w*|nigger\w*|faggot\w*|fags?|rape\w*|sex\w*|porn\w*|penis\w*|vagina\w*|orgasm\w*|masturbat\w*|erotic\w*|"
            r"naked|nude|breasts?|virgin\w*|nazi\w*|hitler|jews?|kill\w*|murder\w*|suicid\w*|damn\w*|crap|hell|lesbian\w*|"
            r"homosexual\w*",
        ),
        Language(
            code="es",
            letters="abcdefghijklmnopqrstuvwxyzáéíóúüñ",
            voices={"pico-es": 1.0},
            words=(2, 14),
            one_letter="[aeouyAEOUY]",
            abbreviations=(" Sr", " Sra", " Dr", " Dra", " Ud", " Uds", " pág", " etc"),
            coarse=r"put[ao]s?|mierda\w*|jod\w+|coñ\w*|poll[ao]s?|maric\w+|cabr[óo]n\w*|culos?|teta\w*|sex\w*|viola\w*|nazi\w*|"
            r"hitler|jud[íi]\w*|mat[aóe]r?|asesin\w*|suicid\w*|desnud\w*|folla\w*|orgasm\w*|pene|vagina|negr[ao]s?|moros?",
            foreign=ENGLISH_WORDS,
        ),
        Language(
            code="fr",
            letters="abcdefghijklmnopqrstuvwxyzàâæçèéêëîïôœùûüÿ",
            voices={"pico-fr": 1.0},
            words=(2, 14),
            one_letter="(?:[aàyAÀY]|[cdjlmnstCDJLMNST]')",
            abbreviations=(" MM", " Mme", " Mlle", " Dr", " etc", " ex", " cf"),
            coarse=r"putes?|putain\w*|merde\w*|foutre\w*|encul\w*|salop\w*|connard\w*|conne?s?|culs?|bites?|chatte|sex\w*|viol\w*|"
            r"nazi\w*|hitler|juifs?|juives?|tuer\w*|meurtr\w*|suicid\w*|nue?s?|orgasm\w*|nègres?|p[ée]dés?",
            foreign=ENGLISH_WORDS,
        ),
        Language(
            code="it",
            letters="abcdefghijklmnopqrstuvwxyzàèéìíòóùú",
            voices={"pico-it": 1.0},
            words=(2, 14),
            one_letter="(?:[aeioèAEIOÈ]|[cdlmnstvCDLMNSTV]')",
            abbreviations=(" Sig", " Dott", " Ing", " pag", " ecc", " es"),
            coarse=r"puttan\w*|troi[ae]|merd\w*|cazz\w*|fott\w*|stronz\w*|cul[oi]|tett[ae]|froci\w*|sess\w*|stupr\w*|nazis\w*|hitler|"
            r"ebre[oiae]\w*|uccid\w*|uccis\w*|omicid\w*|suicid\w*|nud[aoie]|orgasm\w*|coglion\w*|figa|minchi\w*|scop[aoi]\w*|negr[oi]",
            foreign=ENGLISH_WORDS,
        ),
        Language(
            code="ru",
            letters="абвгдежзийклмнопрстуфхцчшщъыьэюяё",
            voices={"aleksandr": 0.25, "anna": 0.25, "elena": 0.25, "irina": 0.25},
            words=(2, 14),
            one_letter="[авикосуяАВИКОСУЯ]",
            abbreviations=(" г", " гг", " др", " пр", " т", " д", " п", " см", " стр"),
            coarse=r"\w*ху[йеёяи]\w*|\w*пизд\w*|\w*[её]б[аеёлну]\w*|бля\w*|сук[аиу]\w*|говн\w*|дерьм\w*|жоп\w*|срат\w*|сра[лн]\w*|секс\w*|"
            r"изнасил\w*|нацис\w*|фашис\w*|гитлер\w*|евре\w*|жид\w*|уби[вйтл]\w*|самоуби\w*|гол[аоы][йея]|оргазм\w*|трах\w*|шлюх\w*|"
            r"проститу\w*|импотен\w*|негр\w*|чукч\w*|наркот\w*|водк\w*|пь[яю]\w*",
        ),
    )
}

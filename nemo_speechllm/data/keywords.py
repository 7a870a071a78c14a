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

"""Keywords: as manifests write them, as files list them, and the vocabulary of a corpus that they are drawn from."""

import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import regex

from nemo_speechllm.errors import InputError
from nemo_speechllm.manifests.rows import keyword_problem

# letters, their marks and digits of any script (to re a mark is no letter); apostrophe and hyphen inside a word belong
# to it
_WORD = regex.compile(r"\w+(?:['’-]\w+)*")


def keyword_list(keywords: str | Iterable[str] | None, name: str = "keywords") -> list[str]:
    """Return a manifest's ``keywords`` as a list, each once; a string holds them with commas between.

    Args:
        name: what messages call them.

    Raises:
        ValueError: one of them is no string, or longer than any keyword.
    """
    if isinstance(keywords, str):
        keywords = keywords.split(",")
    if strange := [keyword for keyword in keywords or [] if not isinstance(keyword, str)]:
        raise InputError(f'{name}: expected strings, got {strange}; write ["one", "two"]')
    distinct = _each_once(keywords or [])
    for _, problem, remedy in filter(None, map(keyword_problem, distinct)):
        raise InputError(f"{name}: {problem}; {remedy}")
    return distinct


def _each_once(keywords: Iterable[str]) -> list[str]:
    """Without empty ones and such as differ from an earlier one in case alone."""
    spellings: dict[str, str] = {}
    for keyword in keywords:
        spellings.setdefault(keyword.strip().casefold(), keyword.strip())
    return [keyword for keyword in spellings.values() if keyword]


def read_keywords(path: str | Path) -> list[str]:
    """Read the keywords of a UTF-8 text file, one word or phrase a line; empty lines are none.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no keyword or one that is too long, or is no text in UTF-8.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no keywords file {path}; the path counts from {Path.cwd()}")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error}); save it as UTF-8, one keyword a line") from error
    for number, line in enumerate(lines, 1):
        if problem := keyword_problem(line.strip()):
            raise ValueError(f"{path}:{number}: {problem[1]}; write one word or phrase a line")
    keywords = _each_once(lines)
    if not keywords:
        raise ValueError(f"{path} holds no keyword; write one word or phrase a line")
    return keywords


def words_of(text: str) -> list[str]:
    """Return the words of a text, as they are written and without the punctuation around them."""
    return _WORD.findall(unicodedata.normalize("NFC", text))


@dataclass
class Vocabulary:
    """The words of a corpus; a word is the same in upper and lower case.

    Attributes:
        counts: in how many texts a word occurs, by its folded form.
        spellings: how a word is written most often, by its folded form.
    """

    counts: Counter[str] = field(default_factory=Counter)
    spellings: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of_texts(cls, texts: Iterable[str]) -> "Vocabulary":
        """Count the words of texts; in any order of the texts it is the same."""
        written: dict[str, Counter[str]] = {}
        counts: Counter[str] = Counter()
        for text in texts:
            words = words_of(text)
            counts.update({word.casefold() for word in words})
            for word in words:
                written.setdefault(word.casefold(), Counter())[word] += 1
        folded = sorted(counts)
        spellings = {word: min(written[word].items(), key=lambda item: (-item[1], item[0]))[0] for word in folded}
        return cls(Counter({word: counts[word] for word in folded}), spellings)

    def spelling(self, word: str) -> str:
        """Return the word as the corpus writes it most often; one that the corpus does not have stays as it is."""
        return self.spellings.get(word.casefold(), word)

    def is_rare(self, word: str, max_count: int | None) -> bool:
        """Whether at most ``max_count`` texts hold the word; None: any word is rare enough."""
        return max_count is None or self.counts[word.casefold()] <= max_count

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

"""What a list of keywords is worth to a CTC head's search, and to the choice among the texts that it finds."""

from collections.abc import KeysView
from itertools import chain

from nemo.collections.asr.parts.context_biasing.boosting_graph_batched import (
    BoostingTreeModelConfig,
    GPUBoostingTreeModel,
)
from nemo.utils import logging

from nemo_speechllm.data.keywords import words_of
from nemo_speechllm.modules.ctc import CTCHead

# of a keyword that a text holds are worth a nat in the choice: see docs/results/salm_posterior_smollm2.md
LETTERS_PER_NAT = 2


class KeywordPreference:
    """Prefers texts that hold keywords of a list: it leads a search to them, and is a say in the choice.

    Args:
        head: whose pieces are searched for.
        keywords: words and phrases. They count in any case that they may be said in; see `_spellings`. Those that the
            head has pieces for in none of these are named in a warning, and lead no search.

    Attributes:
        tree: leads `ctc_hypotheses` to keywords, piece by piece, NeMo's phrase boosting; None where there is none that
            the head can write.
    """

    def __init__(self, head: CTCHead, keywords: list[str]):
        self.tree = _tree_of(head, keywords)
        self._phrases = {tuple(words) for words in map(_folded, keywords) if words}
        self._longest = max(map(len, self._phrases), default=0)

    def nats(self, text: str) -> float:
        """Return what the keywords that a text holds as words add to its log-probability; the longer count first."""
        words, letters, place = _folded(text), 0, 0
        while place < len(words):
            ends = range(min(len(words), place + self._longest), place, -1)
            end = next((end for end in ends if tuple(words[place:end]) in self._phrases), None)
            letters += sum(map(len, words[place:end])) if end else 0
            place = end or place + 1
        return letters / LETTERS_PER_NAT


def _folded(text: str) -> list[str]:
    return words_of(text.casefold())


def _tree_of(head: CTCHead, keywords: list[str]) -> GPUBoostingTreeModel | None:
    spellings = {word: [word, *_spellings(word)] for word in keywords}
    phrases = _written(head, list(dict.fromkeys(chain.from_iterable(spellings.values()))))
    left = [word for word, of_word in spellings.items() if phrases.isdisjoint(of_word)]
    if left:
        shown = ", ".join(map(repr, left[:5])) + (f" and {len(left) - 5} more" if len(left) > 5 else "")
        logging.warning(f"CTC cannot write {shown}: as keywords they do not lead its search; leave odd characters out")
    if not phrases:
        return None
    with logging.temp_verbosity(logging.WARNING):
        return GPUBoostingTreeModel.from_config(
            BoostingTreeModelConfig(key_phrases_list=list(phrases)), head.tokenizer
        )


def _spellings(keyword: str) -> list[str]:
    """Return a keyword with its first letter capitalised, as at a sentence's start, and what its capitals hide.

    Lists are often copied from where all is in capitals or each word begins with one: "SOY MILK", "Soy Milk".
    """
    small, spellings = keyword.lower(), [keyword[0].upper() + keyword[1:]]
    if keyword != small:
        each_word = " ".join(word[0].upper() + word[1:] for word in small.split())
        spellings += [small, small[0].upper() + small[1:], each_word]
    return spellings


def _written(head: CTCHead, words: list[str]) -> KeysView[str]:
    """Return the words that a head has pieces for, in their order."""
    unknown = head.tokenizer.tokenizer.unk_id()
    return {
        word: ids
        for word, ids in zip(words, head.ids(words), strict=True)
        if unknown not in ids and head.text(ids).strip()
    }.keys()

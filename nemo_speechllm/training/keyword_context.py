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

"""Speech in-context training: now and then words stand before the instruction, few of which are said (2310.09424)."""

from dataclasses import dataclass, replace

import numpy as np
from nemo.utils import logging
from nemo.utils.nemo_logging import LogMode

from nemo_speechllm.data.conversation import Conversation
from nemo_speechllm.data.dataset import ConversationBatch
from nemo_speechllm.data.keywords import Vocabulary, words_of
from nemo_speechllm.languages import has_no_spaces
from nemo_speechllm.randomness import named_random
from nemo_speechllm.recipes import sections


@dataclass
class Pool:
    """What lists in one language are drawn from.

    Attributes:
        vocabulary: of the language.
        corpus: the training texts of the language, which tell what is rare.
        words: those of it that may stand in a list, folded, (N,).
        weights: in how many texts each occurs, (N,).
        places: where a word stands in ``words``.
    """

    vocabulary: Vocabulary
    corpus: Vocabulary
    words: np.ndarray
    weights: np.ndarray
    places: dict[str, int]

    @classmethod
    def of(cls, vocabulary: Vocabulary, corpus: Vocabulary, max_count: int | None) -> "Pool":
        """Return the words of the vocabulary that at most ``max_count`` texts of the corpus hold."""
        counts = {word: n for word, n in vocabulary.counts.items() if corpus.is_rare(word, max_count)}
        words, weights = np.array(list(counts), dtype=object), np.array(list(counts.values()), dtype=float)
        return cls(vocabulary, corpus, words, weights, {word: place for place, word in enumerate(counts)})

    def draw_others(self, spoken: set[str], count: int, random: np.random.Generator) -> list[str]:
        """Up to ``count`` different words that are not among ``spoken``, each with its frequency."""
        weights = self.weights.copy()
        weights[[self.places[word] for word in spoken if word in self.places]] = 0
        count = min(count, int(np.count_nonzero(weights)))
        return list(random.choice(self.words, count, replace=False, p=weights / weights.sum())) if count else []


class KeywordContext:
    """Puts keywords into the questions of a batch: some of the answer's words among many that are not in it.

    The negatives are words of other answers in their frequency, as in the paper's code, where they are those of the
    previous utterance; here they come from a vocabulary, so that a draw depends on (seed, epoch, id of the sample) and
    nothing else: the number of workers and of ranks, the batch and a resumption do not change it. Positives and
    negatives are written as the vocabulary writes them. A conversation with keywords or an instruction of its own, or
    in a language that has no vocabulary or no spaces between words, stays as it is.

    Args:
        cfg: the recipe's ``model.keyword_context`` section.
        vocabularies: by language of the answer; None is that of answers in any other.
        corpora: the training texts by language, which tell what is rare.
    """

    def __init__(
        self,
        cfg: sections.KeywordContext,
        vocabularies: dict[str | None, Vocabulary],
        corpora: dict[str | None, Vocabulary],
    ):
        self.cfg = cfg
        self.pools = {
            language: Pool.of(words, corpora.get(language, Vocabulary()), cfg.max_count)
            for language, words in vocabularies.items()
        }
        self.pools.setdefault(None, Pool.of(Vocabulary(), Vocabulary(), cfg.max_count))
        for language, pool in self.pools.items():
            if language in vocabularies and len(pool.words) < cfg.words:
                logging.warning(
                    f"keyword_context: lists are to have {cfg.words} words, and the vocabulary "
                    f"({language or 'of any language'}) has {len(pool.words)} to draw from: its lists are shorter"
                )

    def __call__(self, batch: ConversationBatch, epoch: int) -> ConversationBatch:
        """Return the batch with keywords in its questions; audio and answers are the same."""
        return replace(batch, conversations=[self.sample(item, epoch) for item in batch.conversations])

    def sample(self, conversation: Conversation, epoch: int) -> Conversation:
        """Return the conversation as asked in an epoch."""
        question, answer = conversation.question, conversation.answer
        if question is None or question.keywords or question.task is None or answer is None:
            return conversation
        random = named_random(("keywords", self.cfg.seed, epoch, conversation.id))
        if random.random() >= self.cfg.probability:
            return conversation
        language = conversation.metadata.get("target_lang") or conversation.metadata.get("lang")
        if has_no_spaces(language):
            logging.warning(f"keyword_context: no lists in {language}, whose words have no spaces", mode=LogMode.ONCE)
            return conversation
        pool = self.pools.get(language, self.pools[None])
        if len(pool.words) == 0:  # a list of positives alone would teach that all in a list is said
            return conversation
        return conversation.with_question(keywords=self._draw(answer, pool, random))

    def _draw(self, answer: str, pool: Pool, random: np.random.Generator) -> list[str]:
        spoken = {word.casefold(): pool.vocabulary.spelling(word) for word in words_of(answer)}
        candidates = [word for word in spoken if pool.corpus.is_rare(word, self.cfg.max_count)]
        wanted = int(self.cfg.words * self.cfg.positive_ratio)
        if random.random() < self.cfg.distractors_only:
            wanted = 0
        positives = [candidates[i] for i in random.permutation(len(candidates))[:wanted]]
        negatives = pool.draw_others(set(spoken), self.cfg.words - len(positives), random)
        keywords = [spoken[word] for word in positives] + [pool.vocabulary.spellings[word] for word in negatives]
        return [keywords[i] for i in random.permutation(len(keywords))]

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

"""Running counts of a validation: errors by language and translations by direction, exact whatever rank saw which."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from nemo_speechllm.metrics.error_rate import ErrorCounts, count_errors_each, macro_rate, normalizer_for
from nemo_speechllm.metrics.listening import ListeningTally
from nemo_speechllm.metrics.translation import canonical, translation_metrics

Direction = tuple[str, str]  # language spoken, language written


def _counts_by_language() -> dict[str, ErrorCounts]:
    return defaultdict(ErrorCounts)


@dataclass
class ErrorTally:
    """Counts of batches, or of ranks, add up.

    Attributes:
        loss: exact sum over items.
        items: how many have one.
        without_loss: ids of those whose batch has a loss that is not finite.
        words, characters: errors by language.
        translations: pairs of hypothesis and reference by direction.
        listening: what answers cost with the right audio and with another.
    """

    loss: Fraction = Fraction(0)  # a sum of floats depends on their order, and so on which process saw which
    items: int = 0
    without_loss: list[str] = field(default_factory=list)
    words: dict[str, ErrorCounts] = field(default_factory=_counts_by_language)
    characters: dict[str, ErrorCounts] = field(default_factory=_counts_by_language)
    translations: dict[Direction, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    listening: ListeningTally = field(default_factory=ListeningTally)

    def count(
        self, hypotheses: list[str], references: list[str], languages: Sequence[str | None], normalize: str
    ) -> None:
        """Add the errors of pairs of texts, each pair in a language; ``normalize`` is as of `normalizer_for`."""
        names = [normalizer_for(*pair, normalize) for pair in zip(languages, references, strict=True)]
        for unit, counts in (("word", self.words), ("char", self.characters)):
            errors = count_errors_each(hypotheses, references, unit, names)
            for language, of_pair in zip(languages, errors, strict=True):
                counts[str(language)] += of_pair

    def count_loss(self, loss: float, ids: list[str]) -> None:
        """Add a batch's mean loss, and the ids of its items."""
        if math.isfinite(loss):
            self.loss += Fraction(loss) * len(ids)
            self.items += len(ids)
        else:
            self.without_loss += ids

    def count_translation(self, hypothesis: str, reference: str, direction: Direction) -> None:
        """Add a translation to those of a direction."""
        self.translations[direction].append((canonical(hypothesis), canonical(reference)))

    def __add__(self, other: "ErrorTally") -> "ErrorTally":
        without_loss = self.without_loss + other.without_loss
        total = ErrorTally(self.loss + other.loss, self.items + other.items, without_loss)
        total.listening = self.listening + other.listening
        for tally in (self, other):
            for language in tally.words:
                total.words[language] += tally.words[language]
                total.characters[language] += tally.characters[language]
            for direction, pairs in tally.translations.items():
                total.translations[direction] += pairs
        return total

    def figures(self) -> dict[str, float]:
        """Return ``loss``, ``wer``, ``cer``, of translations mean ``bleu`` and ``chrf`` of the directions.

        And what was counted of listening, see `ListeningTally.figures`.
        """
        directions = self._translation_figures()
        return {
            "loss": float(self.loss / self.items) if self.items else math.nan,
            "wer": sum(self.words.values(), ErrorCounts()).rate,
            "cer": sum(self.characters.values(), ErrorCounts()).rate,
            **{name: sum(scores.values()) / len(scores) for name, scores in directions.items()},
            **self.listening.figures(),
        }

    def language_figures(self) -> dict[str, float]:
        """Return figures by language and direction; none for a single one.

        Returns:
            ``wer_<lang>``, ``cer_<lang>`` and their means ``wer_macro``, ``cer_macro``, ``bleu_<lang>-<target_lang>``
            and ``chrf_<lang>-<target_lang>``.
        """
        figures: dict[str, float] = {}
        if len(self.translations) > 1:
            for name, scores in self._translation_figures().items():
                figures |= {f"{name}_{'-'.join(direction)}": score for direction, score in scores.items()}
        if len(self.words) < 2:
            return figures
        for name, counts in (("wer", self.words), ("cer", self.characters)):
            figures |= {f"{name}_{language}": counts[language].rate for language in sorted(counts)}
            macro = macro_rate(counts[language] for language in sorted(counts))
            if macro is not None:
                figures[f"{name}_macro"] = macro
        return figures

    def _translation_figures(self) -> dict[str, dict[Direction, float]]:
        figures: dict[str, dict[Direction, float]] = defaultdict(dict)
        for direction, pairs in sorted(self.translations.items()):
            hypotheses, references = zip(*pairs, strict=True)
            for name, metric in translation_metrics(direction[1]).items():
                figures[name.lower()][direction] = metric.corpus_score(hypotheses, [references]).score
        return figures

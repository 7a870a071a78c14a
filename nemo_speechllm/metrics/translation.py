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

"""BLEU and chrF of translations by direction, with bootstrap and randomization, all of sacrebleu (1804.08771)."""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import PairedTest, Result

from nemo_speechllm.languages import base_language, has_no_spaces, is_chinese
from nemo_speechllm.metrics.error_rate import is_unspaced, normalizer, normalizer_for

_MECAB = {"ja": "ja-mecab", "ko": "ko-mecab"}  # by languages; each needs sacrebleu's extra of the language's name


@dataclass(frozen=True, slots=True)
class TranslationScore:
    """A figure of one or several systems on the same utterances.

    Attributes:
        name: ``BLEU`` or ``chrF``.
        results: of each system: ``score`` and half the width ``ci`` of its 95 % interval around ``mean``, all from 0
            to 100; ``p_value``, two-sided, against the first system by approximate randomization (Riezler & Maxwell
            2005), 1 where the scores are the same.
        signature: sacrebleu's, which says how the figure was computed.
    """

    name: str
    results: list[Result]
    signature: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TranslationFigures:
    """Figures of the translations of a direction.

    Attributes:
        utterances, truncated: how many there are, and of these end early.
        signatures: sacrebleu's, of ``bleu`` and ``chrf``.
        bleu, chrf: 0 to 100.
        bleu_ci, chrf_ci: 95 % bootstrap intervals, [low, high].
    """

    utterances: int
    truncated: int
    signatures: dict[str, str]
    bleu: float
    bleu_ci: list[float]
    chrf: float
    chrf_ci: list[float]

    @property
    def scores(self) -> tuple[tuple[float, list[float]], ...]:
        """BLEU and chrF, each with its interval."""
        return (self.bleu, self.bleu_ci), (self.chrf, self.chrf_ci)


def is_translation(prediction: dict[str, Any]) -> bool:
    """Tell whether a prediction of evaluate.py is a translation, which has no word errors."""
    return "target_lang" in prediction


def written_language(prediction: dict[str, Any]) -> str | None:
    """Return the language of a prediction's texts."""
    return prediction["target_lang"] if is_translation(prediction) else prediction.get("lang")


def by_direction(predictions: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Group translations by ``lang>target_lang``, in the order of the names."""
    directions: dict[str, list[dict[str, Any]]] = {}
    for prediction in predictions:
        name = f"{prediction['lang'] or '?'}>{prediction['target_lang'] or '?'}"
        directions.setdefault(name, []).append(prediction)
    return dict(sorted(directions.items()))


def bleu_tokenizer(target_lang: str | None) -> str:
    """Return the name of sacrebleu's tokenizer for a language, in whatever form its code is.

    Languages without spaces between words that sacrebleu has no words of are counted in characters; its other
    tokenizers for them would be fetched from the net.
    """
    if is_chinese(target_lang):
        return "zh"
    mecab = _MECAB.get(base_language(target_lang) or "")
    return mecab or ("char" if has_no_spaces(target_lang) else "13a")


def translation_metrics(target_lang: str | None) -> dict[str, BLEU | CHRF]:
    """Return BLEU, with the target language's tokenizer, and chrF of texts as they are: case and punctuation count.

    Raises:
        ValueError: the tokenizer needs a package that is not installed.
    """
    tokenizer = bleu_tokenizer(target_lang)
    try:
        return {"BLEU": BLEU(tokenize=tokenizer), "chrF": CHRF()}
    except (RuntimeError, ImportError, AssertionError) as error:  # not there, or with another dictionary
        raise ValueError(
            f"BLEU of translations into {target_lang} needs sacrebleu's tokenizer {tokenizer}, whose packages "
            f"are missing or of another version; `pip install 'sacrebleu[{tokenizer.partition('-')[0]}]'`"
        ) from error


def check_metrics(normalize: str, translations: Iterable[tuple[str | None, str]] = ()) -> None:
    """Refuse, before any work, what could not be scored at its end.

    Args:
        normalize: as of `normalizer_for`.
        translations: language and text of each reference translation.

    Raises:
        ValueError: there is no such normaliser, the tokenizer of one of the languages needs a package that is not
            installed, or the references are written without spaces between words and their language is not named so
            that a tokenizer is known.
    """
    normalizer(normalizer_for(None, "", normalize))
    unspaced: dict[str | None, list[bool]] = {}
    for language, reference in translations:
        unspaced.setdefault(language, []).append(is_unspaced(reference))
    for language, flags in unspaced.items():
        translation_metrics(language)
        if bleu_tokenizer(language) == "13a" and sum(flags) > len(flags) / 2:
            raise ValueError(
                f"translations whose target_lang is {language!r} are written without spaces between "
                "words, and BLEU would take each for one word; give their language's code as target_lang, such as zh, "
                "ja or th"
            )


def canonical(text: str) -> str:
    """Return a text as the figures count it: the same however its accents are encoded."""
    return unicodedata.normalize("NFC", text)


def score_translations(
    systems: Sequence[Sequence[str]], references: Sequence[str], target_lang: str | None
) -> list[TranslationScore]:
    """Return the `translation_metrics` of systems, with intervals or, of several systems, with their significance.

    Args:
        systems: the translations of each system, N texts.
        references: N texts.
        target_lang: chooses BLEU's tokenizer, see `bleu_tokenizer`.
    """
    # of one system only the bootstrap is of use, and the signature says which was run
    test: dict[str, Any] = {"test_type": "ar", "n_ar_confidence": 0} if len(systems) > 1 else {"test_type": "bs"}
    scores = []
    for name, metric in translation_metrics(target_lang).items():
        named: list[tuple[str, Sequence[str]]] = [
            (str(number), [*map(canonical, texts)]) for number, texts in enumerate(systems)
        ]
        signatures, by_name = PairedTest(named, {name: metric}, [[*map(canonical, references)]], **test)()
        (key,) = signatures
        results = cast(list[Result], by_name[key])  # the names have a key of their own
        for result in results[1:]:
            if result.score == results[0].score:  # sacrebleu says 0.0001: the difference of 0 is not by chance
                result.p_value = 1.0
        scores.append(TranslationScore(name, results, str(signatures[key])))
    return scores


def translation_report(predictions: Sequence[dict[str, Any]]) -> dict[str, TranslationFigures]:
    """Return BLEU and chrF of each direction, ``lang>target_lang``.

    Args:
        predictions: each with ``text`` (reference), ``pred_text``, ``truncated``, ``lang`` and ``target_lang``.
    """
    return {direction: _direction_figures(pairs) for direction, pairs in by_direction(predictions).items()}


def _direction_figures(predictions: list[dict[str, Any]]) -> TranslationFigures:
    texts, references = [p["pred_text"] for p in predictions], [p["text"] for p in predictions]
    bleu, chrf = score_translations([texts], references, predictions[0]["target_lang"])
    return TranslationFigures(
        utterances=len(predictions),
        truncated=sum(p["truncated"] for p in predictions),
        signatures={score.name.lower(): score.signature for score in (bleu, chrf)},
        bleu=float(bleu.results[0].score),
        bleu_ci=_interval(bleu.results[0]),
        chrf=float(chrf.results[0].score),
        chrf_ci=_interval(chrf.results[0]),
    )


def _interval(result: Result) -> list[float]:
    assert result.mean is not None and result.ci is not None  # there are, of a bootstrap
    return [float(result.mean - result.ci), float(result.mean + result.ci)]

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

"""BLEU and chrF by direction."""

import json

import numpy as np
import pytest
import sacrebleu

from nemo_speechllm.metrics.translation import format_translations, score_translations, translation_report

REFERENCES = ["la casa es muy grande hoy", "marque el uno por favor ahora", "gracias por su llamada de hoy"]
TEXTS = ["la casa es grande hoy", "marque el uno por favor ahora", "gracias por llamada de hoy"]


def translation(text: str, pred_text: str, lang: str | None = "en", target_lang: str | None = "es") -> dict:
    return {"text": text, "pred_text": pred_text, "lang": lang, "target_lang": target_lang, "truncated": False}


def test_figures_are_sacrebleu_s_by_direction():
    predictions = [translation(*pair) for pair in zip(REFERENCES, TEXTS)]
    predictions += [translation(*pair, lang="fr") for pair in zip(REFERENCES, reversed(TEXTS))]
    report = translation_report(predictions)
    assert list(report) == ["en>es", "fr>es"] and json.dumps(report, allow_nan=False)
    for figures, texts in zip(report.values(), (TEXTS, TEXTS[::-1])):
        assert figures["utterances"] == 3
        assert figures["bleu"] == pytest.approx(sacrebleu.corpus_bleu(texts, [REFERENCES]).score)
        assert figures["chrf"] == pytest.approx(sacrebleu.corpus_chrf(texts, [REFERENCES]).score)
        assert figures["bleu_ci"][0] < figures["bleu"] < figures["bleu_ci"][1]
    assert "tok:13a" in report["en>es"]["signatures"]["bleu"] and "nc:6" in report["en>es"]["signatures"]["chrf"]


def test_the_target_language_chooses_the_tokenizer():
    (bleu, _) = score_translations([["你好"]], ["你好"], "zh")
    assert "tok:zh" in bleu.signature


def test_case_and_punctuation_count():
    (bleu, _) = score_translations([["Hola. Gracias por su llamada", "hola gracias por su llamada"]], ["x"] * 2, "es")
    assert bleu.results[0].score == 0
    reference = ["Hola. Gracias por su llamada."]
    scores = [
        score_translations([[t]], reference, "es")[0].results[0].score
        for t in (reference[0], "hola gracias por su llamada")
    ]
    assert scores[0] == pytest.approx(100) and scores[1] < 60


def test_systems_are_compared_with_the_first():
    references = [f"esta es la frase numero {number} de la prueba" for number in range(60)]
    random = np.random.default_rng(0)
    worse = [" ".join(random.permutation(text.split())) for text in references]
    for score in score_translations([references, worse, references], references, "es"):
        first, second, same = score.results
        assert first.score == pytest.approx(100) and second.score < 90
        assert second.p_value < 0.01 < same.p_value


def test_table_has_a_row_for_each_direction_and_each_signature_once():
    predictions = [translation(*pair, lang) for lang in ("en", "fr") for pair in zip(REFERENCES, TEXTS)]
    lines = format_translations(translation_report(predictions)).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["en>es", "fr>es", "bleu:", "chrf:"]


def test_an_unknown_language_has_a_direction_of_its_own():
    assert list(translation_report([translation("a", "b", None, None)])) == ["?>?"]

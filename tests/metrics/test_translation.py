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
import unicodedata

import numpy as np
import pytest
import sacrebleu

from nemo_speechllm.evaluation.tables import format_translations
from nemo_speechllm.files import as_object
from nemo_speechllm.metrics.translation import bleu_tokenizer, check_metrics, score_translations, translation_report

REFERENCES = ["la casa es muy grande hoy", "marque el uno por favor ahora", "gracias por su llamada de hoy"]
TEXTS = ["la casa es grande hoy", "marque el uno por favor ahora", "gracias por llamada de hoy"]


def translation(text: str, pred_text: str, lang: str | None = "en", target_lang: str | None = "es") -> dict:
    return {"text": text, "pred_text": pred_text, "lang": lang, "target_lang": target_lang, "truncated": False}


def test_figures_are_sacrebleu_s_by_direction():
    predictions = [translation(*pair) for pair in zip(REFERENCES, TEXTS, strict=True)]
    predictions += [translation(*pair, lang="fr") for pair in zip(REFERENCES, reversed(TEXTS), strict=True)]
    report = translation_report(predictions)
    assert list(report) == ["en>es", "fr>es"] and json.dumps(report, allow_nan=False, default=as_object)
    for figures, texts in zip(report.values(), (TEXTS, TEXTS[::-1]), strict=True):
        assert figures.utterances == 3
        assert figures.bleu == pytest.approx(sacrebleu.corpus_bleu(texts, [REFERENCES]).score)
        assert figures.chrf == pytest.approx(sacrebleu.corpus_chrf(texts, [REFERENCES]).score)
        assert figures.bleu_ci[0] < figures.bleu < figures.bleu_ci[1]
    assert "tok:13a" in report["en>es"].signatures["bleu"] and "nc:6" in report["en>es"].signatures["chrf"]


@pytest.mark.parametrize(
    ("tokenizer", "languages"),
    [
        ("zh", "zh zh-CN zh_TW zh-Hant-HK cmn zho yue yue-HK lzh Chinese"),
        ("ja-mecab", "ja ja-JP jpn ja_JP Japanese"),
        ("ko-mecab", "ko ko-KR kor KO 한국어"),
        ("char", "th tha lo km my-MM bod"),
        ("13a", "de en-US pt_BR hin vie zh-Latn x"),
    ],
)
def test_the_target_language_chooses_the_tokenizer_however_it_is_written(tokenizer, languages):
    assert {name: bleu_tokenizer(name) for name in languages.split()} == dict.fromkeys(languages.split(), tokenizer)
    assert bleu_tokenizer(None) == "13a"


@pytest.mark.parametrize(("language", "tokenizer"), [("zh-CN", "zh"), ("cmn", "zh"), ("th", "char"), ("de-AT", "13a")])
def test_the_signature_states_the_tokenizer(language, tokenizer):
    (bleu, _) = score_translations([["你好"]], ["你好"], language)
    assert f"tok:{tokenizer}|" in bleu.signature


def test_chinese_of_a_region_is_scored_by_words_of_its_own():
    references = [
        "危险之路的作者，菲利普·斯蒂尔斯等。",
        "这次不行，汤姆，惠特莫尔道歉说。",
        "那天晚上，两个人第二十次握手。",
    ]
    texts = [text.replace("那天", "这天") for text in references]
    assert score_translations([texts], references, "zh-CN")[0].results[0].score > 90


MECAB = {
    "ja": ("sacrebleu.tokenizers.tokenizer_ja_mecab.MeCab", "jpn"),
    "ko": ("sacrebleu.tokenizers.tokenizer_ko_mecab.MeCab", "ko-KR"),
}


@pytest.mark.parametrize("extra", MECAB)
def test_a_tokenizer_that_is_not_installed_is_named_with_its_remedy(extra, monkeypatch):
    module, language = MECAB[extra]
    monkeypatch.setattr(module, None)
    with pytest.raises(ValueError, match=rf"translations into {language} .*pip install 'sacrebleu\[{extra}\]'"):
        check_metrics("auto", [("zh", "好"), (language, "x")])
    check_metrics("auto", [("zh", "好"), ("de", "ja"), (None, "x")])


@pytest.mark.parametrize("language", [None, "華語文", "x-unknown"])
def test_a_language_that_bleu_has_no_words_of_is_refused_until_it_is_named(language):
    references = ["那天晚上，两个人第二十次握手。", "这次不行。", "OK"]
    with pytest.raises(ValueError, match="written without spaces between words.*target_lang, such as zh"):
        check_metrics("auto", [(language, reference) for reference in references])
    check_metrics("auto", [(language, text) for text in ("Er sagt 你好.", "Guten Tag", "Bis bald")])


@pytest.mark.parametrize(("language", "module"), [("ja-JP", "MeCab"), ("kor", "mecab_ko")])
def test_japanese_and_korean_are_scored_where_their_tokenizers_are(language, module):
    pytest.importorskip(module)
    reference = {"ja-JP": "その夜二十回目に二人は握手した。", "kor": "그날 저녁에 두 사람은 스무 번째로 악수했다."}[
        language
    ]
    (bleu, _) = score_translations(
        [[reference.replace("二人は", "二人が").replace("저녁에", "저녁")]], [reference], language
    )
    assert f"tok:{bleu_tokenizer(language)}" in bleu.signature and 50 < bleu.results[0].score < 100


def test_an_unknown_normaliser_is_refused_before_any_work():
    with pytest.raises(ValueError, match="unknown text normalizer 'german'"):
        check_metrics("german")


def test_the_encoding_of_accents_changes_no_score():
    decomposed = [unicodedata.normalize("NFD", "él está aquí, señora Núñez")]
    for score in score_translations([decomposed], ["él está aquí, señora Núñez"], "es"):
        assert score.results[0].score == pytest.approx(100)


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
    predictions = [translation(*pair, lang) for lang in ("en", "fr") for pair in zip(REFERENCES, TEXTS, strict=True)]
    lines = format_translations(translation_report(predictions)).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["en>es", "fr>es", "bleu:", "chrf:"]


def test_an_unknown_language_has_a_direction_of_its_own():
    assert list(translation_report([translation("a", "b", None, None)])) == ["?>?"]

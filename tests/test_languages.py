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

"""One code for a language, however it is named."""

import pytest

from nemo_speechllm.languages import (
    base_language,
    has_no_spaces,
    is_chinese,
    language_name,
    lower_case,
    meant_language,
    unknown_language_remedy,
)


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("en", "en EN en-US en_GB eng eng_Latn English"),
        ("de", "de de-AT DE_ch deu ger German"),
        ("zh", "zh zh-CN zh_TW zh-Hant-TW cmn cmn-Hans-CN zho chi Mandarin zho_Hans"),
        ("ja", "ja ja-JP jpn ja_JP.UTF-8 Japanese"),
        ("ko", "ko ko-KR kor Korean"),
        ("hi", "hi hi-IN hin hin_Deva"),
        ("pt", "pt pt_BR pt-BR por Portuguese"),
        ("yue", "yue yue-HK Cantonese"),
        ("tlh", "tlh tlh-Piqd"),
    ],
)
def test_forms_of_a_name(code, names):
    assert {name: base_language(name) for name in names.split()} == dict.fromkeys(names.split(), code)


def test_a_language_s_own_name():
    names = ["Deutsch", "español", "FRANÇAIS", "Tiếng Việt", "हिन्दी", "русский", "c\u030ceština"]
    assert [base_language(name) for name in names] == ["de", "es", "fr", "vi", "hi", "ru", "cs"]


@pytest.mark.parametrize("name", ["xx", "c", "POSIX", "allemand", "klingonisch"])
def test_what_is_no_language_at_all_is_told(name):
    assert "code of two or three letters" in unknown_language_remedy(name)


@pytest.mark.parametrize("name", ["ga", "zu", "tlh", "und", "unknown", "", "x-mine", "Deutsch", "de-AT", "cn", "jp"])
def test_what_may_be_a_language_is_not_told(name):
    assert unknown_language_remedy(name) is None


def test_names_of_several_words():
    names = ["Haitian Creole", "Chinese (Taiwan)", "Simplified Chinese", "Brazilian Portuguese", "American English"]
    assert [base_language(name) for name in names] == ["ht", "zh", "zh", "pt", "en"]


@pytest.mark.parametrize("name", [None, "", " "])
def test_nothing_named(name):
    assert base_language(name) is None and not has_no_spaces(name) and not is_chinese(name)


def test_the_script_tells_whether_there_are_spaces():
    assert all(map(has_no_spaces, ("zh-CN", "jpn", "th_TH", "lo", "khm", "mya", "yue", "bod")))
    assert not any(map(has_no_spaces, ("ko", "vi", "de", "zh-Latn", "ja-Latn-JP", "hi")))
    assert is_chinese("lzh") and is_chinese("yue") and not is_chinese("zh-Latn") and not is_chinese("ja")


@pytest.mark.parametrize(
    ("name", "meant"),
    [("kr", "ko"), ("KR", "ko"), ("kr-KR", "ko"), ("dk", "da"), ("Koraen", "ko"), ("Englsh", "en"), ("cz_CZ", "cs")],
)
def test_what_is_no_language_is_named_with_the_nearest(name, meant):
    assert meant_language(name) == meant


@pytest.mark.parametrize(
    "name", ["ko", "ko-KR", "jp", "cn", "Korean", "tlh", "kau", "unknown", "", "zxx", "zh-Hant-TW"]
)
def test_what_is_or_may_be_one_is_not(name):
    assert meant_language(name) is None


def test_lower_case_is_the_language_s():
    assert lower_case("IŞIK İZMİR", "tr-TR") == "ışık izmir" == lower_case("IŞIK I\u0307ZMİR", "aze")
    assert lower_case("ISLAND", "en") == "island"


def test_english_names():
    assert [language_name(code) for code in ("es_MX", "deu", "yue", "tlh")] == [
        "Spanish",
        "German",
        "Cantonese",
        "tlh",
    ]

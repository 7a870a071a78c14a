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

"""Languages by one code each, however a manifest names them: ``de``, ``de-AT``, ``deu``, ``ger_Latn``, ``German``."""

import difflib
import re
import unicodedata
from functools import lru_cache

from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

# ISO 639-2, 639-3 and withdrawn codes → Whisper's code, with the varieties that FLORES and Common Voice name, and two
# country codes that often stand for a language (jp, cn)
_CODES = {
    three: code
    for code, threes in {
        "af": "afr", "am": "amh", "ar": "ara arb acm acq aeb ajp apc ars ary arz", "as": "asm", "az": "aze azj azb",
        "ba": "bak", "be": "bel", "bg": "bul", "bn": "ben", "bo": "bod tib", "br": "bre", "bs": "bos", "ca": "cat",
        "cs": "ces cze", "cy": "cym wel", "da": "dan", "de": "deu ger", "el": "ell gre", "en": "eng", "es": "spa",
        "et": "est ekk", "eu": "eus baq", "fa": "fas per pes prs", "fi": "fin", "fo": "fao", "fr": "fra fre",
        "gl": "glg", "gu": "guj", "ha": "hau", "haw": "haw", "he": "heb iw", "hi": "hin", "hr": "hrv", "ht": "hat",
        "hu": "hun", "hy": "hye arm", "id": "ind in", "is": "isl ice", "it": "ita", "ja": "jpn jp", "jw": "jav jv",
        "ka": "kat geo", "kk": "kaz", "km": "khm", "kn": "kan", "ko": "kor", "la": "lat", "lb": "ltz", "ln": "lin",
        "lo": "lao", "lt": "lit", "lv": "lav lvs", "mg": "mlg plt", "mi": "mri mao", "mk": "mkd mac", "ml": "mal",
        "mn": "mon khk", "mr": "mar", "ms": "msa may zsm", "mt": "mlt", "my": "mya bur", "ne": "nep npi",
        "nl": "nld dut", "nn": "nno", "no": "nor nob nb", "oc": "oci", "pa": "pan", "pl": "pol", "ps": "pus pbt",
        "pt": "por", "ro": "ron rum mo", "ru": "rus", "sa": "san", "sd": "snd", "si": "sin", "sk": "slk slo",
        "sl": "slv", "sn": "sna", "so": "som", "sq": "sqi alb als", "sr": "srp", "su": "sun", "sv": "swe",
        "sw": "swa swh", "ta": "tam", "te": "tel", "tg": "tgk", "th": "tha", "tk": "tuk", "tl": "tgl fil", "tr": "tur",
        "tt": "tat", "uk": "ukr", "ur": "urd", "uz": "uzb uzn", "vi": "vie", "yi": "yid ydd ji", "yo": "yor",
        "zh": "zho chi cmn cn",
    }.items()
    for three in threes.split()
}  # fmt: skip
# languages by their own names (CLDR)
_OWN_NAMES = {
    "afrikaans": "af", "azərbaycan": "az", "bosanski": "bs", "català": "ca", "cymraeg": "cy", "dansk": "da",
    "deutsch": "de", "eesti": "et", "español": "es", "castellano": "es", "euskara": "eu", "filipino": "tl",
    "français": "fr", "galego": "gl", "hrvatski": "hr", "indonesia": "id", "bahasa indonesia": "id", "italiano": "it",
    "kiswahili": "sw", "latviešu": "lv", "lietuvių": "lt", "lëtzebuergesch": "lb", "magyar": "hu", "malti": "mt",
    "melayu": "ms", "bahasa melayu": "ms", "nederlands": "nl", "vlaams": "nl", "norsk": "no", "norsk bokmål": "no",
    "norsk nynorsk": "nn", "polski": "pl", "português": "pt", "română": "ro", "shqip": "sq", "slovenčina": "sk",
    "slovenščina": "sl", "suomi": "fi", "svenska": "sv", "tiếng việt": "vi", "türkçe": "tr", "íslenska": "is",
    "čeština": "cs", "ελληνικά": "el", "беларуская": "be", "български": "bg", "македонски": "mk", "монгол": "mn",
    "русский": "ru", "српски": "sr", "українська": "uk", "қазақ тілі": "kk", "татар": "tt", "հայերեն": "hy",
    "ქართული": "ka", "עברית": "he", "اردو": "ur", "العربية": "ar", "فارسی": "fa", "हिन्दी": "hi", "मराठी": "mr",
    "नेपाली": "ne", "বাংলা": "bn", "ਪੰਜਾਬੀ": "pa", "ગુજરાતી": "gu", "தமிழ்": "ta", "తెలుగు": "te", "ಕನ್ನಡ": "kn",
    "മലയാളം": "ml", "සිංහල": "si", "ไทย": "th", "ລາວ": "lo", "မြန်မာ": "my", "ខ្មែរ": "km", "አማርኛ": "am",
    "한국어": "ko", "中文": "zh", "汉语": "zh", "普通话": "zh", "粵語": "yue", "日本語": "ja",
}  # fmt: skip
# codes of two letters that Whisper does not know (ISO 639-1), and what stands for no language in particular
_OTHER_CODES = frozenset(
    "aa ab ae ak an av ay bh bi bm ce ch co cr cu cv dv dz ee eo ff fj fy ga gd gn gv ho hz ia ie ig ii ik io iu kg "
    "ki kj kl kr ks ku kv kw ky lg li lu mh na nd ng nr nv ny oj om or os pi qu rm rn rw sc se sg sm ss st tn to ti "
    "ts tw ty ug ve vo wa wo xh za zu x i unknown none mixed multilingual".split()
)
# codes of countries that are no languages' (or of one that few mean) → the language that is meant
_COUNTRIES = {
    **{"al": "sq", "bd": "bn", "cz": "cs", "dk": "da", "eg": "ar", "gb": "en", "ge": "ka", "gr": "el", "il": "he"},
    **{"ir": "fa", "kh": "km", "kr": "ko", "kz": "kk", "lk": "si", "md": "ro", "mx": "es", "np": "ne", "pk": "ur"},
    **{"rs": "sr", "ua": "uk", "us": "en", "vn": "vi"},
}
_CHINESE = frozenset("zh yue lzh wuu nan hak gan hsn cdo mnp cpx czh czo cjy".split())
DOTLESS = frozenset(("tr", "az"))  # whose lower case of I is ı, and of İ i
# between whose words there are no spaces
UNSPACED_LANGUAGES = _CHINESE | {"ja", "th", "lo", "km", "my", "bo", "dz", "dzo"}


def base_language(name: str | None) -> str | None:
    """Return the code by which Whisper knows a language, or the code's own first part where Whisper does not know it.

    Args:
        name: an ISO 639 code, in any case and with region, script and the like after ``-`` or ``_``, an English name,
            or the language's own.

    Returns:
        ``zh`` for ``zh-Hant-TW``, ``cmn``, ``zho_Hans``, ``Chinese (Taiwan)`` and ``中文``; None where nothing is
        named.
    """
    own_name = unicodedata.normalize("NFC", str(name or "").strip()).casefold()
    if own_name in _OWN_NAMES:
        return _OWN_NAMES[own_name]
    parts = re.findall(r"\w+", str(name or "").casefold().replace("_", " "))
    if not parts:
        return None
    if " ".join(parts) in TO_LANGUAGE_CODE:
        return TO_LANGUAGE_CODE[" ".join(parts)]
    code = _CODES.get(parts[0], parts[0])
    if code in LANGUAGES or len(code) <= 3:
        return code
    return next((TO_LANGUAGE_CODE[part] for part in parts if part in TO_LANGUAGE_CODE), code)


def unknown_language_remedy(name: str) -> str | None:
    """Return what to write in the place of a name that is no language's; None where it may be one's.

    Codes of three letters, of which there are thousands, are taken as they are.
    """
    code, meant = base_language(name), meant_language(name)
    if meant is not None:
        return f"write {meant!r} if that is meant, or else the language's code of three letters"
    if code is None or code in LANGUAGES or code in _OTHER_CODES or len(code) == 3:
        return None
    return "write the language's code of two or three letters (ISO 639), or its English name"


@lru_cache(maxsize=1024)
def meant_language(name: str) -> str | None:
    """Return the code of the language that a name most likely means which is no language's own; else None.

    ``ko`` for ``kr`` (a country's code, or Kanuri's, which has ``kau`` as well) and ``Koraen``.
    """
    code = base_language(name) or ""
    if code in _COUNTRIES:
        return _COUNTRIES[code]
    nearest = difflib.get_close_matches(code, TO_LANGUAGE_CODE, 1, 0.8) if len(code) > 3 else []
    return TO_LANGUAGE_CODE[nearest[0]] if nearest and nearest[0] != code else None


def lower_case(text: str, name: str | None) -> str:
    """Return a text in lower case by the rules of its language: in Turkish and Azerbaijani the I has no dot."""
    if base_language(name) in DOTLESS:
        text = text.replace("I\u0307", "i").replace("İ", "i").replace("I", "ı")
    return text.lower()


def language_name(name: str) -> str:
    """Return a language's English name, ``Spanish`` for ``es`` and ``es-MX``; one unknown to Whisper stays."""
    known = LANGUAGES.get(base_language(name) or "")
    return known.title() if known else name


def is_chinese(name: str | None) -> bool:
    """Tell whether a language is written in Chinese characters alone: Mandarin, Cantonese, Classical Chinese, …"""
    return base_language(name) in _CHINESE and not _in_latin_script(name)


def has_no_spaces(name: str | None) -> bool:
    """Tell whether a language is written without spaces between words; in Latin letters (``zh-Latn``) it has them."""
    return base_language(name) in UNSPACED_LANGUAGES and not _in_latin_script(name)


def _in_latin_script(name: str | None) -> bool:
    return "latn" in re.split(r"[-_]", str(name).lower())

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

"""What the synthesis knows of languages: words that no voice says are lists beside the code."""

import re
from pathlib import Path

import pytest

from nemo_speechllm.corpora import synthesis_languages
from nemo_speechllm.corpora.synthesis_languages import LANGUAGES, words_kept_out

FOLDER = Path(synthesis_languages.__file__).with_name("words_kept_out")


def test_every_list_is_read():
    lists = {f"coarse_{code}" for code in LANGUAGES} | {language.foreign for language in LANGUAGES.values()} - {None}
    assert {path.stem for path in FOLDER.iterdir()} == lists
    for name in lists:
        assert all(re.compile(word) and word == word.strip() != "" for word in words_kept_out(name))


@pytest.mark.parametrize("language", LANGUAGES.values(), ids=LANGUAGES)
def test_a_listed_word_is_unfit_and_others_are_not(language):
    stems = [word.replace(r"\w*", "") for word in words_kept_out(f"coarse_{language.code}")]
    plain = next(stem for stem in stems if stem.isalpha())
    assert language.unfit.search(f"Aa {plain} aa.") and not language.unfit.search(
        f"{language.letters[:2].capitalize()} {language.letters[1:4]}."
    )
    assert bool(language.unfit.search("Aa through the aa.")) == (language.foreign == "english")

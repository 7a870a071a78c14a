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

"""``model.generation``: what is a setting of models with a CTC head alone, and what leaves Whisper no say."""

import pytest

from nemo_speechllm.recipes import SettingError, complete
from nemo_speechllm.recipes.generation import CTCHeadGeneration, Generation

KEY = "model.generation"
SETTINGS = {"ctc_weight": 0.3, "max_audio_seconds": 10.0, "whisper_weight": 0.5}


def test_whisper_has_no_say_unless_it_is_given_one():
    assert complete(CTCHeadGeneration, {}, KEY).whisper_weight == 0
    assert complete(CTCHeadGeneration, SETTINGS, KEY).whisper_weight == 0.5
    with pytest.raises(SettingError, match="model.generation has no setting 'whisper_weight'"):
        complete(Generation, SETTINGS, KEY)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ctc_weight": 0.0}, "ctc_weight=0 leaves none; give model.generation.ctc_weight"),
        ({"max_audio_seconds": None}, "hears 30 s at once and .*max_audio_seconds is null"),
        ({"max_audio_seconds": 40.0}, "max_audio_seconds is 40"),
        ({"whisper_weight": 1.0}, "1"),
    ],
)
def test_settings_that_leave_whisper_nothing_to_say_are_named(changes, message):
    with pytest.raises(SettingError, match=f"model.generation.whisper_weight.*{message}"):
        complete(CTCHeadGeneration, SETTINGS | changes, KEY)

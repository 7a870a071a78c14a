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

"""Each field of the form is honoured or refused by name; over HTTP: tests/serving/test_app.py."""

import pytest

from nemo_speechllm.serving.errors import RequestError
from nemo_speechllm.serving.forms import KNOWN, UNSUPPORTED, read_form


def test_a_form_of_nothing_but_a_model_asks_for_json():
    asked = read_form([("model", "salm")])
    assert (asked.model, asked.response_format, asked.stream, asked.language) == ("salm", "json", False, None)
    assert asked.settings.timestamps is False and asked.settings.keywords is None and asked.settings.prompt == {}


@pytest.mark.parametrize(
    ("items", "setting", "value"),
    [
        ([("prompt", "Ada, Boston;Bern\nAda")], "keywords", ["Ada", "Boston", "Bern"]),
        ([("hotwords", "Ada,Boston")], "keywords", ["Ada", "Boston"]),
        ([("keywords[]", "Ada"), ("keywords[]", "New York"), ("prompt", "X")], "keywords", ["Ada", "New York", "X"]),
        ([("prompt", " ")], "keywords", None),
        ([("instruction", "Say it.")], "instruction", "Say it."),
        ([("language", "German")], "prompt", {"lang": "de"}),
        ([("languages[]", "es-MX")], "prompt", {"lang": "es"}),
        ([("max_completion_tokens", "7")], "max_new_tokens", 7),
        ([("beam_size", "3")], "beam_size", 3),
        ([("decoder", "ctc")], "decoder", "ctc"),
        ([("response_format", "srt")], "timestamps", True),
        (
            [("confidence", "true"), ("response_format", "verbose_json"), ("timestamp_granularities[]", "word")],
            "confidence",
            True,
        ),
    ],
)  # fmt: skip
def test_fields_are_settings_of_transcribe(items, setting, value):
    assert getattr(read_form(items).settings, setting) == value


def test_a_translation_is_into_english_or_the_language_that_is_asked_for():
    assert read_form([], translate=True).settings.prompt == {"task": "ast", "target_lang": "en"}
    assert read_form([("to_language", "fr")], translate=True).settings.prompt["target_lang"] == "fr"
    with pytest.raises(RequestError, match="no field 'to_language'"):
        read_form([("to_language", "fr")])


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_a_speech_lm_does_not_have_is_refused_but_for_values_that_ask_for_nothing(name):
    for idle in ("", *UNSUPPORTED[name][0]):
        read_form([(name, idle)])
    with pytest.raises(RequestError, match=f"^{name}=0.37 cannot be honoured: ") as raised:
        read_form([(f"{name}[]", "0.37")])
    assert raised.value.param == name


@pytest.mark.parametrize("value", ["0.0", "0", "0e0", "-0"])
def test_a_temperature_of_zero_is_none(value):
    read_form([("temperature", value)])


@pytest.mark.parametrize("value", ["1", "nan", "hot", "1e-9", "true", "[0]"])
def test_any_other_temperature_is_refused(value):
    with pytest.raises(RequestError, match="temperature"):
        read_form([("temperature", value)])


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([("model", "a"), ("model", "b")], "model is given twice"),
        ([("promt", "x")], "no field 'promt'; did you mean 'prompt'"),
        ([("stream", "maybe")], "stream='maybe' is not known; there are true, false"),
        ([("beam_size", "1.5")], "beam_size='1.5' is no whole number"),
        ([("confidence", "true")], "confidence is of words"),
        ([("seed", "x")], "seed='x' is no whole number"),
        ([("decoder", "rnnt")], "decoder='rnnt' is not known; there are llm, ctc"),
        ([("languages[]", "de"), ("languages[]", "fr")], "asked about in one language"),
        ([("prompt", object())], "prompt is a file, and must be text"),
        ([("timestamp_granularities[]", "char"), ("response_format", "verbose_json")], "there are word, segment"),
    ],
)
def test_what_cannot_be_is_named(items, said):
    with pytest.raises(RequestError, match=said):
        read_form(items)


@pytest.mark.parametrize("name", ["prompt", "hotwords", "keywords[]"])
def test_a_text_in_the_place_of_keywords_is_refused_by_its_field(name):
    field = name.removesuffix("[]")
    with pytest.raises(
        RequestError, match=f"^{field}: the keyword 'aa.*' has 12000 characters, more than 100"
    ) as raised:
        read_form([(name, "a" * 12_000)])
    assert raised.value.param == field and raised.value.status == 400


def test_ten_thousand_keywords_are_taken_and_more_than_a_request_may_have_are_not():
    def words(count: int) -> str:
        return ",".join(f"word{number}" for number in range(count))

    assert len(read_form([("prompt", words(10_000))]).settings.keywords or []) == 10_000
    with pytest.raises(RequestError, match="prompt, hotwords: 20001 keywords are more than the 20000 of") as raised:
        read_form([("hotwords", "Ada"), ("prompt", words(20_000))])
    assert raised.value.param == "prompt" and raised.value.status == 400


def test_every_parameter_of_openais_client_is_known():
    from openai.types.audio import transcription_create_params as params

    names = {
        name
        for base in (params.TranscriptionCreateParamsBase, params.TranscriptionCreateParamsStreaming)
        for name in base.__annotations__
    }
    assert names <= {*KNOWN, *UNSUPPORTED}

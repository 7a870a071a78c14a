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

"""Each setting of NeMo's transcription is honoured or refused by name."""

from collections.abc import Callable

import numpy as np
import pytest
from nemo.collections.asr.parts.mixins.transcription import TranscribeConfig


class TestSettingsOfTranscribe:
    @pytest.fixture
    def asked(self, salm, make_manifest) -> Callable[..., list[str]]:
        """``asked(row, **settings)`` → what the model was asked about a line of a manifest."""

        def ask(row: dict, **settings) -> list[str]:
            manifest = make_manifest(name="asked.json", **row)
            config = salm.get_transcribe_config()
            for name, value in settings.items():
                setattr(config, name, value)
            loader = salm._transcribe_input_processing(str(manifest), config)
            return sorted({item.rendered(salm.prompt.keywords)[0].text for batch in loader for item in batch})

        return ask

    @pytest.mark.parametrize(
        ("prompt", "question"),
        [
            ({"instruction": "What is said?"}, "What is said?"),
            ([{"role": "user", "slots": {"context": "What is said?"}}], "What is said?"),
            ({"source_lang": "en", "target_lang": "es"}, "Translate the speech into es."),
            ({"task": "asr", "keywords": ["Ada"]}, "The following words may occur: Ada. Transcribe the speech."),
            ({}, "Own."),
            (None, "Own."),
        ],
    )
    def test_slots_of_a_prompt_replace_what_the_line_says(self, asked, prompt, question):
        assert asked({"instruction": "Own."}, prompt=prompt) == [question]

    def test_the_language_has_the_name_that_is_given(self, asked):
        row = {"lang": None, "spoken": "es", "target_lang": "es"}
        assert asked(row) == ["Translate the speech into es."]
        assert asked(row, lang_field="spoken") == ["Transcribe the speech."]

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("logprobs", True),
            ("compute_langs", True),
            ("extract_nbest", True),
            ("partial_hypothesis", [None]),
            ("use_lhotse", False),
            ("augmentor", {"noise": {}}),
            ("pnc", "yes"),
        ],
    )
    def test_an_unknown_one_is_named(self, salm, make_audio, name, value):
        audio = make_audio(0.3)
        with pytest.raises((TypeError, ValueError), match=name):
            salm.transcribe(audio, verbose=False, **{name: value})
        config = TranscribeConfig(verbose=False)
        setattr(config, name, value)
        for call in (salm.transcribe, lambda *a, **k: list(salm.transcribe_generator(*a, **k))):
            with pytest.raises(ValueError, match=name):
                call(audio, override_config=config)

    def test_an_argument_beside_a_config_is_not_lost(self, salm, make_audio):
        with pytest.raises(ValueError, match="batch_size=3 beside override_config"):
            salm.transcribe(make_audio(0.3), batch_size=3, override_config=TranscribeConfig(verbose=False))

    @pytest.mark.parametrize(
        ("name", "value"),
        [("batch_size", value) for value in (0, "2", 1.5, True, None)]
        + [("num_workers", value) for value in (-1, "1", 0.5, True)],
    )
    def test_a_number_that_is_none_is_named(self, salm, make_audio, name, value):
        for settings in ({name: value}, {"override_config": TranscribeConfig(**{name: value})}):
            with pytest.raises(ValueError, match=f"^{name} is {value!r}; it must be a whole number, at least"):
                salm.transcribe(make_audio(0.3), **settings)

    @pytest.mark.parametrize("value", ["yes", "no", 2, [True]])
    def test_what_says_neither_yes_nor_no_to_timestamps_is_named(self, salm, make_audio, value):
        with pytest.raises(ValueError, match="^timestamps is .*; it must be true or false"):
            salm.transcribe(make_audio(0.3), timestamps=value, verbose=False)

    def test_a_language_s_key_that_is_none_is_named(self, salm, make_audio):
        with pytest.raises(ValueError, match="^lang_field is 5; it must be the name of a manifest's key"):
            salm.transcribe(make_audio(0.3), lang_field=5, verbose=False)

    def test_numpy_s_numbers_will_do(self, salm, make_audio):
        audio, one = make_audio(0.3), np.int64(1)
        options = {"max_new_tokens": one, "beam_size": one, "num_workers": np.int64(0)}
        assert salm.transcribe(audio, batch_size=one, verbose=False, **options) == salm.transcribe(
            audio, max_new_tokens=1, verbose=False
        )

    def test_an_array_of_keywords_is_named_as_any_that_is_no_list(self, salm, make_audio):
        with pytest.raises(ValueError, match="audio 1: keywords: expected a list of strings"):
            salm.transcribe(make_audio(0.3), keywords=np.array(["Ada", "Bob"]))

    @pytest.mark.parametrize("asked", [{"keywords": ["a" * 101]}, {"prompt": {"keywords": ["a" * 101]}}])
    def test_a_keyword_that_is_a_text_is_named(self, salm, make_audio, asked):
        with pytest.raises(
            ValueError, match="audio 1: keywords: the keyword 'aa.*' has 101 characters, more than 100"
        ):
            salm.transcribe(make_audio(0.3), **asked)

    @pytest.mark.parametrize("config", [5, {"batch_size": 2}])
    def test_a_config_that_is_none_is_named(self, salm, make_audio, config):
        with pytest.raises(TypeError, match="override_config is .*get_transcribe_config"):
            salm.transcribe(make_audio(0.3), verbose=False, override_config=config)

    def test_a_dataloader_takes_no_question(self, salm, make_manifest):
        config = TranscribeConfig(verbose=False)
        loader = salm._transcribe_input_processing(str(make_manifest()), config)
        assert len(salm.transcribe(loader, override_config=config)) == 4
        with pytest.raises(ValueError, match="dataloader.*instruction"):
            salm.transcribe(loader, instruction="What?", verbose=False)

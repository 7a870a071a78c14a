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

"""The exported tokenizer's template asks as the model was asked."""

import pytest

from nemo_speechllm.data.conversation import Question
from nemo_speechllm.export.chat import AUDIO, asked_ids, chat_template, expected_ids, exported_tokenizer
from nemo_speechllm.export.limits import ExportError

TEMPLATE = "{% for message in messages %}[{{ message['role'] }}]{{ message['content'] }}\n{% endfor %}"


@pytest.mark.parametrize("system", [None, "", 'Say "so"\n\tin {{ braces }}, é 😀 \\ \'.'])
def test_system_prompt_and_parts(tokenizer, system):
    template = chat_template(TEMPLATE, system)
    parts = [{"type": "audio"}, {"type": "text", "text": " What?\n"}, {"type": "audio", "audio": "a.wav"}]
    render = lambda messages: tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False)  # noqa: E731
    asked = [{"role": "user", "content": parts}]
    begin = "" if system is None else f"[system]{system}\n"
    assert render(asked) == f"{begin}[user]{AUDIO} What?\n{AUDIO}\n"
    assert render([{"role": "system", "content": "Own."}, *asked]).startswith("[system]Own.\n[user]")
    assert render([*asked, {"role": "assistant", "content": "Yes."}]).endswith("[assistant]Yes.\n")


class TestExportedTokenizer:
    @pytest.mark.parametrize("system", [None, "", "You are deaf."])
    def test_asks_as_the_model_does(self, make_nemo_salm, system):
        model = make_nemo_salm(prompt={"system_prompt": system})
        tokenizer = exported_tokenizer(model)
        keywords = Question([], "", ["press", "one"]).rendered(model.cfg.prompt.keywords, "q").text
        for instruction in ("Transcribe the speech.", f"{keywords}Translate.", ""):
            assert asked_ids(tokenizer, instruction) == expected_ids(model, tokenizer, instruction)
        assert len(model.tokenizer) == len(tokenizer) - 1, "the model's own tokenizer stays as it is"

    def test_padding_is_in_no_prompt_and_the_end_token_ends_answers(self, make_nemo_salm):
        model = make_nemo_salm()
        assert model.tokenizer.pad_token == model.tokenizer.eos_token  # which ends the user's turn as well
        tokenizer = exported_tokenizer(model)
        assert tokenizer.pad_token_id not in asked_ids(tokenizer, "Transcribe the speech.")
        assert tokenizer.pad_token_id < len(model.tokenizer)
        assert tokenizer.eos_token_id == model.prompt.end_token_id

    def test_no_token_for_padding(self, make_nemo_salm):
        tokens = "".join(map(str, exported_tokenizer(make_nemo_salm()).all_special_tokens))
        model = make_nemo_salm()
        extra = "".join(str(token) for token in model.tokenizer.added_tokens_decoder.values())
        model.prompt.chat_template = tokens + extra + model.prompt.chat_template
        with pytest.raises(ExportError, match="every special token .* stands in the prompt"):
            exported_tokenizer(model)

    def test_a_template_that_is_read_otherwise(self, make_nemo_salm):
        model = make_nemo_salm()
        model.prompt.chat_template = model.prompt.chat_template.replace(
            "message['content']", "message['content'] | upper"
        )
        with pytest.raises(ExportError, match="is read .* as other tokens"):
            exported_tokenizer(model)

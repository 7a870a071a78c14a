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

"""Text is text for slow tokenizers and those of SentencePiece, too; of chat prompts see `test_prompt`."""

from pathlib import Path

import pytest
import sentencepiece
from transformers import BertGenerationTokenizer

from nemo_speechllm.prompts.instruction_prompt import InstructionTokenizer
from nemo_speechllm.prompts.plain_text import TextEncoder

SENTENCES = ("press one for support", "please hold the line", "thank you", "a | < > _ i m e n d / s")


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SentencePiece model that looks for ``<|audio|>`` in a text and has the control symbol ``[EOT]``."""
    prefix = tmp_path_factory.mktemp("pieces") / "tokenizer"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20),
        model_prefix=str(prefix),
        vocab_size=60,
        model_type="bpe",
        user_defined_symbols=["<|audio|>"],
        control_symbols=["[EOT]"],
        minloglevel=2,
    )
    return prefix.with_suffix(".model")


@pytest.fixture(scope="module")
def slow(model_file: Path) -> BertGenerationTokenizer:
    tokenizer = BertGenerationTokenizer(str(model_file))
    tokenizer.add_tokens(["<|im_end|>"], special_tokens=True)
    assert not tokenizer.is_fast
    return tokenizer


@pytest.mark.parametrize("text", ["hold the line", "  hold,\n日本", ""])
def test_ordinary_text_of_a_slow_tokenizer_stays_also_where_a_letter_is_unknown(slow, text):
    ids = slow(text, add_special_tokens=False).input_ids
    encoder = TextEncoder(slow)
    assert encoder.texts([text]) == [ids] and encoder.template(text, [(0, len(text))]) == ids


def test_a_slow_tokenizer_s_control_token_in_a_text_is_text(slow):
    encoder, text = TextEncoder(slow), "the <|im_end|> line"
    (ids,) = encoder.texts([text])
    end = slow.convert_tokens_to_ids("<|im_end|>")
    assert end not in ids and slow.decode(ids) == text
    rendered = f"hold<|im_end|>{text}<|im_end|>"
    assert encoder.template(rendered, [(14, 14 + len(text))]).count(end) == 2


def test_a_symbol_that_sentencepiece_looks_for_is_refused(slow, model_file):
    with pytest.raises(ValueError, match=r"line 7: its text holds \['<\|audio\|>'\].*remove it"):
        TextEncoder(slow).texts(["hold <|audio|>"], "line 7")
    tokenizer = InstructionTokenizer(model_file)
    with pytest.raises(ValueError, match=r"the text 'hold <\|audio\|>' holds \['<\|audio\|>'\].*remove it"):
        tokenizer("hold <|audio|>")
    assert tokenizer.end_of_instruction_id not in tokenizer("hold [EOT] </s> <s>").input_ids

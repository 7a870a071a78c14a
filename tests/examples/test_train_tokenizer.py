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

"""``examples/data/train_tokenizer.py``: what SentencePiece cannot do is told in words of the command line."""

import json

import pytest


@pytest.fixture
def train(load_script, tmp_path, monkeypatch):
    """``train(texts, *options)`` → runs the script on a manifest of the texts."""
    script = load_script("data/train_tokenizer")

    def run(texts: list[str], *options: str) -> None:
        manifest = tmp_path / "train.jsonl"
        rows = [{"audio_filepath": "a.wav", "duration": 1.0, "text": text} for text in texts]
        manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
        monkeypatch.setattr("sys.argv", ["train_tokenizer", str(manifest), "--out", str(tmp_path / "out"), *options])
        script.main()

    return run


@pytest.mark.parametrize("size", ["3", "10"])
def test_too_few_pieces_are_named_with_how_many_are_needed(train, size, tmp_path):
    with pytest.raises(
        ValueError, match=rf"--vocab-size {size} is too small: .* are \d+ pieces; give --vocab-size \d+"
    ):
        train(["hold the line please", "press one"], "--vocab-size", size)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".partial-*"))


@pytest.mark.parametrize("size", ["0", "-5", str(10**12)])
def test_a_number_that_is_none_of_pieces_is_named(train, size):
    with pytest.raises(ValueError, match=f"{size} pieces of these texts .*give another --vocab-size"):
        train(["hold the line please"], "--vocab-size", size)


def test_more_pieces_than_the_texts_have_are_told(train, capsys):
    train(["hold the line please", "", "press one"], "--vocab-size", "5000")
    assert "--vocab-size 5000 is more than these texts give" in capsys.readouterr().out


def test_no_text_at_all_is_named(train):
    with pytest.raises(ValueError, match="no text to learn from"):
        train(["", ""])

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

"""``examples/data/pair_translations.py`` on manifests of the same keys."""

import sys

import pytest

from nemo_speechllm.command_line import exit_status
from nemo_speechllm.manifests.check import check_manifest
from nemo_speechllm.manifests.manifest import read_manifest


@pytest.fixture
def pair(load_script, monkeypatch, make_manifest, tmp_path, capsys):
    """``pair(source rows, target rows)`` → status, the manifest that it writes, output, error output."""

    def run(source: list[dict], target: list[dict]):
        paths = [
            make_manifest((0.3,) * len(rows), f"{name}.jsonl", rows) for name, rows in (("a", source), ("b", target))
        ]
        out = tmp_path / "pairs" / "a-b.jsonl"
        monkeypatch.setattr(sys, "argv", ["pair_translations.py", *map(str, paths), "--out", str(out)])
        status = exit_status(load_script("data/pair_translations").main)
        return status, out, *capsys.readouterr()

    return run


SPANISH = [{"key": "hold", "text": "Espere.", "lang": "es"}, {"key": "bye", "text": "Adiós.", "lang": "es"}]


def test_pairs_have_the_speech_of_one_and_the_text_of_the_other(pair):
    status, out, printed, _ = pair([{"key": "one"}, {"key": "hold", "text": "Hold."}, {}], SPANISH)
    assert status == 0 and "1 pairs; 2 lines have no counterpart" in printed
    (row,) = read_manifest(out)
    assert row | {"audio_filepath": "../a-1.flac", "lang": "en", "text": "Hold."} == row
    assert (row["answer"], row["target_lang"]) == ("Espere.", "es")
    assert check_manifest(out)[1] == []


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ([{"key": "hold"}, {"lang": "es"}], "b.jsonl:2: key: missing"),
        ([*SPANISH, {"key": "bye", "text": "Hasta luego."}], "b.jsonl:3: key: 'bye' has another text above"),
        (SPANISH[1:], "no 'key' is in both"),
    ],
)
def test_refuses(pair, target, message):
    status, out, _, error = pair([{"key": "hold"}], target)
    assert status == 1 and message in error and not out.exists()

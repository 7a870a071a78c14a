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

"""The page of an evaluation."""

from html.parser import HTMLParser

import pytest

from nemo_speechllm.evaluation.html_report import html_report
from nemo_speechllm.evaluation.report import evaluation_report

MALICE = "<script>alert('x')</script>"


class Page(HTMLParser):
    """Tags with their attributes, and the texts of the elements of each kind."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.texts, self._open = [], {}, []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and data.strip():
            self.texts.setdefault(self._open[-1], []).append(data.strip())


def prediction(text: str, pred_text: str, errors: int | None = None, **fields) -> dict:
    figures = {"target_lang": "es"} if errors is None else {"errors": errors, "words": len(text.split())}
    given = {"text": text, "pred_text": pred_text, "lang": "en", "audio_filepath": "a b.wav", "duration": 1.0}
    return given | {"truncated": False, "interventions": [], "seconds": 0.1} | figures | fields


@pytest.fixture
def page():
    """``page(predictions, worst=30, **facts)`` → the page as it is parsed."""

    def make(predictions: list[dict], worst: int = 30, **facts) -> Page:
        report = evaluation_report(predictions, "basic")
        facts = {"model": "x.nemo", "manifest": "test.jsonl"} | facts
        return Page(
            html_report(report, facts, predictions, lambda p: f"data:audio/flac;base64,{p['text'][:1]}", worst)
        )

    return make


def test_the_worst_come_first_and_their_differences_are_marked(page):
    right, wrong = prediction("press one", "press one", 0), prediction("Hold the line.", "fold line", 2)
    found = page([right, prediction("thank you", "thank", 1, interventions=["loop: ctc"]), wrong])
    assert [attributes["src"][-1] for tag, attributes in found.tags if tag == "audio"] == ["H", "t"]
    assert found.texts["del"][1:] == ["hold", "the", "you"] and found.texts["ins"][1:] == ["fold"]
    assert "Transcripts with most errors: 2 of 2" in found.texts["h2"]
    assert any("loop: ctc" in text for text in found.texts["small"]) and "Hold the line." in found.texts["small"]
    assert "Transcripts with most errors: 1 of 2" in page([wrong, wrong], worst=1).texts["h2"]


def test_whatever_a_text_holds_is_text(page):
    fields = {"audio_filepath": MALICE, "lang": MALICE, "interventions": [MALICE]}
    found = page([prediction(MALICE, f"{MALICE} & more", 2, **fields)], model=MALICE, manifest='"><b>')
    assert {tag for tag, _ in found.tags} & {"script", "b"} == set()
    assert f"Evaluation of {MALICE}" in found.texts["h1"] and '"><b>' in found.texts["td"]


def test_tables_have_languages_groups_and_what_else_was_measured(page):
    predictions = [prediction("a b", "a", 1, lang=lang, snr=7, duration=d) for lang, d in (("en", 1.0), ("fr", 9.0))]
    predictions[0]["keywords"] = ["a"]
    translations = [prediction("la casa", "una casa"), prediction("gracias", "gracias")]
    found = page(predictions + translations)
    titles = (
        "Error rates",
        "Error rates by duration",
        "Error rates by signal-to-noise ratio",
        "Translation",
        "Keywords",
    )
    assert set(titles) < set(found.texts["h2"])
    assert {"en", "fr", "macro", "all", "< 2 s", "5–10 s", "en>es", "66.67"} < set(found.texts["td"])
    assert any(text.startswith("bleu: nrefs:1|") for text in found.texts["small"])
    (image,) = (attributes["src"] for tag, attributes in found.tags if tag == "img")
    assert image.startswith("data:image/png;base64,iVBOR")
    assert found.texts["h2"][-1] == "Translations of the lowest chrF: 2 of 2"
    assert [attributes["src"][-1] for tag, attributes in found.tags if tag == "audio"][-2:] == ["l", "g"]


def test_nothing_outside_is_needed(page):
    found = page([prediction("a", "b", 1)])
    assert not any({"href", "srcset"} & set(attributes) for _, attributes in found.tags)
    assert all(a["src"].startswith("data:") for _, a in found.tags if "src" in a)
    assert {tag for tag, _ in found.tags} & {"link", "script", "iframe", "img"} == set()

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

"""Loops, chatter, answers to silence: what is one and what is a plain transcript."""

import json

import pytest

from nemo_speechllm.files import as_object
from nemo_speechllm.metrics.hallucination import (
    Share,
    compression_ratio,
    hallucination_report,
    is_chatter,
    is_loop,
    longest_repetition,
)


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [("a b a b a b", 2, 3), ("a b a b a", 2, 2), ("x a a a y", 1, 3), ("a b c", 1, 1), ("", 1, 0), ("a", 2, 0)],
)
def test_repetitions(text, words, expected):
    assert longest_repetition(text, words) == expected


@pytest.mark.parametrize(
    "text",
    [
        "please hold the line " * 3,
        "the the the the the the",
        "Thank you. Thank you. Thank you. Thank you. Thank you. Thank you.",
        "so " + "we have to go on and see what will be " * 8,
        "ha" * 200,
    ],
)
def test_a_loop_is_one(text):
    assert is_loop(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "five five five five five",
        "Press one for sales, press two for support, press three for billing, or stay on the line.",
        "no no no",
        "If you know your party's extension, dial it now; "
        "if you do not know the extension, press the pound key twice.",
    ],
)
def test_a_transcript_is_no_loop(text):
    assert not is_loop(text)


HINDI = (
    "भारत एक विशाल देश है जिसमें अनेक भाषाएँ बोली जाती हैं और लोग मिलजुल कर रहते हैं। यहाँ की संस्कृति बहुत "
    "पुरानी है और पूरी दुनिया में प्रसिद्ध है। हर राज्य का अपना खान पान और पहनावा है। त्योहारों पर सब लोग साथ "
    "आते हैं और खुशियाँ मनाते हैं। गाँवों में जीवन सरल है जबकि शहरों में बहुत भीड़ रहती है। बच्चे स्कूल जाते हैं "
    "और किसान खेतों में काम करते हैं।"
)
THAI = (
    "ประเทศไทยเป็นประเทศที่มีวัฒนธรรมอันยาวนานและมีภาษาเป็นของตนเอง "
    "ผู้คนส่วนใหญ่นับถือศาสนาพุทธและทำงานในภาคเกษตรกรรม อุตสาหกรรม และการท่องเที่ยว "
    "เมืองหลวงคือกรุงเทพมหานครซึ่งมีประชากรมากกว่าสิบล้านคน และเป็นศูนย์กลางของการค้าและการศึกษา"
)


@pytest.mark.parametrize("text", [HINDI, THAI, "谢谢你，谢谢你，谢谢你！"])
def test_a_page_of_another_script_is_no_loop(text):
    assert not is_loop(text)


@pytest.mark.parametrize("text", ["谢谢你" * 10, "धन्यवाद " * 8, "ขอบคุณครับ" * 8])
def test_a_loop_in_another_script_is_one(text):
    assert is_loop(text)


def test_compression_ratio_is_of_characters():
    assert compression_ratio("é" * 100) > 5 and compression_ratio("abc") < 1
    assert compression_ratio(HINDI) < 1.5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("You will now copy the speech.", True),
        ("I’m sorry, but I can’t transcribe audio.", True),
        ("As an AI language model, I have no ears.", True),
        ("Sure, here is the transcription:", True),
        ("The speaker says that it rains.", True),
        ("I am sorry, that is not a valid extension.", False),
        ("I'm sorry, I can't find that person.", False),
        ("Of course you may.", False),
        ("", False),
    ],
)
def test_chatter_is_told_from_what_prompts_say(text, expected):
    assert is_chatter(text) == expected


def prediction(text: str, pred_text: str, duration: float = 3.0) -> dict:
    return {"text": text, "pred_text": pred_text, "duration": duration}


def test_report_counts_each_kind_among_those_it_can_befall():
    looping = "press one " * 10
    predictions = [
        prediction("press one for support", "press one for support"),
        prediction("press one", looping, 2.0),
        prediction(looping, looping, 30.0),  # it was said so
        prediction("please hold the line", "please hold"),
        prediction("", "You will now copy the speech."),
        prediction("", ""),
    ]
    report = hallucination_report(predictions)
    assert {name: (share.count, share.of) for name, share in report.shares.items()} == {
        "loops": (1, 6),
        "chatter": (1, 6),
        "too long": (1, 6),
        "deleted": (1, 4),
        "silence answered": (1, 2),
    }
    assert report.deleted.rate == 0.25 and report.deleted.ci[0] <= 0.25 <= report.deleted.ci[1]
    assert report.characters_per_second == pytest.approx(sum(len(p["pred_text"]) for p in predictions) / 44)


def test_of_no_silence_there_is_no_rate():
    report = hallucination_report([prediction("a", "a")])
    assert report.silence_answered == Share(count=0, of=0, rate=None, ci=None)
    for some in (report, hallucination_report([])):
        assert json.dumps(some, allow_nan=False, default=as_object)

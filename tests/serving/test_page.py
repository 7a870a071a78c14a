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

"""The page in a real browser: what it shows is what `transcribe` says, and it asks no other host."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import soundfile

pytest.importorskip("playwright", reason="`make test-page` installs it")
from playwright.sync_api import Page, expect, sync_playwright  # noqa: E402

from nemo_speechllm.data.conversation import Audio, Conversation, Turn  # noqa: E402
from nemo_speechllm.evaluation.html_report import data_address, html_report  # noqa: E402
from nemo_speechllm.evaluation.report import evaluation_report  # noqa: E402
from nemo_speechllm.serving.pages import Reports  # noqa: E402
from tests.serving.conftest import DIGITS, serving  # noqa: E402

TEXT = "three one four one five"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium (apt-get install chromium)")


@pytest.fixture(scope="module")
def microphone(tmp_path_factory) -> Path:
    """What the browser's microphone hears, over and over."""
    path = tmp_path_factory.mktemp("microphone") / "digits.wav"
    soundfile.write(path, *soundfile.read(DIGITS), subtype="PCM_16")
    return path


@contextmanager
def opened(address: str, microphone: Path, model: str, key: str = "", **context) -> Iterator[Page]:
    """Open the page of a server; in the end nothing may have been asked of another host."""
    heard = [f"--use-file-for-fake-audio-capture={microphone}", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--use-fake-device-for-media-stream", *heard]
        )
        page = browser.new_page(viewport={"width": 760, "height": 760}, **context)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        page.fill("#key", key)
        page.locator("#key").blur()
        expect(page.locator("#model option").first).to_be_attached()
        page.select_option("#model", model)
        yield page
        browser.close()
    own = ("blob:", "data:", address)
    assert [url for url in asked if not url.startswith(own)] == []


@pytest.fixture
def page(address, microphone) -> Iterator[Page]:
    with opened(address, microphone, "digits") as page:
        yield page


def upload(page: Page, content: bytes, name: str = "a.flac") -> None:
    page.set_input_files("#file", {"name": name, "mimeType": "audio/flac", "buffer": content})


def transcribe(page: Page) -> None:
    page.get_by_role("button", name="Transcribe").click()


def ask(page: Page, question: str) -> None:
    page.fill("#question", question)
    page.get_by_role("button", name="Ask").click()


def metric(address: str, name: str) -> float:
    """Return a figure of the server's."""
    (value,) = re.findall(rf"^nemo_speechllm_{name} (\S+)$", httpx.get(f"{address}/metrics").text, re.MULTILINE)
    return float(value)


# what #words shows, one after the other; Stop is clicked as soon as there is anything where that is wanted
WATCH = """(stop) => {
  window.came = [];
  new MutationObserver(() => {
    window.came.push(document.getElementById("words").textContent);
    if (stop && window.came.at(-1)) document.getElementById("stop").click();
  }).observe(document.getElementById("words"), { childList: true, characterData: true, subtree: true });
}"""


def test_an_upload_is_transcribed_with_times_and_confidence(page, digits):
    page.set_input_files("#file", DIGITS)
    transcribe(page)
    expect(page.locator("#words")).to_have_text(TEXT, timeout=60_000, use_inner_text=True)
    (hypothesis,) = digits.transcribe(str(DIGITS), timestamps=True, confidence=True, verbose=False)
    titles = [word.get_attribute("title") for word in page.locator("#words span").all()]
    assert titles == [
        f"{word['start']:.2f} – {word['end']:.2f} s, {100 * word['confidence']:.0f} % sure"
        for word in hypothesis.timestamp["word"]
    ]


def test_an_instruction_is_obeyed(page):
    page.set_input_files("#file", DIGITS)
    page.fill("#instruction", "Say it backwards.")
    transcribe(page)
    expect(page.locator("#words")).to_have_text("five one four one three", timeout=60_000)


def test_what_the_microphone_hears_is_transcribed(page):
    page.click("#record")
    expect(page.locator("#record")).to_have_text("Stop")
    page.wait_for_timeout(2_500)
    page.click("#record")
    expect(page.locator("#audio")).to_be_visible()
    transcribe(page)
    expect(page.locator("#words span").nth(2)).to_be_visible(timeout=60_000)


def test_an_error_is_shown_in_the_server_s_words(page):
    page.set_input_files("#file", {"name": "no.wav", "mimeType": "audio/wav", "buffer": b"no sound"})
    transcribe(page)
    expect(page.locator("#error")).to_contain_text("the audio cannot be read", timeout=60_000)
    page.reload()
    transcribe(page)
    expect(page.locator("#error")).to_have_text("choose or record a recording first")


def test_a_long_recording_s_text_is_shown_as_it_comes_and_has_times_in_the_end(page, short, spoken):
    (hypothesis,) = short.transcribe([spoken(12)], timestamps=True, verbose=False)
    page.select_option("#model", "short")
    upload(page, spoken(12))
    page.evaluate(WATCH, False)
    transcribe(page)
    expect(page.locator("#words span").first).to_be_visible(timeout=120_000)
    expect(page.locator("#words")).to_have_text(hypothesis.text, use_inner_text=True)
    coming = [text.removesuffix(" …") for text in page.evaluate("came") if text.endswith(" …")]
    assert len(set(coming)) > 3 and sorted(coming, key=len) == coming
    assert all(hypothesis.text.startswith(text) for text in coming)
    start, _, rest = page.locator("#words span").last.get_attribute("title").partition(" – ")
    assert float(start) == pytest.approx(hypothesis.timestamp["word"][-1]["start"], abs=0.011)
    assert rest.endswith(" % sure")
    expect(page.locator("#stop")).to_be_hidden()


def test_a_transcript_that_is_stopped_stays_as_far_as_it_came_and_the_server_ends_it(page, address, spoken):
    page.select_option("#model", "short")
    upload(page, spoken(24))
    answered = metric(address, "batch_pieces_sum")
    page.evaluate(WATCH, True)
    transcribe(page)
    expect(page.locator("#words")).to_have_text(re.compile("^three.* …$"), timeout=120_000)
    expect(page.locator("#stop")).to_be_hidden()
    assert page.inner_text("#error") == "" and page.locator("#words span").count() == 0
    for _ in range(600):
        if metric(address, "requests_in_work") == metric(address, "pieces_waiting") == 0:
            break
        page.wait_for_timeout(100)
    assert metric(address, "pieces_waiting") == 0
    assert metric(address, "batch_pieces_sum") - answered < 27, "54 s are at least 27 pieces"
    page.set_input_files("#file", DIGITS)
    transcribe(page)
    expect(page.locator("#words")).to_have_text(TEXT, timeout=60_000, use_inner_text=True)


def test_what_fails_when_pieces_have_come_is_shown_with_them(salm, spoken, microphone):
    salm.cfg.generation.ctc_weight = 0.0  # the LLM writes what CTC never met: words without times
    with serving({"salm": salm}) as address, opened(address, microphone, "salm") as page:
        upload(page, spoken(8))
        transcribe(page)
        expect(page.locator("#error")).to_contain_text("could be given no times; ask for", timeout=60_000)
        assert page.inner_text("#words").endswith("…") and len(page.inner_text("#words")) > 5
        page.uncheck("#times")
        transcribe(page)
        (text,) = salm.transcribe([spoken(8)])
        remark = " (cut at the limit of tokens)"
        expect(page.locator("#words")).to_have_text(text + remark, timeout=60_000, use_inner_text=True)
        assert page.inner_text("#error") == ""


def test_a_server_that_is_gone_is_told(salm, microphone):
    with serving({"salm": salm}) as address:
        with opened(address, microphone, "salm") as page:
            page.set_input_files("#file", DIGITS)
            page.context.set_offline(True)
            transcribe(page)
            expect(page.locator("#error")).to_contain_text("the connection failed: ", timeout=60_000)
            page.context.set_offline(False)


def test_questions_about_the_recording_keep_the_conversation(salm, microphone):
    """The recording is sent once, with the first question; each answer is that of `generate`."""
    turns = [Turn("user", [Audio.from_file(DIGITS), "What is said?"])]
    (first,) = salm.generate([Conversation("x", turns)])
    turns += [Turn("assistant", [first.text]), Turn("user", ["By whom?"])]
    (second,) = salm.generate([Conversation("x", turns)])
    assert first.text != second.text
    with serving({"salm": salm}) as address, opened(address, microphone, "salm") as page:
        expect(page.locator("#question")).to_be_hidden()
        page.set_input_files("#file", DIGITS)
        sent: list[dict] = []
        page.on("request", lambda request: request.post_data and sent.append(json.loads(request.post_data)))
        answers = page.locator("#conversation dd")
        for number, (question, answer) in enumerate([("What is said?", first), ("By whom?", second)]):
            ask(page, question)
            remark = " (cut at the limit of tokens)" if answer.truncated else ""
            expect(answers.nth(number)).to_have_text(answer.text + remark, timeout=60_000)
        assert page.locator("#conversation dt").all_inner_texts() == ["What is said?", "By whom?"]
        assert [len(body["messages"]) for body in sent] == [1, 3] and page.input_value("#question") == ""
        upload(page, DIGITS.read_bytes())
        expect(page.locator("#conversation")).to_be_empty()


def test_what_the_microphone_heard_can_be_asked_about(page):
    page.click("#record")
    page.wait_for_timeout(2_500)
    page.click("#record")
    expect(page.locator("#audio")).to_be_visible()
    ask(page, "Say it backwards.")
    expect(page.locator("#conversation dd")).not_to_be_empty(timeout=60_000)


def test_a_question_that_is_refused_is_told_and_can_be_asked_otherwise(page):
    upload(page, b"no sound")
    ask(page, "Say it backwards.")
    expect(page.locator("#asking #error")).to_contain_text("the audio cannot be read", timeout=60_000)
    expect(page.locator("#conversation")).to_be_empty()
    assert page.input_value("#question") == "Say it backwards."
    page.set_input_files("#file", DIGITS)
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#conversation dd")).to_have_text("five one four one three", timeout=60_000)
    assert page.inner_text("#error") == ""


@pytest.fixture
def evaluated(tmp_path) -> Path:
    """A folder with the report of an evaluation of one recording."""
    row = {"audio_filepath": DIGITS.name, "duration": 1.7, "lang": "en", "text": TEXT, "pred_text": "three one four"}
    row |= {"errors": 2, "words": 5, "truncated": False, "interventions": [], "seconds": 0.1}
    facts = {"model": "digits.nemo", "manifest": "test.jsonl"}
    audio: Callable[[dict], str] = lambda row: data_address(DIGITS.read_bytes(), "audio/flac")  # noqa: E731
    folder = tmp_path / "runs" / "test"
    folder.mkdir(parents=True)
    page = html_report(evaluation_report([row], "basic"), facts, [row], audio, 30)
    (folder / "report.html").write_text(page, encoding="utf-8")
    return folder.parent


def test_reports_are_read_and_heard_from_the_page(digits, evaluated, microphone):
    """A browser asks for the key, as a password."""
    with serving({"digits": digits}, api_key="secret", reports=Reports(evaluated)) as address:
        password = {"username": "me", "password": "secret"}
        with opened(address, microphone, "digits", "secret", http_credentials=password) as page:
            page.get_by_role("link", name="Reports of evaluations").click()
            page.get_by_role("link", name="test/report.html").click()
            expect(page.locator("h1")).to_have_text("Evaluation of digits.nemo")
            expect(page.locator("article del")).to_have_text("one five")
            audio = page.locator("article audio")
            audio.evaluate("(audio) => { audio.preload = 'auto'; audio.load(); }")
            while not audio.evaluate("(audio) => audio.readyState || audio.error"):
                page.wait_for_timeout(50)
            assert audio.evaluate("(audio) => audio.duration") == pytest.approx(1.747, abs=0.01)

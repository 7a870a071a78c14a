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

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile

pytest.importorskip("playwright", reason="`make test-page` installs it")
from playwright.sync_api import Page, expect, sync_playwright  # noqa: E402

RECORDINGS = Path(__file__).parents[1] / "recordings"
TEXT = "three one four one five"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium (apt-get install chromium)")


@pytest.fixture(scope="module")
def microphone(tmp_path_factory) -> Path:
    """What the browser's microphone hears, over and over."""
    path = tmp_path_factory.mktemp("microphone") / "digits.wav"
    soundfile.write(path, *soundfile.read(RECORDINGS / "digits_theo.flac"), subtype="PCM_16")
    return path


@pytest.fixture
def page(address, microphone) -> Iterator[Page]:
    """The page, open; after the test nothing may have been asked of another host."""
    heard = [f"--use-file-for-fake-audio-capture={microphone}", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--use-fake-device-for-media-stream", *heard]
        )
        page = browser.new_page(viewport={"width": 760, "height": 760})
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        expect(page.locator("#model option").first).to_be_attached()
        page.select_option("#model", "digits")
        yield page
        browser.close()
    own = ("blob:", address.removesuffix("/v1"))
    assert [url for url in asked if not url.startswith(own)] == []


def test_an_upload_is_transcribed_with_times_and_confidence(page, digits):
    page.set_input_files("#file", RECORDINGS / "digits_theo.flac")
    page.get_by_role("button", name="Transcribe").click()
    expect(page.locator("#words")).to_have_text(TEXT, timeout=60_000, use_inner_text=True)
    (hypothesis,) = digits.transcribe(
        str(RECORDINGS / "digits_theo.flac"), timestamps=True, confidence=True, verbose=False
    )
    titles = [word.get_attribute("title") for word in page.locator("#words span").all()]
    assert titles == [
        f"{word['start']:.2f} – {word['end']:.2f} s, {100 * word['confidence']:.0f} % sure"
        for word in hypothesis.timestamp["word"]
    ]


def test_an_instruction_is_obeyed(page):
    page.set_input_files("#file", RECORDINGS / "digits_theo.flac")
    page.fill("#instruction", "Say it backwards.")
    page.get_by_role("button", name="Transcribe").click()
    expect(page.locator("#words")).to_have_text("five one four one three", timeout=60_000)


def test_what_the_microphone_hears_is_transcribed(page):
    page.click("#record")
    expect(page.locator("#record")).to_have_text("Stop")
    page.wait_for_timeout(2_500)
    page.click("#record")
    expect(page.locator("#audio")).to_be_visible()
    page.get_by_role("button", name="Transcribe").click()
    expect(page.locator("#words span").nth(2)).to_be_visible(timeout=60_000)


def test_an_error_is_shown_in_the_server_s_words(page):
    page.set_input_files("#file", {"name": "no.wav", "mimeType": "audio/wav", "buffer": b"no sound"})
    page.get_by_role("button", name="Transcribe").click()
    expect(page.locator("#error")).to_contain_text("the audio cannot be read", timeout=60_000)
    page.reload()
    page.get_by_role("button", name="Transcribe").click()
    expect(page.locator("#error")).to_have_text("choose or record a recording first")

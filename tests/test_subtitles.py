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

"""Files of words with times, read back as players and scoring tools read them."""

import re
from pathlib import Path

import pytest
from lhotse.supervision import AlignmentItem

from nemo_speechllm.decoding.word_times import Word
from nemo_speechllm.subtitles import LINE_LENGTH, MAX_LINES, MAX_SECONDS, subtitles, write_words

CLOCK = r"(\d\d+):(\d\d):(\d\d)[,.](\d{3})"


def spoken(text: str, start: float = 0.0, step: float = 0.4) -> list[Word]:
    """Words of 0.3 s, one every ``step`` seconds."""
    return [Word(word, start + i * step, start + i * step + 0.3) for i, word in enumerate(text.split())]


def seconds(match: tuple[str, ...]) -> float:
    hours, minutes, whole, thousandths = map(int, match)
    return hours * 3600 + minutes * 60 + whole + thousandths / 1000


def read(path: Path) -> list[tuple[float, float, str]]:
    """Start, end and text of each subtitle of a SubRip or WebVTT file."""
    pattern = rf"^(?:\d+\n)?{CLOCK} --> {CLOCK}\n(.+?)\n(?:\n|\Z)"
    found = re.findall(pattern, path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [(seconds(m[:4]), seconds(m[4:8]), m[8]) for m in found]


class TestSubtitles:
    def test_they_end_with_sentences(self):
        assert [s.text for s in subtitles(spoken("Thank you. Please hold the line. Bye"))] == [
            "Thank you.",
            "Please hold the line.",
            "Bye",
        ]

    def test_they_last_as_long_as_their_words(self):
        (subtitle,) = subtitles(spoken("please hold the line", start=2.0))
        assert (subtitle.start, subtitle.end) == pytest.approx((2.0, 3.5))

    def test_none_goes_over_a_pause(self):
        words = [*spoken("please hold"), *spoken("the line", start=3.0)]
        assert [s.text for s in subtitles(words)] == ["please hold", "the line"]

    @pytest.mark.parametrize("step", [0.05, 0.4, 0.9])
    def test_none_is_too_long_to_be_read(self, step):
        words = spoken("internationalisation of words that go on and on without a stop " * 6, step=step)
        found = subtitles(words)
        assert " ".join(s.text for s in found) == " ".join(word.text for word in words)
        assert all(s.end - s.start <= MAX_SECONDS and len(s.text) <= LINE_LENGTH * MAX_LINES + 1 for s in found)
        assert len(found) < len(words) / 3

    def test_a_word_longer_than_a_line_stays_whole(self):
        assert [s.text for s in subtitles(spoken("a " + "b" * 100 + " c"))] == ["a " + "b" * 100, "c"]


class TestFiles:
    WORDS = [*spoken("Fish & chips, <please>. Cœur --> là!", start=3599.8), *spoken("Ends", start=3700.0)]

    @pytest.mark.parametrize("suffix", [".srt", ".vtt", ".SRT"])
    def test_subtitles_come_back(self, tmp_path, suffix):
        path = tmp_path / f"talk{suffix}"
        write_words(path, {"talk.wav": self.WORDS})
        found = read(path)
        times = [time for start, end, _ in found for time in (start, end)]
        assert times == pytest.approx([3599.8, 3601.3, 3601.4, 3602.5, 3700.0, 3700.3], abs=1e-3)
        text = " ".join(text.replace("\n", " ") for *_, text in found)
        if suffix == ".vtt":
            assert path.read_text(encoding="utf-8").startswith("WEBVTT\n\n") and "& " not in text
            text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        assert text == " ".join(word.text for word in self.WORDS)

    def test_ctm_comes_back(self, tmp_path):
        path = tmp_path / "words.ctm"
        write_words(path, {"a/talk one.wav": self.WORDS, "b/second.flac": spoken("thank you")})
        rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
        assert {row[0] for row in rows} == {"talk-one", "second"} and {len(row) for row in rows} == {8}
        items = [AlignmentItem(row[4], float(row[2]), float(row[3])) for row in rows if row[0] == "talk-one"]
        assert [item.symbol for item in items] == [word.text for word in self.WORDS]
        assert [item.end for item in items] == pytest.approx([word.end for word in self.WORDS], abs=0.011)

    @pytest.mark.parametrize("suffix", [".srt", ".vtt", ".ctm"])
    def test_a_recording_in_which_nothing_is_said(self, tmp_path, suffix):
        path = tmp_path / f"silence{suffix}"
        write_words(path, {"silence.wav": []})
        assert path.read_text() == ("WEBVTT\n" if suffix == ".vtt" else "")

    def test_subtitles_of_several_recordings_are_refused(self, tmp_path):
        with pytest.raises(ValueError, match=r"talk.srt: subtitles are of one recording, and these are 2 \(a.wav"):
            write_words(tmp_path / "talk.srt", {"a.wav": [], "b.wav": []})
        assert not (tmp_path / "talk.srt").exists()

    def test_recordings_that_ctm_cannot_tell_apart_are_refused(self, tmp_path):
        with pytest.raises(ValueError, match="names alone.*a/talk.wav.*b/talk.wav"):
            write_words(tmp_path / "talk.ctm", {"a/talk.wav": [], "b/talk.wav": []})

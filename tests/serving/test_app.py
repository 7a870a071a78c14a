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

"""What OpenAI's client gets from a real server."""

import base64
import json
import re
import socket
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import openai
import pytest

from nemo_speechllm.data.conversation import Audio, Conversation, Turn
from nemo_speechllm.models import load_model
from nemo_speechllm.serving.service import Limits
from nemo_speechllm.subtitles import srt, vtt
from tests.serving.conftest import DIGITS, RECORDINGS, audio_file, client_of, serving

TEXT = "three one four one five"


def transcribe(client: openai.OpenAI, file=None, model: str = "digits", **fields):
    return client.audio.transcriptions.create(model=model, file=file or DIGITS.open("rb"), **fields)


def test_a_transcript_is_that_of_transcribe(client, digits):
    for path in RECORDINGS.glob("*.flac"):
        assert [transcribe(client, path.open("rb")).text] == digits.transcribe(path, verbose=False)
    assert transcribe(client).usage.seconds == 2


def test_word_and_segment_times_are_those_of_transcribe(client, digits):
    (hypothesis,) = digits.transcribe(DIGITS, timestamps=True, verbose=False)
    told = transcribe(client, response_format="verbose_json", timestamp_granularities=["word", "segment"])
    words = [(word.word, word.start, word.end) for word in told.words]
    assert words == [(w["word"], round(w["start"], 3), round(w["end"], 3)) for w in hypothesis.timestamp["word"]]
    assert [(part.text, part.end) for part in told.segments] == [(TEXT, words[-1][2])]
    assert told.text == TEXT and told.duration == pytest.approx(1.747, abs=0.001)
    assert transcribe(client, response_format="verbose_json").words is None


def test_confidence_is_that_of_transcribe(client, digits):
    (hypothesis,) = digits.transcribe(DIGITS, confidence=True, verbose=False)
    fields = {"response_format": "verbose_json", "timestamp_granularities": ["word"]}
    told = transcribe(client, **fields, extra_body={"confidence": "true"})
    assert [word.confidence for word in told.words] == [round(value, 3) for value in hypothesis.word_confidence]


def test_texts_and_subtitles(client, digits):
    assert transcribe(client, response_format="text") == f"{TEXT}\n"
    batch = [digits.builder.conversation(Audio.from_file(DIGITS), {}, "x")]
    (answer,) = digits.answering.answer(batch, 1, timestamps=True, max_new_tokens=64, beam_size=1)
    assert transcribe(client, response_format="srt") == srt(answer.words)
    assert transcribe(client, response_format="vtt", language="en") == vtt(answer.words)


def test_an_instruction_is_obeyed(client):
    told = transcribe(client, extra_body={"instruction": "Say it backwards."})
    assert told.text == "five one four one three"


def test_a_long_recording_comes_piece_by_piece_and_is_that_of_transcribe(client, short, spoken):
    content = spoken(4)
    events = list(transcribe(client, ("long.flac", content), "short", stream=True))
    deltas = [event.delta for event in events if event.type == "transcript.text.delta"]
    (text,) = short.transcribe([content], verbose=False)
    assert len(deltas) > 3 and "".join(deltas) == text == events[-1].text
    assert events[-1].type == "transcript.text.done" and events[-1].usage.seconds == 9
    assert transcribe(client, ("long.flac", content), "short").text == text


def test_a_long_recording_that_comes_piece_by_piece_ends_with_its_words(client, short, spoken):
    """The last event is what the request without ``stream`` answers: times, and how sure each word is."""
    sent = {"response_format": "verbose_json", "timestamp_granularities": ["word"], "extra_body": {"confidence": "1"}}
    content = spoken(3)
    *deltas, done = transcribe(client, ("a.flac", content), "short", stream=True, **sent)
    whole = transcribe(client, ("a.flac", content), "short", **sent)
    assert len(deltas) > 2 and "".join(delta.delta for delta in deltas) == whole.text
    assert done.to_dict() == whole.to_dict() | {"type": "transcript.text.done"}
    assert done.words[-1]["end"] > 5 and 0 < done.words[-1]["confidence"] <= 1


def test_what_fails_when_pieces_have_come_is_told_in_the_stream(salm, spoken):
    """Without CTC's part the LLM writes what CTC never met: a text whose words can be given no times."""
    salm.cfg.generation.ctc_weight = 0.0
    sent = {"response_format": "verbose_json", "timestamp_granularities": ["word"], "stream": True}
    came = []
    with serving({"salm": salm}) as address, pytest.raises(openai.APIError, match="could be given no times"):
        for event in transcribe(client_of(address), ("a.flac", spoken(2)), "salm", **sent):
            came.append(event.delta)
    assert "".join(came)


def test_times_of_a_long_recording_are_those_in_it(client, short, spoken):
    content = spoken(3)
    (hypothesis,) = short.transcribe([content], timestamps=True, verbose=False)
    told = transcribe(
        client, ("a.flac", content), "short", response_format="verbose_json", timestamp_granularities=["word"]
    )
    assert [w.end for w in told.words] == [round(w["end"], 3) for w in hypothesis.timestamp["word"]]
    assert told.words[-1].end > 5


def test_two_channels_are_mixed_and_other_rates_resampled(client, digits):
    time = np.arange(22050) / 22050
    stereo = np.stack([np.sin(900 * time), np.zeros_like(time)], 1).astype(np.float32) / 4
    content = audio_file(stereo, 22050)
    (text,) = digits.transcribe([content], channel_selector="average", verbose=False)
    assert transcribe(client, ("stereo.flac", content)).text == text


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"temperature": 0.7}, "temperature", "greedy or beam search: leave it unset"),
        ({"response_format": "diarized_json"}, "response_format", "there are json, text, srt, vtt, verbose_json"),
        ({"include": ["logprobs"]}, "include", "no log-probabilities"),
        ({"timestamp_granularities": ["word"]}, "timestamp_granularities", "response_format=verbose_json"),
        ({"language": "Klingonisch"}, "language", "is no language"),
        ({"chunking_strategy": {"type": "server_vad"}}, None, "chunking_strategy"),
        ({"prompt": "Boston, Ada"}, "prompt", "no place for keywords"),
        ({"extra_body": {"hot_words": "x"}}, "hot_words", "did you mean 'hotwords'?"),
        ({"extra_body": {"beam_size": "0"}}, None, "beam_size"),
        ({"response_format": "srt", "stream": True}, "stream", "not streamed"),
        (
            {"response_format": "srt", "extra_body": {"instruction": "Say it backwards."}},
            None,
            "leave the instruction",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(client, fields, param, said):
    with pytest.raises(openai.BadRequestError) as raised:
        transcribe(client, **fields)
    assert said in str(raised.value) and raised.value.type == "invalid_request_error"
    assert param is None or raised.value.param == param


def test_a_temperature_that_asks_for_nothing_and_a_seed_are_honoured(client):
    told = transcribe(client, temperature=0.0, chunking_strategy="auto", extra_body={"seed": "7"})
    assert told.text == TEXT


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no audio at all", "cannot be read"),
        (DIGITS.read_bytes()[:5000], "cannot be read"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "cannot be read"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "cannot be read"),
        (b"", "file is empty"),
    ],
)
def test_a_broken_file_is_named_and_no_path_is_read(client, content, said):
    with pytest.raises(openai.BadRequestError, match=said) as raised:
        transcribe(client, ("../../etc/passwd", content))
    assert raised.value.code == "invalid_audio" and "root:" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("call 7.wav", "call 7.wav"),
        ("aufnahme-ä.flac", "aufnahme-ä.flac"),
        ("C:\\me\\a:b.wav", "a:b.wav"),
        ("x" * 300, "x" * 80),
    ],
)
def test_a_recording_goes_by_the_name_that_it_was_sent_with(client, name, said):
    whole = DIGITS.read_bytes()
    for content in (b"no audio", whole[: len(whole) // 2]):
        with pytest.raises(openai.BadRequestError) as raised:
            transcribe(client, (name, content))
        assert raised.value.body["message"].startswith(f"{said}: the audio ")
    assert transcribe(client, (name, whole)).text == TEXT


def test_of_several_recordings_the_broken_one_is_named(salm):
    good, bad = audio_part(DIGITS.read_bytes()), audio_part(b"no audio")
    texts = [
        {"role": "user", "content": [good, text_part("What is said?")]},
        {"role": "assistant", "content": "Digits."},
    ]
    with serving({"salm": salm}) as address, pytest.raises(openai.BadRequestError) as raised:
        messages = [*texts, {"role": "user", "content": [text_part("And in"), good, bad]}]
        client_of(address).chat.completions.create(model="salm", messages=messages)
    assert raised.value.body["message"].startswith("messages[2].content[2].input_audio: the audio cannot be read")


@pytest.mark.parametrize(
    ("parts", "fields", "said"),
    [
        (["Hello\ue0a0."], {}, "U+E0A0, a private-use character"),
        (["Hello\x00."], {}, "user"),
        (["word " * 20_000], {}, "more than the"),
        (["Hello."], {"decoder": "ctc"}, "decoder=ctc reads audio"),
        (["Hello."], {"decoder": "best"}, "decoder is 'best'; known are"),
        (["Hello."], {"beam_size": "two"}, "beam_size is 'two'"),
        (["Hello."], {"max_tokens": 0}, "max_new_tokens is 0"),
        ([""], {}, "nothing is asked"),
    ],
)
def test_what_a_conversation_cannot_ask_is_said(salm, parts, fields, said):
    messages = [{"role": "user", "content": [{"type": "text", "text": part} for part in parts]}]
    with serving({"salm": salm}) as address:
        done = httpx.post(f"{address}/v1/chat/completions", json={"model": "salm", "messages": messages} | fields)
    assert done.status_code == 400 and said in done.json()["error"]["message"]


def test_of_a_defect_of_the_server_a_client_is_told_its_number_alone(caplog):
    """Not its text: that names what the server has, and helps only who reads its log."""
    model = load_model("instruct_las_digits")
    model.cfg.generation.repetition_penalty = "/srv/secret"
    with serving({"digits": model}) as address:
        for ask in (transcribe, converse):
            caplog.clear()
            with pytest.raises(openai.InternalServerError) as raised:
                ask(client_of(address))
            assert raised.value.code == "internal_error" and "secret" not in str(raised.value.body)
            number = raised.value.body["message"].split()[-1]
            (record,) = (record for record in caplog.records if number in record.getMessage())
            assert isinstance(record.exc_info[1], ValueError) and "/srv/secret" in str(record.exc_info[1])


def test_a_file_is_an_upload_and_no_path(address):
    asked = {"file": str(DIGITS), "model": "digits"}
    for sent in (
        {"data": asked},
        {"json": asked},
        {"files": {"file": (None, str(DIGITS)), "model": (None, "digits")}},
    ):
        done = httpx.post(f"{address}/v1/audio/transcriptions", **sent)
        assert done.status_code == 400 and done.json()["error"]["param"] == "file"


@pytest.mark.parametrize("path", ["/..%2f..%2fetc/passwd", "/v1/models/..%2f..%2fetc%2fpasswd", "/etc/passwd"])
def test_no_other_path_is_served(address, path):
    assert httpx.get(f"{address}{path}").status_code == 404


def test_the_page_needs_no_other_host_and_asks_what_the_server_answers(address, client):
    """What the page sends for a recording, field by field, is answered with what it shows."""
    done = httpx.get(address)
    assert done.status_code == 200 and done.headers["content-type"].startswith("text/html")
    assert "connect-src 'self'" in done.headers["content-security-policy"] and "//" not in done.text
    fields = set(re.findall(r'set\("([\w\[\]]+)"', done.text))
    assert fields == {
        *("model", "instruction", "prompt", "stream"),
        *("response_format", "timestamp_granularities[]", "confidence"),
    }
    sent = {"model": "digits", "response_format": "verbose_json", "timestamp_granularities[]": "word"}
    answer = httpx.post(
        f"{address}/v1/audio/transcriptions",
        data=sent | {"confidence": "true", "stream": "true"},
        files={"file": ("recording", DIGITS.read_bytes())},
    )
    told = json.loads(answer.text.split("data: ")[-1])
    assert [word["word"] for word in told["words"]] == TEXT.split()
    assert all(0 <= word["start"] < word["end"] and 0 < word["confidence"] <= 1 for word in told["words"])


def test_models_are_listed_and_others_unknown(client):
    assert [model.id for model in client.models.list()] == ["digits", "short"]
    assert client.models.retrieve("short").id == "short"
    with pytest.raises(openai.NotFoundError, match="there are digits, short"):
        transcribe(client, model="whisper-1")


def test_a_translation_that_the_model_cannot_make_is_refused(client):
    with pytest.raises(openai.BadRequestError, match="task 'ast' has no instruction"):
        client.audio.translations.create(model="digits", file=DIGITS.open("rb"))


def audio_part(content: bytes) -> dict:
    data = base64.b64encode(content).decode()
    return {"type": "input_audio", "input_audio": {"data": data, "format": "flac"}}


def text_part(text: str) -> dict:
    return {"type": "text", "text": text}


def converse(client: openai.OpenAI):
    messages = [{"role": "user", "content": [audio_part(DIGITS.read_bytes()), {"type": "text", "text": "Say it."}]}]
    return client.chat.completions.create(model="digits", messages=messages)


def test_keywords_and_translations_are_those_of_transcribe(salm):
    keywords = ["Boston", "Ada"]
    with serving({"salm": salm}) as address:
        client = client_of(address)
        (plain,), (asked,) = salm.transcribe(DIGITS), salm.transcribe(DIGITS, keywords=keywords)
        assert plain != asked
        for fields in ({"prompt": "Boston, Ada"}, {"extra_body": {"hotwords": "Boston,Ada"}}, {"keywords": keywords}):
            assert transcribe(client, model="salm", **fields).text == asked
        (translated,) = salm.transcribe(DIGITS, prompt={"task": "ast", "target_lang": "en", "lang": "de"})
        fields = {"model": "salm", "file": DIGITS.open("rb"), "extra_body": {"language": "de"}}
        assert client.audio.translations.create(**fields).text == translated


def test_a_conversation_is_that_of_generate(salm):
    question = Conversation("x", [Turn("user", [Audio.from_file(DIGITS), "What is said?"])])
    (answer,) = salm.generate([question], max_new_tokens=5)
    parts = [audio_part(DIGITS.read_bytes()), {"type": "text", "text": "What is said?"}]
    with serving({"salm": salm}) as address:
        chat = client_of(address).chat.completions
        asked = {"model": "salm", "messages": [{"role": "user", "content": parts}], "max_completion_tokens": 5}
        (choice,) = chat.create(**asked).choices
        assert choice.message.content == answer.text
        assert choice.finish_reason == ("length" if answer.truncated else "stop")
        chunks = list(chat.create(**asked, stream=True))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == answer.text
        assert chunks[-1].choices[0].finish_reason == choice.finish_reason
        broken = [{"role": "user", "content": [audio_part(b"no audio"), parts[1]]}]
        with pytest.raises(
            openai.BadRequestError, match=r"messages\[0\]\.content\[0\]\.input_audio: the audio cannot"
        ):
            chat.create(**asked | {"messages": broken})


def test_a_key_is_asked_for_where_there_is_one(digits):
    with serving({"digits": digits}, api_key="secret") as address:
        assert transcribe(client_of(address, "secret")).text == TEXT
        for ask in (transcribe, lambda client: client.models.list()):
            with pytest.raises(openai.AuthenticationError, match="Authorization: Bearer KEY"):
                ask(client_of(address, "secreT"))
        assert httpx.get(f"{address}/health").status_code == 200


def test_sizes_and_lengths_are_bounded(client):
    with pytest.raises(openai.APIStatusError, match="larger than the 2000000 bytes") as raised:
        transcribe(client, ("a.wav", bytes(2_500_000)))
    assert raised.value.status_code == 413
    with pytest.raises(openai.APIStatusError) as raised:
        client.post("/chat/completions", body={"model": "x" * 2_500_000}, cast_to=object)
    assert raised.value.status_code == 413
    with pytest.raises(openai.BadRequestError, match="lasts 70.0 s, and this server takes 60 s") as raised:
        transcribe(client, ("long.flac", audio_file(np.zeros(70 * 16000, np.float32))))
    assert raised.value.code == "audio_too_long"


@pytest.mark.parametrize("characters", [301, 100_000])
def test_text_is_bounded_by_the_field_it_comes_from(digits, salm, characters):
    """It costs as audio does, and whoever is answered in the same batch waits for it."""
    text = "word " * (characters // 5) + "!" * (characters % 5)
    keywords = ",".join(f"keyword {number:03}" for number in range(40))  # so few that none are chosen among them
    with serving({"digits": digits, "salm": salm}, Limits(characters=300)) as address:
        client = client_of(address)
        asks = {
            "instruction": lambda: transcribe(client, extra_body={"instruction": text}),
            "prompt": lambda: transcribe(client, model="salm", prompt=keywords),
            "messages": lambda: client.chat.completions.create(
                model="salm", messages=[{"role": "system", "content": text}, {"role": "user", "content": "What?"}]
            ),
        }
        for field, ask in asks.items():
            with pytest.raises(openai.BadRequestError, match=field) as raised:
                ask()
            assert raised.value.param == field
        assert transcribe(client, extra_body={"instruction": "Say it backwards."}).text == "five one four one three"


def test_a_full_queue_is_said_and_nothing_else_is_lost(digits, spoken):
    content = spoken(6)
    (text,) = digits.transcribe([content], verbose=False)
    with serving({"digits": digits}, Limits(batch_size=1, requests=2)) as address, ThreadPoolExecutor(12) as pool:

        def ask(_) -> str:
            try:
                return transcribe(client_of(address), ("a.flac", content)).text
            except openai.RateLimitError as error:
                return error.response.headers["Retry-After"]

        assert set(pool.map(ask, range(12))) == {text, "1"}
        assert transcribe(client_of(address)).text == TEXT


def test_what_takes_too_long_is_ended(digits, spoken):
    with serving({"digits": digits}, timeout=0.001) as address:
        with pytest.raises(openai.InternalServerError, match="took longer than 0.001 s"):
            transcribe(client_of(address), ("a.flac", spoken(6)))


def test_a_client_that_goes_away_leaves_no_place_taken(digits, spoken):
    with serving({"digits": digits}, Limits(batch_size=1, requests=2)) as address:
        for _ in range(4):
            with pytest.raises((openai.APITimeoutError, openai.RateLimitError)):
                transcribe(client_of(address).with_options(timeout=0.02), ("a.flac", spoken(8)))
        assert transcribe(client_of(address).with_options(max_retries=8)).text == TEXT


def test_health_and_metrics(client, address):
    transcribe(client)
    assert httpx.get(f"{address}/health").json() == {"status": "ok"}
    metrics = httpx.get(f"{address}/metrics")
    assert 'requests_total{path="/v1/audio/transcriptions",status="200"}' in metrics.text
    assert "nemo_speechllm_requests_in_work 0.0" in metrics.text and "text/plain" in metrics.headers["content-type"]


@pytest.mark.parametrize("body", [b"{", b"[1]", b"[" * 100_000, b'{"model": "digits", "messages": []}', b"\xff", b""])
def test_a_body_that_is_no_request_is_refused(address, body):
    done = httpx.post(f"{address}/v1/chat/completions", content=body)
    assert done.status_code == 400 and done.json()["error"]["type"] == "invalid_request_error"


def test_bytes_that_are_no_http_end_nobody_elses_request(client, address):
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"\x00\xff\r\n\r\n")
        assert b"400" in connection.recv(100)
    form = b"--b\r\nContent-Disposition: form-data; name=file; filename=a\r\n\r\nhalf"
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    assert httpx.post(f"{address}/v1/audio/transcriptions", content=form, headers=headers).status_code == 400
    assert transcribe(client).text == TEXT


def test_errors_are_json_everywhere(address):
    for method, path in (("GET", "/v1/audio/transcriptions"), ("POST", "/nothing"), ("DELETE", "/v1/models")):
        done = httpx.request(method, f"{address}{path}")
        assert done.status_code in (404, 405) and done.json()["error"]["message"]


def test_many_clients_with_broken_files_among_them_lose_nothing(client, digits):
    """Every answer is that of its own recording, whatever is asked beside it."""
    recordings = [path.read_bytes() for path in sorted(RECORDINGS.glob("*.flac"))]
    asked = [{}, {"instruction": "Say it backwards."}, {"decoder": "ctc"}]
    expected = {
        (i, j): digits.transcribe([content], verbose=False, **settings)[0]
        for i, content in enumerate(recordings)
        for j, settings in enumerate(asked)
    }

    def ask(number: int) -> bool:
        i, j = number % len(recordings), number % len(asked)
        if number % 7 == 3:
            with pytest.raises(openai.BadRequestError):
                transcribe(client, ("broken.flac", recordings[i][: 100 * number]))
            return True
        return transcribe(client, ("a.flac", recordings[i]), extra_body=asked[j]).text == expected[i, j]

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(48)))

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

"""When each word is said: CTC's likeliest path, counted in words and seconds."""

import itertools

import pytest
import torch

from nemo_speechllm.decoding.word_times import (
    MAX_LEAD,
    MAX_TAIL,
    Alignment,
    UnalignableError,
    Word,
    align_words,
    pauses,
)
from nemo_speechllm.modules.ctc import EmbeddingCTC

FRAME_SHIFT = 0.5  # longer than a word's tail
KNOWN = (3, 5, 9)


@pytest.fixture
def ctc() -> EmbeddingCTC:
    """Has met the tokens 3, 5 and 9 of ten; a text is spelt in digits, one a token."""
    table = torch.randn(10, 4)
    encode = lambda texts: [[int(digit) for digit in text.replace(" ", "")] for text in texts]  # noqa: E731
    ctc = EmbeddingCTC(lambda: table, encode, lambda ids: "".join(map(str, ids)))
    ctc.seen[list(KNOWN)] = True
    return ctc


def path(*classes: int) -> torch.Tensor:
    """Log-probabilities (T, 4) of which the likeliest path is that of these tokens, 0 for the blank."""
    places = torch.tensor([0 if token == 0 else KNOWN.index(token) + 1 for token in classes])
    return (torch.nn.functional.one_hot(places, 4) * 10.0).log_softmax(-1)


def loud(seconds: float, *quiet: tuple[float, float]) -> torch.Tensor:
    """Noise at 16 kHz, from ``begin`` to ``end`` of each of ``quiet`` 60 dB quieter."""
    samples = torch.rand(round(seconds * 16000), generator=torch.Generator().manual_seed(0)) - 0.5
    for begin, end in quiet:
        samples[round(begin * 16000) : round(end * 16000)] *= 0.001
    return samples


def spans(words: tuple[Word, ...]) -> list[tuple[str, float, float]]:
    return [(word.text, round(word.start, 6), round(word.end, 6)) for word in words]


def test_a_word_lasts_from_its_first_token_to_the_next_word_or_a_little_beyond_its_last(ctc):
    log_probs = path(0, 3, 0, 5, 5, 9, 0, 0, 0, 0)
    assert spans(align_words(Alignment(ctc, log_probs, "35 9"), FRAME_SHIFT, loud(5.0))) == [
        ("35", 0.5, 2.5),
        ("9", 2.5, 3.0 + MAX_TAIL),
    ]


def test_pauses_part_words(ctc):
    audio = loud(4.0, (0.0, 0.4), (0.8, 0.86), (1.2, 1.7), (2.9, 4.0))
    words = align_words(Alignment(ctc, path(0, 3, 0, 0, 5, 0, 0, 0), "3 5"), FRAME_SHIFT, audio)
    assert spans(words) == [("3", 0.4, 1.2), ("5", 1.7, 2.9)], "the short one may be in a word"


def test_what_is_said_between_clear_pauses_and_not_answered_is_no_neighbour_s(ctc):
    audio = loud(4.0, (1.0, 1.2), (1.4, 1.7))
    words = align_words(Alignment(ctc, path(0, 3, 0, 0, 5, 0, 0, 0), "3 5"), FRAME_SHIFT, audio)
    assert spans(words)[0][2] == 1.0 and spans(words)[1][1] == 1.7


def test_a_word_is_no_longer_than_what_is_heard_of_it_allows(ctc):
    audio = loud(9.0, (0.0, 0.1), (8.9, 9.0))
    words = align_words(Alignment(ctc, path(*[0] * 8, 3, *[0] * 9), "3"), FRAME_SHIFT, audio)
    assert spans(words) == [("3", 4.0 - MAX_LEAD, 4.5 + MAX_TAIL)]


def test_no_word_reaches_beyond_the_audio(ctc):
    words = align_words(Alignment(ctc, path(3, 5, 0, 9), "3 5 9"), FRAME_SHIFT, loud(1.9))
    assert spans(words) == [("3", 0.0, 0.5), ("5", 0.5, 1.5), ("9", 1.5, 1.9)]


@pytest.mark.parametrize("audio", [torch.zeros(16000), torch.full((16000,), 0.1), loud(1.0), torch.zeros(100)])
def test_audio_of_one_loudness_has_no_pauses(audio):
    assert pauses(audio) == []


def test_pauses_in_a_noisy_room():
    audio = loud(3.0, (1.0, 1.4)) + 0.02 * torch.randn(48000, generator=torch.Generator().manual_seed(1))
    assert pauses(audio) == [pytest.approx((1.0, 1.4), abs=0.011)]


@pytest.mark.parametrize("text", ["3", "35 9", "3 3", "59 5 3"])
def test_it_is_the_likeliest_of_all_paths(ctc, text):
    torch.manual_seed(len(text))
    log_probs = torch.randn(6, 4).log_softmax(-1)
    wanted = [KNOWN.index(int(digit)) + 1 for digit in text.replace(" ", "")]
    paths = [p for p in itertools.product(range(4), repeat=6) if [c for c, _ in itertools.groupby(p) if c] == wanted]
    best = max(paths, key=lambda p: sum(float(log_probs[t, c]) for t, c in enumerate(p)))
    firsts = [next(run)[0] for c, run in itertools.groupby(enumerate(best), lambda item: item[1]) if c]
    lengths = [len(word) for word in text.split()]
    starts = [firsts[sum(lengths[:i])] * FRAME_SHIFT for i in range(len(lengths))]
    assert [word.start for word in align_words(Alignment(ctc, log_probs, text), FRAME_SHIFT, loud(3.0))] == starts


def test_tokens_that_were_never_met_are_left_out_of_the_path(ctc):
    words = align_words(Alignment(ctc, path(3, 0, 0, 0, 9, 0), "37 79"), FRAME_SHIFT, loud(3.0))
    assert [(word.text, word.start) for word in words] == [("37", 0.0), ("79", 2.0)]


def test_words_that_were_never_met_share_the_time_between_their_neighbours(ctc):
    words = align_words(Alignment(ctc, path(0, 0, 3, 0, 0, 9, 0), "7 3 7 8 9 7"), FRAME_SHIFT, loud(3.5))
    assert spans(words) == [
        ("7", 0.0, 1.0),
        ("3", 1.0, 1.5),
        ("7", 1.5, 2.0),
        ("8", 2.0, 2.5),
        ("9", 2.5, 3.0),
        ("7", 3.0, 3.5),
    ]


def test_a_text_without_words_has_none(ctc):
    assert align_words(Alignment(ctc, path(0, 0), " "), FRAME_SHIFT, loud(1.0)) == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [("3 5 9", "so little audio.*3 frames.*has 2"), ("3 3", "3 frames"), ("7 8", "met no token of '7 8'")],
)
def test_what_ctc_cannot_read_has_no_times(ctc, text, message):
    with pytest.raises(UnalignableError, match=message):
        align_words(Alignment(ctc, path(3, 5), text), FRAME_SHIFT, loud(1.0))


def test_audio_without_a_frame_has_no_times(ctc):
    with pytest.raises(UnalignableError):
        align_words(Alignment(ctc, torch.zeros(0, 4), "3"), FRAME_SHIFT, torch.zeros(0))

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

"""CTC of audio embeddings against the LLM's token embeddings, and what every CTC can do."""

import itertools
import math

import pytest
import torch

from nemo_speechllm.modules.ctc import EmbeddingCTC
from nemo_speechllm.modules.losses import no_loss

VOCABULARY, WIDTH = 12, 4


@pytest.fixture
def table() -> torch.Tensor:
    table = torch.randn(VOCABULARY, WIDTH)
    table[[3, 5, 9]] = torch.eye(4)[1:] * 0.3  # their length must not matter
    return table


@pytest.fixture
def ctc(table) -> EmbeddingCTC:
    """Blank and the tokens 3, 5, 9 have orthogonal embeddings: a frame's score is its cosine with one of them.

    Texts are numbers of tokens.
    """
    encode = lambda texts: [list(map(int, text.split())) for text in texts]  # noqa: E731
    ctc = EmbeddingCTC(lambda: table, encode, lambda ids: " ".join(map(str, ids)))
    ctc.blank_embedding.data = torch.eye(4)[:1]
    return ctc


def loss_of(ctc, audio, lengths, *texts: str) -> torch.Tensor:
    return ctc.loss(audio, lengths, dict(enumerate(texts))).value


def read(ctc, audio, lengths) -> list[list[int]]:
    return [item.ids for item in ctc.greedy(ctc.log_probs(audio), torch.tensor(lengths))]


BLANK, THREE, FIVE, NINE = torch.eye(4)


def frames(*rows: torch.Tensor) -> torch.Tensor:
    return torch.stack(rows)[None]


def test_loss_of_a_case_computed_by_hand(ctc):
    """Two frames of equal scores for blank and the only seen token: 3 of the 4 paths give the token."""
    ctc.scale.data = torch.tensor(1.0)
    middle = BLANK + THREE
    loss = loss_of(ctc, frames(middle, middle), torch.tensor([2]), "3")
    assert loss.item() == pytest.approx(-math.log(3 / 4), abs=1e-6)


def test_loss_is_torch_s_on_the_cosines(ctc, table):
    torch.manual_seed(0)
    audio, lengths = torch.randn(2, 8, WIDTH) * 3, torch.tensor([8, 6])
    loss = loss_of(ctc, audio, lengths, "5 3 3", "9 5")
    classes = torch.stack([ctc.blank_embedding[0], table[3], table[5], table[9]])
    cosines = torch.cosine_similarity(audio[:, :, None], classes[None, None], dim=-1)
    expected = torch.nn.functional.ctc_loss(
        (cosines * ctc.scale).log_softmax(-1).transpose(0, 1),
        torch.tensor([2, 1, 1, 3, 2]),
        lengths,
        torch.tensor([3, 2]),
        reduction="sum",
    )
    torch.testing.assert_close(loss, expected / 5)
    assert ctc.seen.nonzero().flatten().tolist() == [3, 5, 9]


def test_padding_frames_do_not_count(ctc):
    audio = torch.randn(1, 6, WIDTH)
    padded = torch.cat([audio, torch.full((1, 9, WIDTH), 4.0)], dim=1)
    lengths = torch.tensor([6])
    assert torch.equal(loss_of(ctc, audio, lengths, "3 5"), loss_of(ctc, padded, lengths, "3 5"))


@pytest.mark.parametrize("text", ["3 5 9", "3 3"])
def test_a_transcript_too_long_for_its_frames_adds_nothing(ctc, text):
    """Two equal tokens in a row need a blank between them, so two frames do not hold them either."""
    audio = torch.randn(1, 2, WIDTH, requires_grad=True)
    loss = loss_of(ctc, audio, torch.tensor([2]), text)
    loss.backward()
    assert loss.item() == 0 and torch.isfinite(audio.grad).all() and not audio.grad.any()


def test_only_audio_blank_and_scale_get_gradient(ctc, table):
    table.requires_grad_()
    audio = torch.randn(1, 5, WIDTH, requires_grad=True)
    loss_of(ctc, audio, torch.tensor([5]), "3 9").backward()
    assert audio.grad.any() and ctc.blank_embedding.grad.any() and ctc.scale.grad.any() and table.grad is None


def test_evaluation_adds_no_token_to_those_it_may_read(ctc):
    audio, lengths = torch.randn(1, 5, WIDTH), torch.tensor([5])
    ctc.seen[[5]] = True
    learned = loss_of(ctc, audio, lengths, "3 9")
    assert ctc.seen.nonzero().flatten().tolist() == [3, 5, 9]
    ctc.seen[[3, 9]] = False
    torch.testing.assert_close(loss_of(ctc.eval(), audio, lengths, "3 9"), learned)
    assert ctc.seen.nonzero().flatten().tolist() == [5]


def test_greedy_collapses_repeats_and_drops_blanks(ctc):
    ctc.seen[[3, 5, 9]] = True
    audio = frames(BLANK, FIVE, FIVE, BLANK, FIVE, NINE, NINE, THREE, BLANK)
    assert read(ctc, audio, [9]) == [[5, 5, 9, 3]]
    assert read(ctc, audio, [3]) == [[5]]
    assert read(ctc, audio, [1]) == [[]]


def test_greedy_before_any_training_says_nothing(ctc):
    assert read(ctc, torch.randn(2, 5, WIDTH), [5, 3]) == [[], []]


def test_silence_and_empty_transcript(ctc):
    loss = loss_of(ctc, torch.zeros(1, 3, WIDTH), torch.tensor([3]), "")
    assert torch.isfinite(loss)


def test_compress_averages_runs_and_drops_blanks(ctc):
    ctc.seen[[3, 5, 9]] = True
    loud_five = FIVE * 3 + NINE
    audio = frames(BLANK, FIVE, loud_five, BLANK, FIVE, NINE, THREE, BLANK)
    heard, lengths = ctc.compress(audio, torch.tensor([8]), ctc.log_probs(audio))
    assert lengths.tolist() == [4]
    torch.testing.assert_close(heard[0], torch.stack([(FIVE + loud_five) / 2, FIVE, NINE, THREE]))


def test_compress_reads_what_greedy_reads_whatever_the_padding(ctc):
    torch.manual_seed(1)
    ctc.seen[[3, 5, 9]] = True
    audio, lengths = torch.randn(3, 20, WIDTH), torch.tensor([20, 13, 1])
    heard, heard_lengths = ctc.compress(audio, lengths, ctc.log_probs(audio))
    assert heard_lengths.tolist() == [max(1, len(ids)) for ids in read(ctc, audio, [20, 13, 1])]
    padded = torch.cat([audio, torch.randn(3, 9, WIDTH)], dim=1)
    again, again_lengths = ctc.compress(padded, lengths, ctc.log_probs(padded))
    assert torch.equal(again, heard) and torch.equal(again_lengths, heard_lengths)


def test_compress_of_silence_is_the_mean_of_its_frames(ctc):
    ctc.seen[[3, 5, 9]] = True
    audio = torch.cat([frames(BLANK, BLANK * 3, FIVE * 9), frames(BLANK, FIVE, NINE)])
    heard, lengths = ctc.compress(audio, torch.tensor([2, 3]), ctc.log_probs(audio))
    assert lengths.tolist() == [1, 2]
    torch.testing.assert_close(heard[0, 0], BLANK * 2)
    torch.testing.assert_close(heard[1], torch.stack([FIVE, NINE]))
    alone, _ = ctc.compress(audio[:1, :2], torch.tensor([2]), ctc.log_probs(audio[:1, :2]))
    torch.testing.assert_close(alone[0], heard[0, :1])


def test_gradient_reaches_each_heard_frame(ctc):
    ctc.seen[[3, 5, 9]] = True
    audio = frames(BLANK, FIVE, FIVE, BLANK, NINE).requires_grad_()
    ctc.compress(audio, torch.tensor([5]), ctc.log_probs(audio))[0].sum().backward()
    assert audio.grad.any(-1).tolist() == [[False, True, True, False, True]]


def test_no_loss_is_zero_and_has_a_gradient_for_all_that_trains(ctc):
    states = torch.randn(2, 3, 4, requires_grad=True)
    loss = no_loss(ctc, states)
    loss.backward()
    assert loss == 0
    assert all((tensor.grad == 0).all() for tensor in (states, *ctc.parameters()))


class TestAlign:
    def test_a_path_is_found_that_reads_as_the_text(self, ctc):
        ctc.seen[[3, 5, 9]] = True
        audio = frames(BLANK, FIVE, FIVE, BLANK, FIVE, NINE, NINE, THREE, BLANK)
        (log_probs,) = ctc.log_probs(audio)
        assert ctc.align(log_probs, [5, 5, 9, 3]) == [(1, 3), (4, 5), (5, 7), (7, 8)]

    def test_it_is_the_likeliest_of_all_paths(self, ctc):
        torch.manual_seed(0)
        ctc.seen[[3, 5]] = True
        (log_probs,) = ctc.log_probs(torch.randn(1, 6, WIDTH)).detach()
        for text in ([3], [5, 3], [3, 3], [3, 5, 3]):
            wanted = [[3, 5].index(token) + 1 for token in text]
            paths = [path for path in itertools.product(range(3), repeat=6) if collapsed(path) == wanted]
            best = max(paths, key=lambda path: sum(float(log_probs[t, c]) for t, c in enumerate(path)))
            runs = [[t for t, _ in run] for c, run in itertools.groupby(enumerate(best), lambda item: item[1]) if c]
            assert ctc.align(log_probs, text) == [(run[0], run[-1] + 1) for run in runs]

    @pytest.mark.parametrize(
        "ids, message", [([3, 3], "2 tokens need 3 frames, and the audio has 2"), ([7], "no class")]
    )
    def test_what_has_no_path_is_an_error(self, ctc, ids, message):
        ctc.seen[[3, 5]] = True
        with pytest.raises(ValueError, match=message):
            ctc.align(ctc.log_probs(torch.randn(1, 2, WIDTH))[0], ids)


def collapsed(path: tuple[int, ...]) -> list[int]:
    return [c for c, _ in itertools.groupby(path) if c]

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


import numpy as np
import pytest
import torch

from nemo_speechllm.modules.ctc_posterior import (
    PosteriorBank,
    PosteriorEmbedding,
    PosteriorSimulator,
    pad_posteriors,
    piece_posteriors,
)

V = 12  # pieces; the blank is class V


def log_probs(*paths: list[int], certainty: float = 0.9) -> tuple[torch.Tensor, torch.Tensor]:
    """CTC's output whose best path is the given one: (B, T, V + 1), lengths."""
    longest = max(map(len, paths))
    probs = torch.full((len(paths), longest, V + 1), (1 - certainty) / V)
    for row, path in zip(probs, paths, strict=True):
        row[torch.arange(len(path)), torch.tensor(path)] = certainty
    return probs.log(), torch.tensor([len(path) for path in paths])


def test_each_run_of_a_piece_is_one_posterior_without_the_blanks_share():
    scores, lengths = log_probs([V, 3, 3, V, 3, 5, V], [V, V])
    posteriors, counts = piece_posteriors(scores, lengths)
    assert counts.tolist() == [3, 0] and posteriors.shape == (2, 3, V)
    assert posteriors[0].argmax(-1).tolist() == [3, 3, 5]
    torch.testing.assert_close(posteriors[0].sum(-1), torch.ones(3))


def test_an_utterances_posteriors_do_not_depend_on_padding():
    alone = piece_posteriors(*log_probs([V, 3, 4, V]))
    beside = piece_posteriors(*log_probs([V, 3, 4, V], [1, V, 2, V, 3, V, 4]))
    torch.testing.assert_close(beside[0][0, :2], alone[0][0])
    assert beside[1][0] == alone[1][0] == 2


def test_untrained_it_gives_the_llms_own_embeddings_of_the_pieces():
    table = torch.randn(V, 6)
    embedding = PosteriorEmbedding(table)
    sure = torch.eye(V)[[2, 7]][None]
    found, lengths = embedding.embed(sure, torch.tensor([2]))
    torch.testing.assert_close(found[0], table[[2, 7]])
    mixed, _ = embedding.embed(0.5 * sure + 0.5 / V, torch.tensor([2]))
    torch.testing.assert_close(mixed[0], 0.5 * table[[2, 7]] + 0.5 * table.mean(0))
    assert lengths.tolist() == [2]


def test_where_nothing_is_heard_there_is_one_embedding_that_learns():
    embedding = PosteriorEmbedding(torch.randn(V, 6))
    for posteriors in (torch.zeros(2, 0, V), torch.cat([torch.zeros(1, 2, V), torch.eye(V)[None, :2]])):
        lengths = torch.tensor([0, posteriors.shape[1]])
        found, counts = embedding.embed(posteriors, lengths)
        torch.testing.assert_close(found[0, 0], embedding.silence)
        assert counts.tolist() == [1, max(1, posteriors.shape[1])]
    found.sum().backward()
    assert embedding.silence.grad is not None and embedding.correction.grad.abs().sum() > 0


@pytest.fixture
def bank() -> PosteriorBank:
    """Of 200 utterances "1 2 3 4": 2 heard as 5 in a quarter, 3 left out in a quarter, 6 put in front in a tenth."""
    random, heard = np.random.default_rng(0), []
    for _ in range(200):
        path = [6] if random.random() < 0.1 else []
        path += [1, 5 if random.random() < 0.25 else 2] + ([] if random.random() < 0.25 else [3]) + [4]
        heard.append(0.8 * torch.eye(V)[path] + 0.2 / V)
    return PosteriorBank.measure(heard, [[1, 2, 3, 4]] * 200, V)


def simulate(bank: PosteriorBank, error_rate: float, count: int = 400) -> list[torch.Tensor]:
    simulator, random = PosteriorSimulator(bank, V), np.random.default_rng(1)
    return [simulator([1, 2, 3, 4], error_rate, random) for _ in range(count)]


def test_errors_are_those_that_were_measured(bank):
    heard = [item.argmax(-1).tolist() for item in simulate(bank, bank.error_rate)]
    wrong = (bank.reference == 2) & ~bank.correct
    assert np.mean([3 not in path for path in heard]) == pytest.approx(bank.deleted[3] / 200, abs=0.06)
    assert np.mean([5 in path for path in heard]) == pytest.approx(wrong.sum() / 200, abs=0.06)
    assert np.mean([path.count(6) for path in heard]) == pytest.approx((bank.reference < 0).sum() / 200, abs=0.06)


def test_the_share_of_errors_is_what_is_asked_for(bank):
    shares = []
    for wanted in (0.0, 0.1, 0.3):
        found = PosteriorBank.measure(simulate(bank, wanted), [[1, 2, 3, 4]] * 400, V)
        shares.append(found.error_rate)
    assert shares == pytest.approx([0.0, 0.1, 0.3], abs=0.04)


def test_rows_are_distributions_also_of_pieces_that_were_never_met(bank):
    simulator, random = PosteriorSimulator(bank, V), np.random.default_rng(2)
    rows = torch.cat([simulator([8, 9, 1], 0.5, random) for _ in range(50)])
    torch.testing.assert_close(rows.sum(-1), torch.ones(len(rows)))
    clean = torch.cat([simulator([8, 9], 0.0, random) for _ in range(20)])
    assert clean.argmax(-1).tolist() == [8, 9] * 20


def test_the_same_generator_draws_the_same(bank):
    first, second = (PosteriorSimulator(bank, V)([1, 2, 3], 0.5, np.random.default_rng(7)) for _ in range(2))
    assert torch.equal(first, second)


def test_a_bank_comes_back_from_its_file(bank, tmp_path):
    bank.save(tmp_path / "bank.npz")
    with np.load(tmp_path / "bank.npz") as arrays:  # files of old have these names
        assert set(arrays.files) == {"pieces", "values", "said", "correct", "deleted", "length"}
    found = PosteriorBank.load(tmp_path / "bank.npz")
    assert all(np.array_equal(value, vars(found)[name]) for name, value in vars(bank).items())
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match="other.npz holds no posteriors.*measure_posteriors"):
        PosteriorBank.load(tmp_path / "other.npz")


def test_padding_keeps_lengths():
    padded, lengths = pad_posteriors([torch.ones(2, V), torch.zeros(0, V)])
    assert padded.shape == (2, 2, V) and lengths.tolist() == [2, 0]

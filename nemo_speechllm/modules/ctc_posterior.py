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

"""An LLM reads what CTC hears: posteriors over pieces become embeddings, from audio or, simulated, from text alone.

LegoSLM (2505.11352) multiplies CTC's posteriors with the LLM's token embeddings; TASU (2511.03310, 2604.08384) trains
such an interface on transcripts, whose posteriors it makes up. Here the pieces are CTC's own, a few hundred, each as
the LLM embeds its text.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rapidfuzz.distance import Levenshtein
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from nemo_speechllm.modules.ctc import compress_runs

KEPT_PIECES = 8  # of each posterior that `PosteriorBank` keeps; the rest has little mass


class PosteriorEmbedding(nn.Module):
    """Embed each run of frames that CTC reads as one piece: its mean posterior times the pieces' embeddings.

    The embeddings are the LLM's own of the pieces' texts and a learned correction, at first zero: an LLM reads audio
    at step 0.

    Args:
        piece_embeddings: each piece's text as the LLM embeds it, (V, d_llm); not trained and not saved.
    """

    pieces: Tensor

    def __init__(self, piece_embeddings: Tensor):
        super().__init__()
        self.register_buffer("pieces", piece_embeddings.detach().float(), persistent=False)
        self.correction = nn.Parameter(torch.zeros_like(self.pieces))
        self.silence = nn.Parameter(self.pieces.mean(0))  # a prompt of audio alone has to begin somewhere

    def forward(self, log_probs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Turn CTC's log-probabilities (B, T, V + 1), blank last, lengths (B,) into (B, T', d_llm), lengths (B,)."""
        return self.embed(*piece_posteriors(log_probs, lengths))

    def embed(self, posteriors: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Turn posteriors of heard pieces (B, T', V), lengths (B,) into (B, ≥1, d_llm), lengths (B,), at least 1."""
        embeddings = posteriors @ (self.pieces + self.correction)
        if embeddings.shape[1] == 0:
            embeddings = embeddings.new_zeros(len(lengths), 1, embeddings.shape[-1])
        is_first = torch.arange(embeddings.shape[1], device=lengths.device) == 0
        nothing = (lengths == 0)[:, None, None] & is_first[:, None]
        return torch.where(nothing, self.silence, embeddings), lengths.clamp(min=1)


def piece_posteriors(log_probs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean posterior of each run of frames that are read as the same piece, without the blank's share.

    Args:
        log_probs: of CTC, (B, T, V + 1), the blank last.
        lengths: (B,) in frames.

    Returns:
        (B, T', V), rows that sum to 1, and lengths (B,); 0 where nothing is heard.
    """
    pieces = log_probs[..., :-1].softmax(-1)
    return compress_runs(pieces, lengths, log_probs, blank=log_probs.shape[-1] - 1)


_FILE_KEYS = {"reference": "said"}  # of a bank whose attributes have other names


@dataclass
class PosteriorBank:
    """What CTC made of known texts: posteriors of pieces that it got right, took for another, put in, and left out.

    Attributes:
        pieces, values: the likeliest pieces of each observed posterior and their probabilities, (N, KEPT_PIECES).
        reference: the piece that was said, (N,); -1: none, CTC put it in. A file calls it ``said``.
        correct: whether that was also the likeliest, (N,).
        deleted: how often each piece was left out, (V,).
        length: of all texts, in pieces.
    """

    pieces: np.ndarray
    values: np.ndarray
    reference: np.ndarray
    correct: np.ndarray
    deleted: np.ndarray
    length: int

    @classmethod
    def measure(cls, posteriors: list[Tensor], texts: list[list[int]], vocab_size: int) -> "PosteriorBank":
        """Align hypotheses with references.

        Args:
            posteriors: of each utterance's heard pieces, (T', V).
            texts: the pieces that were said.
            vocab_size: V.
        """
        deleted, references, kept = np.zeros(vocab_size, dtype=np.int64), [], []
        for posterior, text in zip(posteriors, texts, strict=True):
            hypothesis = posterior.argmax(-1).tolist()
            reference = np.full(len(hypothesis), -1)
            for step in Levenshtein.opcodes(text, hypothesis):
                if step.tag in ("equal", "replace"):
                    reference[step.dest_start : step.dest_end] = text[step.src_start : step.src_end]
                elif step.tag == "delete":
                    np.add.at(deleted, text[step.src_start : step.src_end], 1)
            references.append(reference)
            kept.append(posterior.topk(KEPT_PIECES))
        pieces = np.concatenate([top.indices.numpy() for top in kept])
        reference = np.concatenate(references)
        values = np.concatenate([top.values.numpy() for top in kept])
        return cls(pieces, values, reference, pieces[:, 0] == reference, deleted, sum(map(len, texts)))

    def save(self, path: str | Path) -> None:
        """Write the bank as an ``.npz`` file."""
        np.savez_compressed(path, **{_FILE_KEYS.get(name, name): array for name, array in vars(self).items()})

    @classmethod
    def load(cls, path: str | Path) -> "PosteriorBank":
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no such file.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                names = {key: name for name, key in _FILE_KEYS.items()}
                values = {names.get(key, key): arrays[key] for key in arrays.files}
                return cls(**values | {"length": int(arrays["length"])})
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{path} holds no posteriors ({error}); make it with examples/data/measure_posteriors.py"
            ) from error

    @property
    def error_rate(self) -> float:
        """Substitutions, deletions and insertions per piece that was said."""
        return (int((~self.correct).sum()) + int(self.deleted.sum())) / max(1, self.length)


class PosteriorSimulator:
    """Draw the posteriors that CTC might give of a text, with a wanted share of errors, of those it gave of others.

    Args:
        bank: what it gave.
        vocab_size: V.
        smoothing: the most mass that is taken off a piece that the bank has never seen right, and spread over all.
    """

    def __init__(self, bank: PosteriorBank, vocab_size: int, smoothing: float = 0.1):
        self.bank, self.vocab_size, self.smoothing = bank, vocab_size, smoothing
        places = np.arange(len(bank.reference))
        self._right = self._by_piece(places[bank.correct])
        self._wrong = self._by_piece(places[~bank.correct & (bank.reference >= 0)])
        self._inserted = places[bank.reference < 0]
        self._occurrences = np.bincount(bank.reference[bank.reference >= 0], minlength=vocab_size) + bank.deleted

    def __call__(self, text: list[int], error_rate: float, rng: np.random.Generator) -> Tensor:
        """Pieces of a text → posteriors of what is heard of it, (T', V); ``error_rate`` in errors per piece."""
        scale = error_rate / max(self.bank.error_rate, 1e-6)
        rows = []
        for piece in text:
            if rng.random() < scale * len(self._inserted) / max(1, self.bank.length):
                rows.append(self._observed(rng.choice(self._inserted)))
            chance = rng.random()
            # of a piece that was hardly met, the rate of all pieces: an add-10 estimate
            lost = self._rate(int(self.bank.deleted[piece]), int(self.bank.deleted.sum()), piece) * scale
            taken = self._rate(len(self._wrong.get(piece, ())), sum(map(len, self._wrong.values())), piece) * scale
            if chance < lost:
                continue
            rows.append(self._substituted(piece, rng) if chance < lost + taken else self._correct(piece, rng))
        return torch.stack(rows) if rows else torch.zeros(0, self.vocab_size)

    def _by_piece(self, places: np.ndarray) -> dict[int, np.ndarray]:
        order = places[np.argsort(self.bank.reference[places], kind="stable")]
        pieces, starts = np.unique(self.bank.reference[order], return_index=True)
        return dict(
            zip(pieces.tolist(), np.split(order, starts[1:]), strict=False)
        )  # of no places np.split makes one part

    def _rate(self, count: int, total: int, piece: int, prior: float = 10.0) -> float:
        return (count + prior * total / max(1, self.bank.length)) / (int(self._occurrences[piece]) + prior)

    def _observed(self, place: int) -> Tensor:
        row = torch.zeros(self.vocab_size)
        values = torch.from_numpy(self.bank.values[place]).float()
        row[torch.from_numpy(self.bank.pieces[place])] = values / values.sum()
        return row

    def _correct(self, piece: int, rng: np.random.Generator) -> Tensor:
        if piece in self._right:
            return self._observed(rng.choice(self._right[piece]))
        rest = self.smoothing * rng.random()
        row = torch.full((self.vocab_size,), rest / self.vocab_size)
        row[piece] += 1 - rest
        return row

    def _substituted(self, piece: int, rng: np.random.Generator) -> Tensor:
        """Return a confusion of this piece, or of any other, mixed with it, where this one was never confused."""
        if piece in self._wrong:
            return self._observed(rng.choice(self._wrong[piece]))
        row = self._observed(rng.choice(np.concatenate([self._inserted, *self._wrong.values()])))
        share = 0.5 * rng.random()
        row *= 1 - share
        row[piece] += share
        return row


def pad_posteriors(items: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Posteriors (T', V) of N texts → (N, T', V), lengths (N,)."""
    lengths = torch.tensor([len(item) for item in items], device=items[0].device)
    return pad_sequence(items, batch_first=True), lengths

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

"""CTC: which text the hidden states of audio hold. One interface, whatever the states are compared with."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from nemo.collections.asr.losses.ctc import CTCLoss
from nemo.collections.asr.models import ASRModel, EncDecCTCModelBPE
from nemo.collections.asr.modules import ConvASRDecoder
from nemo.collections.asr.parts.submodules.ctc_decoding import CTCBPEDecoding
from nemo.collections.asr.parts.utils.aligner_utils import viterbi_decoding
from nemo.collections.common.tokenizers import SentencePieceTokenizer
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from nemo_speechllm.modules.collectives import united
from nemo_speechllm.modules.encoders import valid_positions
from nemo_speechllm.modules.losses import Mean, count_targets, no_loss


@dataclass
class Transcript:
    """What CTC reads in an audio: token ids and their text."""

    ids: list[int]
    text: str


class CTC(nn.Module):
    """Connectionist temporal classification of hidden states, as a loss and as a reader of text.

    Its classes are the blank and one for each token that may be read.

    Attributes:
        blank: class of the blank.
        transcribes: whether what is read is what is said; where a model teaches it something else, no guard, keyword
            list or transcript is to rely on it.
    """

    blank: int
    transcribes: bool = True

    @property
    @abstractmethod
    def tokens(self) -> Tensor:
        """The token id of each class, (C,); -1 of the blank."""

    @abstractmethod
    def ids(self, texts: list[str]) -> list[list[int]]:
        """Return texts as token ids."""

    @abstractmethod
    def text(self, ids: list[int]) -> str:
        """Return token ids as text."""

    @abstractmethod
    def log_probs(self, states: Tensor) -> Tensor:
        """Return log-probabilities (N, T, C) of the classes in states (N, T, d)."""

    @abstractmethod
    def log_ratios(self, states: Tensor, tokens: Tensor) -> Tensor:
        """Return how much likelier blank and tokens (K,) are than each frame's likeliest class, (T, 1 + K).

        These are log-probabilities of states (T, d), over that of the likeliest class.
        """

    @abstractmethod
    def loss(self, states: Tensor, lengths: Tensor, texts: dict[int, str]) -> Mean:
        """Return the mean loss per token of texts; see `count_targets`.

        One that needs more frames than its audio has adds nothing; an empty one is of audio in which nothing is said.

        Args:
            states: (N, T, d), lengths (N,).
            texts: by the audio's place among the N; of none the loss is 0.
        """

    def _targets(self, texts: dict[int, str], device: torch.device) -> list[Tensor]:
        return [torch.tensor(ids, dtype=torch.long, device=device) for ids in self.ids([*texts.values()])]

    def greedy(self, log_probs: Tensor, lengths: Tensor) -> list[Transcript]:
        """Return the best path of each audio, repeats and blanks removed.

        Args:
            log_probs: (N, T, C), lengths (N,).
        """
        tokens = self.tokens.to(log_probs.device)
        paths = [tokens[classes] for classes, _ in _best_paths(log_probs, lengths)]
        rows = [path[path >= 0].tolist() for path in paths]
        return [Transcript(row, self.text(row)) for row in rows]

    def compress(self, states: Tensor, lengths: Tensor, log_probs: Tensor) -> tuple[Tensor, Tensor]:
        """Return one vector for each token of the best path, (N, T', d), lengths (N,); see `compress_runs`."""
        return compress_runs(states, lengths, log_probs, self.blank)

    @torch.no_grad()
    def align(self, log_probs: Tensor, ids: list[int]) -> list[tuple[int, int]]:
        """Return each token's first frame and the one after its last, on the likeliest path that reads as the tokens.

        Args:
            log_probs: of one audio, (T, C), without padding.
            ids: tokens, such as `greedy` or `ids` gives.

        Raises:
            ValueError: there are more tokens than frames to read them in, or one that is no class.
        """
        classes = {token: index for index, token in enumerate(self.tokens.tolist()) if token >= 0}
        if unknown := sorted(set(ids) - set(classes)):
            raise ValueError(f"CTC has no class for {unknown}: tokens that it has never met cannot be aligned")
        needed = frames_needed(ids)
        if not ids or needed > len(log_probs):
            raise ValueError(f"{len(ids)} tokens need {max(1, needed)} frames, and the audio has {len(log_probs)}")
        labels = torch.full((2 * len(ids) + 1,), self.blank, device=log_probs.device)
        labels[1::2] = torch.tensor([classes[token] for token in ids], device=log_probs.device)
        sizes = torch.tensor([len(log_probs)]), torch.tensor([len(labels)])
        (path,) = viterbi_decoding(log_probs[None].float(), labels[None], *sizes, log_probs.device)
        places = torch.tensor(path)
        frames = [(places == 2 * index + 1).nonzero().squeeze(1) for index in range(len(ids))]
        return [(int(run[0]), int(run[-1]) + 1) for run in frames]


class CTCHead(CTC):
    """An encoder's states read as SentencePiece tokens, with NeMo's layer, loss and text of tokens.

    Args:
        d_model: width of the states.
        tokenizer_file: SentencePiece model.

    Attributes:
        blank: its class, after those of the tokens.
    """

    def __init__(self, d_model: int, tokenizer_file: Path):
        super().__init__()
        self.tokenizer = SentencePieceTokenizer(str(tokenizer_file))
        # NeMo's decoding takes SentencePiece's method of this name for the number, which NeMo's models put there
        self.tokenizer.tokenizer.vocab_size = self.tokenizer.vocab_size
        self.blank = self.tokenizer.vocab_size
        self.decoder = ConvASRDecoder(feat_in=d_model, num_classes=self.blank)
        self.decoding = CTCBPEDecoding(OmegaConf.create({"strategy": "greedy_batch"}), self.tokenizer)
        self.ctc_loss = CTCLoss(self.blank, zero_infinity=True, reduction="sum")

    @property
    def tokens(self) -> Tensor:
        """The token id of each class, which is the class itself, (V + 1,); -1 of the blank."""
        return torch.tensor([*range(self.blank), -1])

    def ids(self, texts: list[str]) -> list[list[int]]:
        """Return texts as pieces of the tokenizer."""
        return [self.tokenizer.text_to_ids(text) for text in texts]

    def text(self, ids: list[int]) -> str:
        """Return pieces as text, as NeMo's CTC models write it."""
        return self.decoding.decode_tokens_to_str_with_strip_punctuation(ids)

    def log_probs(self, states: Tensor) -> Tensor:
        """Return log-probabilities (N, T, V + 1) of states (N, T, d_model); the blank is the last."""
        return self.decoder(encoder_output=states.transpose(1, 2))

    @torch.inference_mode()
    def log_ratios(self, states: Tensor, tokens: Tensor) -> Tensor:
        """Return how much likelier blank and tokens (K,) are than each frame's likeliest class, (T, 1 + K)."""
        log_probs = self.log_probs(states[None])[0]
        classes = torch.cat([tokens.new_tensor([self.blank]), tokens]).to(states.device)
        return log_probs[:, classes] - log_probs.amax(-1, keepdim=True)

    def loss(self, states: Tensor, lengths: Tensor, texts: dict[int, str]) -> Mean:
        """Return the mean loss per token; see `CTC.loss`."""
        if not texts:
            return Mean(no_loss(self, states), 0)
        picked, targets = list(texts), self._targets(texts, states.device)
        total = self.ctc_loss(
            log_probs=self.log_probs(states[picked]),
            targets=pad_sequence(targets, batch_first=True),
            input_lengths=lengths[picked],
            target_lengths=torch.tensor([len(target) for target in targets], device=states.device),
        )
        return _per_token(total, targets)


class EmbeddingCTC(CTC):
    """Audio embeddings read as tokens of an LLM, or as whatever else has embeddings in it.

    A frame's score for a token is the cosine between the audio embedding and the token's embedding, times a learned
    scale; the blank has a learned embedding. So the adapter is taught to place audio where the frozen LLM already
    reads text, without a pass through the LLM. Alignment, not language, is what a small model is slow to learn.

    The softmax runs over the tokens met in training so far (``seen``), a few thousand of an LLM's vocabulary.

    Args:
        embeddings: gives the tokens' embeddings (V, d_llm), not trained here.
        encode, decode: texts to token ids, and ids to a text.
        transcribes: see `CTC`.

    Attributes:
        blank: the first class.
        seen: which tokens were met, (V,).
    """

    blank = 0
    seen: Tensor

    def __init__(
        self,
        embeddings: Callable[[], Tensor],
        encode: Callable[[list[str]], list[list[int]]],
        decode: Callable[[list[int]], str],
        transcribes: bool = True,
    ):
        super().__init__()
        self._embeddings, self._encode, self._decode = embeddings, encode, decode
        self.transcribes = transcribes
        vocab_size, d_llm = embeddings().shape
        self.blank_embedding = nn.Parameter(torch.randn(1, d_llm))
        self.scale = nn.Parameter(torch.tensor(20.0))
        self.register_buffer("seen", torch.zeros(vocab_size, dtype=torch.bool))

    @property
    def tokens(self) -> Tensor:
        """The token id of each class, (1 + N,): of the blank -1, then those of the N tokens met, ascending."""
        return nn.functional.pad(self.seen.nonzero().squeeze(1), (1, 0), value=-1)

    def ids(self, texts: list[str]) -> list[list[int]]:
        """Return texts as rows of the embeddings."""
        return self._encode(texts)

    def text(self, ids: list[int]) -> str:
        """Return rows of the embeddings as text."""
        return self._decode(ids)

    def log_probs(self, states: Tensor) -> Tensor:
        """Return log-probabilities (N, T, 1 + K) of the blank and the K tokens met in embeddings (N, T, d_llm)."""
        return self._logits(states, self.seen).log_softmax(-1)

    @torch.inference_mode()
    def log_ratios(self, states: Tensor, tokens: Tensor) -> Tensor:
        """Return how much likelier blank and tokens (K,) are than each frame's likeliest class, (T, 1 + K).

        The tokens may be such as were never met in training.
        """
        known, scores = self._logits(states, self.seen), self._logits(states, tokens.to(self.seen.device))
        return scores - known.amax(-1, keepdim=True)

    def loss(self, states: Tensor, lengths: Tensor, texts: dict[int, str]) -> Mean:
        """Return the mean loss per token; see `CTC.loss`.

        In training a token that any process meets counts as met in all of them, so all of them must be here.
        """
        picked, targets = list(texts), self._targets(texts, self.seen.device)
        flat = torch.cat([self.seen.new_zeros(0, dtype=torch.long), *targets])
        known = self.seen.clone()
        known[flat] = True
        if self.training:  # what is only evaluated must not become what may be answered
            known = united(known)
            self.seen.copy_(known)
        if not targets:
            return Mean(no_loss(self, states), 0)
        log_probs = self._logits(states[picked], known).log_softmax(-1)
        # 0 is the blank, so a token's class is its rank among the known ones plus one
        classes = torch.searchsorted(known.nonzero().squeeze(1), flat) + 1
        target_lengths = torch.tensor([len(target) for target in targets], device=lengths.device)
        total = nn.functional.ctc_loss(
            log_probs.transpose(0, 1), classes, lengths[picked], target_lengths, reduction="sum", zero_infinity=True
        )
        return _per_token(total, targets)

    def compress(self, states: Tensor, lengths: Tensor, log_probs: Tensor) -> tuple[Tensor, Tensor]:
        """Return one embedding for each token of the best path, (N, T', d_llm), lengths (N,), at least 1.

        Where nothing is heard it is the mean of all frames: an LLM whose prompt is audio alone has to begin somewhere.
        """
        tokens, counts = super().compress(states, lengths, log_probs)
        if (counts == 0).any():
            valid = valid_positions(lengths, states.shape[1])[..., None]
            means = (states * valid).sum(1) / lengths.clamp(min=1)[:, None].to(states)
            tokens = nn.functional.pad(tokens, (0, 0, 0, max(0, 1 - tokens.shape[1])))
            first = torch.where((counts == 0)[:, None], means, tokens[:, 0])
            tokens = torch.cat([first[:, None], tokens[:, 1:]], dim=1)
        return tokens, counts.clamp(min=1)

    def _logits(self, states: Tensor, tokens: Tensor) -> Tensor:
        """Return scores (…, 1 + K) of the blank and K tokens, which are ids (K,) or a mask (V,)."""
        rows = torch.cat([self.blank_embedding, self._embeddings().detach()[tokens].float()])
        frames = nn.functional.normalize(states.float(), dim=-1) * self.scale
        return frames @ nn.functional.normalize(rows, dim=-1).T


def frames_needed(ids: Sequence[int]) -> int:
    """Return how many frames CTC needs to write tokens: one each, and a blank parts equal neighbours."""
    return len(ids) + sum(a == b for a, b in pairwise(ids))


def _per_token(total: Tensor, targets: list[Tensor]) -> Mean:
    count = count_targets(targets)
    return Mean(total / count, count)


def compress_runs(states: Tensor, lengths: Tensor, log_probs: Tensor, blank: int) -> tuple[Tensor, Tensor]:
    """Return the mean over each run of frames that CTC's best path reads as the same token.

    Blank frames are left out, so what reads them reads about as many vectors as there are tokens to hear, in their
    order (the CTC compressor of 2307.03917, section 3.1, with blank removal and averaging).

    Args:
        states: (B, T, D), lengths (B,).
        log_probs: of CTC, (B, T, V); no gradient goes through the choice of runs.
        blank: its class.

    Returns:
        (B, T', D), lengths (B,). Where nothing was heard a length is 0.
    """
    merged = []
    for item, (labels, run) in zip(states, _best_paths(log_probs, lengths), strict=True):
        membership = (run[:, None] == (labels != blank).nonzero().squeeze(1)).to(item.dtype)
        merged.append((membership / membership.sum(0)).T @ item[: len(run)])
    return pad_sequence(merged, batch_first=True), torch.tensor([len(item) for item in merged]).to(lengths)


def _best_paths(log_probs: Tensor, lengths: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return the classes of each item's best path's runs, blanks among them, and the run of each of its frames."""
    best = log_probs.argmax(-1)
    return [
        path[:length].unique_consecutive(return_inverse=True)
        for path, length in zip(best, lengths.tolist(), strict=True)
    ]


def check_has_ctc_head(asr_model: ASRModel, reference: str) -> EncDecCTCModelBPE:
    """Return the model if it has a CTC output over SentencePiece tokens.

    Raises:
        ValueError: the model has no CTC output over SentencePiece tokens.
    """
    has_head = isinstance(asr_model, EncDecCTCModelBPE) and isinstance(asr_model.tokenizer, SentencePieceTokenizer)
    if not has_head:
        raise ValueError(
            f"model.perception.encoder.pretrained={reference} holds a {type(asr_model).__name__}, not an "
            "EncDecCTCModelBPE with one SentencePiece tokenizer; train one with "
            "--config-name=ctc_prompted_llm/stage1_ctc"
        )
    return asr_model

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

"""Losses beside the LLM's own cross-entropy, and what a loss weighs where several processes train together."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nemo_speechllm.modules.collectives import summed, united, world_size


@dataclass(frozen=True)
class Mean:
    """A loss and how many tokens, frames or whatever it counts it is the mean of."""

    value: Tensor
    count: Tensor | float


def parts_of_all(losses: dict[str, Mean], names: Sequence[str]) -> dict[str, Tensor]:
    """Return this process's parts of losses that are means over the counts of all processes, times their number.

    DDP averages gradients. So a token weighs as much beside many others as beside few, and the gradient is that of one
    process with the whole batch.

    Args:
        losses: of this process's batch, by name.
        names: of the losses that any process may have; the same in all of them.
    """
    if world_size() == 1:
        return {name: loss.value for name, loss in losses.items()}
    counts = torch.stack([torch.as_tensor(losses[name].count if name in losses else 0.0) for name in names])
    device = next(iter(losses.values())).value.device
    totals = dict(zip(names, summed(counts.to(device, torch.float64)), strict=True))
    return {
        name: loss.value * (loss.count * world_size() / totals[name].clamp(min=1e-9)).to(loss.value.dtype)
        for name, loss in losses.items()
    }


class EmbeddingCTC(nn.Module):
    """CTC that reads audio embeddings as the LLM's own tokens.

    A frame's score for a token is the cosine between the audio embedding and the token's embedding, times a learned
    scale; the blank has a learned embedding. So the adapter is taught to place audio where the frozen LLM already
    reads text, without a pass through the LLM. Alignment, not language, is what a small model is slow to learn.

    The softmax runs over the tokens met in training so far (``seen``), a few thousand of an LLM's vocabulary.

    Args:
        vocab_size: of the LLM.
        d_llm: width of its embeddings.
    """

    seen: Tensor

    def __init__(self, vocab_size: int, d_llm: int):
        super().__init__()
        self.blank = nn.Parameter(torch.randn(1, d_llm))
        self.scale = nn.Parameter(torch.tensor(20.0))
        self.register_buffer("seen", torch.zeros(vocab_size, dtype=torch.bool))

    def forward(
        self, audio_embeddings: Tensor, lengths: Tensor, targets: list[Tensor], token_embeddings: Tensor
    ) -> Tensor:
        """Return the mean loss per target token.

        Args:
            audio_embeddings: (B, T, d_llm), lengths (B,).
            targets: token ids of each item's transcript; of no item: the loss is 0.
            token_embeddings: the LLM's embedding matrix (V, d_llm), not trained here.

        An item with fewer frames than CTC needs for its transcript has no alignment; it adds nothing to the loss. In
        training a token that any process meets counts as met in all of them, so all of them must be here.
        """
        flat = torch.cat([torch.zeros(0, dtype=torch.long, device=self.seen.device), *targets])
        known = self.seen.clone()
        known[flat] = True
        if self.training:  # what is only evaluated must not become what may be answered
            known = united(known)
            self.seen.copy_(known)
        if not targets:
            return no_loss(self, audio_embeddings)
        log_probs, tokens = self._scores(audio_embeddings, token_embeddings, known)
        # 0 is the blank, so a token's class is its rank among the seen ones plus one
        classes = torch.searchsorted(tokens, flat) + 1
        target_lengths = torch.tensor([len(target) for target in targets], device=lengths.device)
        return nn.functional.ctc_loss(
            log_probs.transpose(0, 1), classes, lengths, target_lengths, reduction="sum", zero_infinity=True
        ) / max(1, len(flat))

    def log_probs(self, audio_embeddings: Tensor, token_embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probabilities (B, T, 1 + N) of blank and N seen tokens in (B, T, d_llm), and their ids (N,)."""
        return self._scores(audio_embeddings, token_embeddings, self.seen)

    def _scores(self, audio_embeddings: Tensor, token_embeddings: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        tokens = known.nonzero().squeeze(1)
        return self._logits(audio_embeddings, token_embeddings, tokens).log_softmax(-1), tokens

    def _logits(self, audio_embeddings: Tensor, token_embeddings: Tensor, tokens: Tensor) -> Tensor:
        rows = torch.cat([self.blank, token_embeddings.detach()[tokens].float()])
        frames = nn.functional.normalize(audio_embeddings.float(), dim=-1) * self.scale
        return frames @ nn.functional.normalize(rows, dim=-1).T

    @torch.inference_mode()
    def log_ratios(self, audio_embeddings: Tensor, tokens: Tensor, token_embeddings: Tensor) -> Tensor:
        """Return how much likelier blank and tokens (N,) are than each frame's likeliest class, (T, 1 + N).

        These are log-probabilities of embeddings (T, d_llm), also of such tokens as were never met in training, over
        that of the likeliest class.
        """
        known = self._logits(audio_embeddings, token_embeddings, self.seen.nonzero().squeeze(1))
        asked = self._logits(audio_embeddings, token_embeddings, tokens.to(self.seen.device))
        return asked - known.amax(-1, keepdim=True)

    def greedy(self, audio_embeddings: Tensor, lengths: Tensor, token_embeddings: Tensor) -> list[list[int]]:
        """Return the best path with repeats and blanks removed, as token ids of the LLM, one list per item."""
        log_probs, tokens = self.log_probs(audio_embeddings, token_embeddings)
        return [tokens[labels[labels > 0] - 1].tolist() for labels, _ in _best_paths(log_probs, lengths)]

    def compress(self, audio_embeddings: Tensor, lengths: Tensor, token_embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Return one embedding per heard token, (B, T', d_llm), and their number (B,); see `compress_runs`.

        Audio embeddings are (B, T, d_llm), lengths (B,). Where nothing is heard it is the mean of all frames: an LLM
        whose prompt is audio alone has to begin somewhere.
        """
        log_probs, _ = self.log_probs(audio_embeddings.detach(), token_embeddings)
        heard, counts = compress_runs(audio_embeddings, lengths, log_probs, blank=0)
        if (counts == 0).any():
            frames = torch.arange(audio_embeddings.shape[1], device=lengths.device) < lengths[:, None]
            means = (audio_embeddings * frames[..., None]).sum(1) / lengths.clamp(min=1)[:, None].to(audio_embeddings)
            heard = nn.functional.pad(heard, (0, 0, 0, max(0, 1 - heard.shape[1])))
            first = torch.where((counts == 0)[:, None], means, heard[:, 0])
            heard = torch.cat([first[:, None], heard[:, 1:]], dim=1)
        return heard, counts.clamp(min=1)


def no_loss(module: nn.Module, states: Tensor) -> Tensor:
    """Return 0, of which states and every parameter of a module have a gradient: DDP would wait for a missing one."""
    return sum((parameter.sum() for parameter in module.parameters()), states.sum()) * 0.0


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
    heard = []
    for item, (labels, run) in zip(states, _best_paths(log_probs, lengths), strict=True):
        membership = (run[:, None] == (labels != blank).nonzero().squeeze(1)).to(item.dtype)
        heard.append((membership / membership.sum(0)).T @ item[: len(run)])
    return nn.utils.rnn.pad_sequence(heard, batch_first=True), torch.tensor([len(item) for item in heard]).to(lengths)


def _best_paths(log_probs: Tensor, lengths: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return the classes of each item's best path's runs, blanks among them, and the run of each of its frames."""
    best = log_probs.argmax(-1)
    return [
        path[:length].unique_consecutive(return_inverse=True)
        for path, length in zip(best, lengths.tolist(), strict=True)
    ]

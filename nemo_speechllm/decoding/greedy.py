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

"""Greedy search over packed rows, which writes several tokens in one pass where a draft foresees them (2603.11243).

What an LLM would write after a draft's tokens is computed in the pass that reads them: as far as it is the draft
itself, it has been written. So a good draft saves passes, and a bad one changes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

from nemo_speechllm.modules.packing import RowCache
from nemo_speechllm.modules.segments import LLMInputs
from nemo_speechllm.versions import cache_argument, named

DRAFTED_AT_ONCE = 32  # tokens read ahead in one pass
LOOK_AHEAD = 8  # tokens of a draft among which the place is looked for where it goes on

# of a row, its ids so far and the LLM's scores (V,): those that the next token is chosen by
Scores = Callable[[int, list[int], Tensor], Tensor]


@dataclass
class _Row:
    """An answer that is being written.

    Attributes:
        place: of its prompt in the batch.
        asked: positions of the prompt.
        draft: what may be written, from where the answer was last found in it.
        is_followed: whether the draft goes on where ``ids`` end.
    """

    place: int
    asked: int
    draft: list[int]
    ids: list[int] = field(default_factory=list)
    is_followed: bool = True

    def foreseen(self, limit: int) -> list[int]:
        """Return what is read ahead; the last token of all is not read."""
        return self.draft[: min(DRAFTED_AT_ONCE, limit - len(self.ids) - 1)] if self.is_followed else []

    def follow(self) -> None:
        """Go on in the draft behind the last token, if that is near; else keep to one's own words for now."""
        near = self.draft[:LOOK_AHEAD]
        self.is_followed = self.ids[-1] in near
        if self.is_followed:
            self.draft = self.draft[near.index(self.ids[-1]) + 1 :]


@torch.no_grad()
def greedy_ids(
    llm: PreTrainedModel,
    inputs: LLMInputs,
    end_token_id: int,
    max_new_tokens: int,
    scores: Scores | None = None,
    drafts: list[list[int]] | None = None,
) -> list[list[int]]:
    """Return the ids of each answer, (B, …), with the end token where it has been written.

    Args:
        llm: reads packed rows, see `nemo_speechllm.modules.packing.can_pack`.
        inputs: the prompts.
        scores: what chooses the next token; None: the LLM alone.
        drafts: of each row what it may write; they do not change what it writes.
    """
    is_asked = inputs.attention_mask.bool()
    asked = is_asked.sum(1).tolist()
    drafts = drafts or [[] for _ in asked]
    rows = [_Row(place, count, draft) for place, (count, draft) in enumerate(zip(asked, drafts, strict=True))]
    cache = RowCache([count + max_new_tokens for count in asked])
    prompts: list[Tensor] = list(inputs.embeddings[is_asked].split(asked))
    active = rows
    while active:
        ahead = [row.foreseen(max_new_tokens) for row in active]
        logits = _read(llm, cache, active, prompts, ahead)
        for row, foreseen, of_row in zip(active, ahead, logits, strict=True):
            _write(row, foreseen, of_row, scores, end_token_id, max_new_tokens)
            cache.lengths[row.place] = row.asked + len(row.ids) - 1  # the last token has not been read
        prompts = []
        active = [row for row in active if row.ids[-1] != end_token_id and len(row.ids) < max_new_tokens]
    return [row.ids for row in rows]


def _read(
    llm: PreTrainedModel, cache: RowCache, rows: list[_Row], prompts: list[Tensor], ahead: list[list[int]]
) -> list[Tensor]:
    """Read prompts, at first, or each row's last token, and what is foreseen; return the logits behind them."""
    embed, device = llm.get_input_embeddings(), llm.device
    texts = [foreseen if prompts else row.ids[-1:] + foreseen for row, foreseen in zip(rows, ahead, strict=True)]
    embedded = embed(torch.tensor([token for text in texts for token in text], device=device, dtype=torch.long))
    parts = list(embedded.split([len(text) for text in texts]))
    head = _alike(prompts)
    if prompts:
        parts = [torch.cat([prompt[head:], part]) for prompt, part in zip(prompts, parts, strict=True)]
    counts = [len(part) for part in parts]
    kept = [len(foreseen) + 1 for foreseen in ahead]
    ends = head + torch.tensor(counts, device=device).cumsum(0)
    places = torch.cat([end - n + torch.arange(n, device=device) for end, n in zip(ends, kept, strict=True)])
    given = named(
        llm,
        inputs_embeds=torch.cat([*(prompt[:head] for prompt in prompts[:1]), *parts])[None],
        use_cache=True,
        logits_to_keep=places,
        **cache_argument(llm, cache),
        **(cache.begin(head, counts, device) if prompts else cache.read([row.place for row in rows], counts, device)),
    )
    return list(llm(**given).logits[0].float().split(kept))


def _alike(prompts: list[Tensor]) -> int:
    """Return with how many positions all of several prompts begin, such as those that a chat template writes.

    One of each is left, behind which its answer begins.
    """
    if len(prompts) < 2:
        return 0
    shortest = min(map(len, prompts)) - 1
    alike = [(prompt[:shortest] == prompts[0][:shortest]).all(1) for prompt in prompts]
    return int(torch.stack(alike).all(0).cumprod(0).sum())


def _write(
    row: _Row, foreseen: list[int], logits: Tensor, scores: Scores | None, end_token_id: int, max_new_tokens: int
) -> None:
    """Add the tokens that have been computed: those that were foreseen, and the one after them or in their place."""
    for place, expected in enumerate([*foreseen, None]):
        chosen = logits[place] if scores is None else scores(row.place, row.ids, logits[place])
        token = int(chosen.argmax())
        row.ids.append(token)
        if token != expected or token == end_token_id:
            break
    row.draft = row.draft[place:]
    row.follow()

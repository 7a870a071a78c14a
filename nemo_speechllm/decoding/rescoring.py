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

"""CTC's likeliest texts of an audio, for an LLM to choose among (rescoring, 2012.05481, section 3.2).

CTC alone takes each piece for itself and misspells; a small LLM alone paraphrases. Of texts that the audio may hold
the LLM tells the likely ones, and of any other answers, such as the labels of a question, too.
"""

import math
from dataclasses import dataclass

import torch
from nemo.collections.asr.parts.context_biasing.boosting_graph_batched import GPUBoostingTreeModel
from nemo.collections.asr.parts.submodules.ctc_batched_beam_decoding import BatchedBeamCTCComputer
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache, PreTrainedModel

from nemo_speechllm.data.dataset import in_batches
from nemo_speechllm.modules.ctc import CTC
from nemo_speechllm.modules.packing import PrefixTree, can_read_tree
from nemo_speechllm.modules.segments import IGNORE_INDEX, LLMInputs
from nemo_speechllm.versions import cache_argument, named

N_HYPOTHESES = 16
SEARCH_WEIGHT = 1.0  # of what leads a search, beside the pieces' log-probabilities
ANSWERS_AT_ONCE = 32  # each needs a copy of what the LLM remembers of the prompt


@dataclass
class Hypothesis:
    """A text that may have been said, and the log-probability of all CTC paths that read as its tokens."""

    text: str
    log_prob: float


@dataclass(frozen=True)
class AnswerScore:
    """How likely an answer is, once it has been asked for.

    Attributes:
        log_prob: the sum of its tokens' natural log-probabilities.
        tokens: how many these are, the end token among them.
    """

    log_prob: float
    tokens: int


@torch.no_grad()
def ctc_hypotheses(
    ctc: CTC, log_probs: Tensor, beam_size: int, *others: str, preference: GPUBoostingTreeModel | None = None
) -> list[Hypothesis]:
    """Return at most ``beam_size`` texts that CTC may have heard in an audio, and some others, the likeliest first.

    NeMo's beam search finds them; it adds up the paths that it meets, and what is returned are those of all.

    Args:
        ctc: says which class is the blank, and what tokens read as.
        log_probs: of the audio, without padding, (T, C).
        beam_size: of 1 only the best path is followed.
        others: texts to be scored as well; one that the audio has no path for is left out.
        preference: half of the texts are of a search that it leads; they have the scores of the others, so what it
            prefers is no likelier for it.
    """
    tokens, log_probs = ctc.tokens.tolist(), log_probs.float()
    rows: list[list[int]] = [[]]
    if len(log_probs):
        rows = _beam(ctc, log_probs, beam_size)
        if preference is not None:
            half = (beam_size + 1) // 2
            rows = rows[:half] + _beam(ctc, log_probs, beam_size, preference)[:half]
    texts = [" ".join(ctc.text([tokens[label] for label in row]).split()) for row in rows]
    classes = {token: label for label, token in enumerate(tokens)}
    for text, ids in zip(others, ctc.ids([*others]), strict=True):
        if set(ids) <= classes.keys():
            rows.append([classes[token] for token in ids])
            texts.append(text)
    best: dict[str, float] = {}
    for text, score in zip(texts, _log_probs_of(rows, log_probs, ctc.blank), strict=True):
        best[text] = max(score, best.get(text, score))
    likely = sorted(best, key=best.__getitem__, reverse=True)
    return [Hypothesis(text, best[text]) for text in likely if best[text] > -math.inf]


def _beam(
    ctc: CTC, log_probs: Tensor, beam_size: int, preference: GPUBoostingTreeModel | None = None
) -> list[list[int]]:
    """Return the classes of texts, without blanks and repeats."""
    fusion = {"fusion_models": [preference], "fusion_models_alpha": [SEARCH_WEIGHT]} if preference is not None else {}
    search = BatchedBeamCTCComputer(
        ctc.blank, beam_size, return_best_hypothesis=False, allow_cuda_graphs=False, **fusion
    )
    (n_best,) = search(log_probs[None], torch.tensor([len(log_probs)], device=log_probs.device)).to_nbest_hyps_list()
    return [hypothesis.y_sequence.tolist() for hypothesis in n_best.n_best_hypotheses]


def _log_probs_of(rows: list[list[int]], log_probs: Tensor, blank: int) -> list[float]:
    """Return the log-probability of all paths of an audio, (T, C), that read as each of the rows of classes."""
    if len(log_probs) == 0:
        return [-math.inf if row else 0.0 for row in rows]
    losses = nn.functional.ctc_loss(
        log_probs[:, None].expand(-1, len(rows), -1),
        pad_sequence([torch.tensor(row, dtype=torch.long) for row in rows], batch_first=True).to(log_probs.device),
        torch.full((len(rows),), len(log_probs)),
        torch.tensor([len(row) for row in rows]),
        blank=blank,
        reduction="none",
    )
    return (-losses).tolist()


def answer_log_probs(llm: PreTrainedModel, prompt: Tensor, answers: list[list[int]]) -> Tensor:
    """Return an LLM's log-probability of each of N answers to a prompt, (N,); see `token_log_probs`."""
    return token_log_probs(llm, prompt, answers).sum(1)


@torch.no_grad()
def token_log_probs(llm: PreTrainedModel, prompt: Tensor, answers: list[list[int]]) -> Tensor:
    """Return an LLM's log-probability of the tokens of each of N answers to a prompt, (N, L), 0 where one has ended.

    The prompt is read once for all, and what several answers begin with once for these if the LLM can pack rows.

    Args:
        prompt: embeddings, (T, d_llm).
        answers: ids with the end token; one of them has another.
    """
    read = _read_as_tree if can_read_tree(llm, len(prompt) + max(map(len, answers))) else _read_as_batch
    return read(llm, prompt, answers)


def _read_as_tree(llm: PreTrainedModel, prompt: Tensor, answers: list[list[int]]) -> Tensor:
    """Return `token_log_probs` of one sequence, the prompt and a tree of the answers."""
    tree = PrefixTree(answers)
    tokens = torch.tensor(tree.tokens, dtype=torch.long, device=prompt.device)
    arguments = named(
        llm,
        inputs_embeds=torch.cat([prompt, llm.get_input_embeddings()(tokens)])[None],
        logits_to_keep=1 + len(tokens),
        use_cache=False,
        **tree.arguments(len(prompt), prompt.device),
    )
    logits = llm(**arguments).logits[0].float()
    totals = logits.logsumexp(-1)
    rows = [logits[nodes, ids] - totals[nodes] for nodes, ids in zip(tree.nodes, answers, strict=True)]
    return pad_sequence(rows, batch_first=True)


def _read_as_batch(llm: PreTrainedModel, prompt: Tensor, answers: list[list[int]]) -> Tensor:
    """Return `token_log_probs` of a batch of answers, which go on from what the LLM remembers of the prompt."""
    cache = DynamicCache(config=llm.config)
    kept = {"use_cache": True, **cache_argument(llm, cache)}
    asked = llm(**named(llm, inputs_embeds=prompt[None], logits_to_keep=1, **kept))
    cache.batch_repeat_interleave(len(answers))
    rows = [torch.tensor(ids, device=prompt.device) for ids in answers]
    labels = pad_sequence(rows, batch_first=True, padding_value=IGNORE_INDEX)
    read = labels[:, :-1]
    mask = nn.functional.pad(read != IGNORE_INDEX, (len(prompt), 0), value=True).long()
    logits = asked.logits.expand(len(answers), -1, -1)
    if read.numel():  # not where all answers are an end token
        continued = named(llm, input_ids=read.clamp(min=0), attention_mask=mask, **kept)
        logits = torch.cat([logits, llm(**continued).logits], dim=1)
    nats = nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORE_INDEX, reduction="none"
    )
    return -nats.view_as(labels)


def score_answers(llm: PreTrainedModel, inputs: LLMInputs, answers: list[list[list[int]]]) -> list[list[AnswerScore]]:
    """Return how likely an LLM finds each of the answers to each of B prompts; see `answer_log_probs`.

    Args:
        inputs: the prompts, (B, T, d_llm); their padding and labels are not read.
        answers: of each prompt ids with the end token, another before it.
    """
    scores: list[list[AnswerScore]] = []
    for embeddings, mask, of_prompt in zip(inputs.embeddings, inputs.attention_mask, answers, strict=True):
        scores.append([])
        for ids in in_batches(of_prompt, ANSWERS_AT_ONCE):
            log_probs = answer_log_probs(llm, embeddings[mask.bool()], ids).tolist()
            scores[-1] += map(AnswerScore, log_probs, map(len, ids))
    return scores

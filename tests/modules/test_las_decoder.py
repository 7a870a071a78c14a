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

"""The decoder that attends to audio: what is padded makes no difference, and decoding is what was trained."""

import functools

import pytest
import torch

from nemo_speechllm.decoding.generate import generate_text_ids
from nemo_speechllm.modules.encoders import valid_positions
from nemo_speechllm.modules.las_decoder import add_positions, build_las_decoder, join_text, las_loss
from nemo_speechllm.prompts.segments import TextSegment
from nemo_speechllm.recipes.sections import TextDecoder

VOCABULARY, END = 50, 1
INSTRUCTIONS = (7, 3, 1, 12)  # tokens
AUDIOS = (9, 20, 4, 13)  # states


@pytest.fixture
def decoder():
    torch.manual_seed(0)
    cfg = TextDecoder(n_layers=3, d_model=32, n_heads=4, ff_expansion_factor=2, dropout=0.1)
    decoder = build_las_decoder(cfg, VOCABULARY, END).eval()
    with torch.no_grad():  # so that answers differ
        for parameter in decoder.parameters():
            parameter.mul_(3.0)
    return decoder


@pytest.fixture
def items() -> list[tuple[torch.Tensor, list[TextSegment]]]:
    """States (T, 32) and an instruction of each item."""
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(states, 32, generator=generator),
            [TextSegment(torch.randint(2, VOCABULARY, (tokens,), generator=generator).tolist())],
        )
        for states, tokens in zip(AUDIOS, INSTRUCTIONS, strict=True)
    ]


def batch(items, more_states: int = 0, more_tokens: int = 0):
    lengths = torch.tensor([len(states) for states, _ in items])
    states = torch.nn.utils.rnn.pad_sequence([states for states, _ in items], batch_first=True)
    states = torch.nn.functional.pad(states, (0, 0, 0, more_states), value=3.0)
    text = join_text([segments for _, segments in items], END)
    text.ids = torch.nn.functional.pad(text.ids, (more_tokens, 0), value=7)
    text.attention_mask = torch.nn.functional.pad(text.attention_mask, (more_tokens, 0))
    text.learned = torch.nn.functional.pad(text.learned, (more_tokens, 0))
    text.answer_start += more_tokens
    return states, valid_positions(lengths, states.shape[1]), text


def logits(decoder, states, mask, text) -> torch.Tensor:
    return decoder(
        inputs_embeds=states,
        attention_mask=mask,
        decoder_input_ids=text.ids,
        decoder_attention_mask=text.attention_mask,
        decoder_answer_start=text.answer_start,
        use_cache=False,
    ).logits


@pytest.mark.parametrize("beam_size", [1, 4])
@pytest.mark.parametrize("use_cache", [True, False])
def test_alone_in_a_batch_and_over_padded_are_identical(decoder, items, beam_size, use_cache):
    decoder.generation_config.use_cache = use_cache
    options = dict(end_token_id=END, max_new_tokens=10, beam_size=beam_size)
    alone = [generate_text_ids(decoder, *batch([item]), **options)[0][0] for item in items]
    assert len({tuple(ids) for ids in alone}) == len(items)
    assert generate_text_ids(decoder, *batch(items), **options)[0] == alone
    assert generate_text_ids(decoder, *batch(items, 30, 5), **options)[0] == alone


@pytest.mark.parametrize("beam_size", [1, 4])
def test_with_and_without_cache_decode_the_same(decoder, items, beam_size, monkeypatch):
    answers, lengths = [], []
    forward = decoder.decoder.forward

    @functools.wraps(forward)  # `generate` looks at what it takes
    def watched(*args, inputs_embeds=None, **kwargs):
        lengths.append(inputs_embeds.shape[1])
        return forward(*args, inputs_embeds=inputs_embeds, **kwargs)

    monkeypatch.setattr(decoder.decoder, "forward", watched)
    for use_cache in (True, False):
        decoder.generation_config.use_cache = use_cache
        answers.append(generate_text_ids(decoder, *batch(items), END, 10, beam_size)[0])
    assert answers[0] == answers[1]
    assert lengths[1] == 1 and lengths[-1] > 1  # the cache was there, and then it was not


def test_greedy_decoding_takes_what_training_finds_likeliest(decoder, items):
    answers, _ = generate_text_ids(decoder, *batch(items), END, 10)
    whole = [
        (states, [*prompt, TextSegment(ids, loss=True)]) for (states, prompt), ids in zip(items, answers, strict=True)
    ]
    states, mask, text = batch(whole)
    best = logits(decoder, states, mask, text).argmax(-1)
    for predicted, learned, ids in zip(best, text.learned, answers, strict=True):
        assert predicted[:-1][learned[1:]].tolist() == ids


def test_which_place_of_the_answer_it_is_makes_a_difference_and_how_long_the_instruction_was_makes_none(
    decoder, items
):
    states, mask, text = batch([items[0]])
    words = torch.full_like(text.ids, 9)  # one token, again and again: its distance to the others says nothing
    text.ids = words

    def predicted(answer_start: int) -> torch.Tensor:
        text.answer_start = answer_start
        return logits(decoder, states, mask, text)

    as_instruction = predicted(words.shape[1])
    assert not torch.allclose(predicted(2)[:, -1], as_instruction[:, -1])
    torch.testing.assert_close(predicted(2)[:, :2], as_instruction[:, :2])


def test_beam_search_finds_what_is_likelier_than_greedy(decoder, items):
    def likelihood(answers: list[list[int]], cut: torch.Tensor) -> float:
        """Mean log-probability of a token, over all answers; what was cut has no end token."""
        ends = [[] if is_cut else [END] for is_cut in cut]
        answered = [
            (states, [*prompt, TextSegment(ids + end, loss=True)])
            for (states, prompt), ids, end in zip(items, answers, ends, strict=True)
        ]
        states, mask, text = batch(answered)
        return -float(las_loss(logits(decoder, states, mask, text), text, 0.0, 0.0).value.detach())

    greedy, beam = (generate_text_ids(decoder, *batch(items), END, 6, beam_size=size) for size in (1, 8))
    assert greedy[0] != beam[0]
    assert likelihood(*beam) > likelihood(*greedy)


def test_an_answer_is_cut_at_its_end_token_and_reported_where_it_has_none(decoder, items):
    with torch.no_grad():
        decoder.shared.weight[END] = 0.0
    answers, truncated = generate_text_ids(decoder, *batch(items), END, 5)
    assert truncated.any()
    assert [len(ids) == 5 for ids, cut in zip(answers, truncated, strict=True) if cut] == [True] * int(truncated.sum())
    assert not any(END in ids for ids in answers)


class TestLoss:
    @pytest.fixture
    def text(self):
        prompts = [
            [TextSegment([5, 6, 7]), TextSegment([8, END], loss=True)],
            [TextSegment([9]), TextSegment([END], loss=True)],
        ]
        return join_text(prompts, END)

    def test_instructions_are_padded_on_the_left_and_answers_on_the_right(self, text):
        assert text.ids.tolist() == [[5, 6, 7, 8, END], [END, END, 9, END, END]]
        assert text.attention_mask.tolist() == [[1] * 5, [0, 0, 1, 1, 0]]
        assert text.learned.tolist() == [[False, False, False, True, True], [False] * 3 + [True, False]]
        assert text.answer_start == 3

    def test_it_covers_exactly_the_answers_and_their_end_tokens(self, text):
        scores = torch.randn(2, 5, VOCABULARY, requires_grad=True)
        las_loss(scores, text, 0.0, 0.1).value.backward()
        moved = (scores.grad != 0).any(-1)
        assert moved.tolist() == [[False, False, True, True, False], [False, False, True, False, False]]

    def test_an_instruction_may_have_a_weight_but_its_first_token_has_none(self, text):
        scores = torch.randn(2, 5, VOCABULARY)
        found = las_loss(scores, text, 0.5, 0.0).value
        log_probs = scores.log_softmax(-1)
        expected = [
            (0.5, log_probs[0, 0, 6]),
            (0.5, log_probs[0, 1, 7]),
            (1.0, log_probs[0, 2, 8]),
            (1.0, log_probs[0, 3, END]),
            (1.0, log_probs[1, 2, END]),
        ]
        torch.testing.assert_close(found, -sum(w * value for w, value in expected) / sum(w for w, _ in expected))

    def test_padding_brings_neither_gradient_nor_nan(self, decoder, items):
        whole = [(states, [*prompt, TextSegment([4, END], loss=True)]) for states, prompt in items]
        decoder.train()
        states, mask, text = batch(whole, more_states=6)
        states.requires_grad_()
        las_loss(logits(decoder, states, mask, text), text, 0.0, 0.1).value.backward()
        assert all(torch.isfinite(parameter.grad).all() for parameter in decoder.parameters())
        assert (states.grad[~mask] == 0).all() and (states.grad[mask] != 0).any(-1).all()


def test_it_learns_to_copy_what_it_attends_to_with_adam():
    """With T5's own initial weights it takes several times as many steps: its attention saturates before it has found
    its place."""
    torch.manual_seed(0)
    cfg = TextDecoder(n_layers=2, d_model=32, n_heads=4, ff_expansion_factor=2, dropout=0.0)
    decoder, words = build_las_decoder(cfg, 20, END), torch.nn.Embedding(20, 32)
    optimizer = torch.optim.AdamW([*decoder.parameters(), *words.parameters()], lr=3e-3)
    losses = []
    for _ in range(200):
        spoken = torch.randint(3, 13, (32, 4))
        prompts = [[TextSegment([2]), TextSegment([*row.tolist(), END], loss=True)] for row in spoken]
        text, heard = join_text(prompts, END), add_positions(words(spoken))
        loss = las_loss(logits(decoder, heard, torch.ones_like(spoken), text), text, 0.0, 0.0).value
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-20:]) / 20 < 0.1


def test_logits_are_not_scaled_as_those_of_t5_are(decoder, items):
    states, mask, text = batch(items)
    hidden = []
    decoder.decoder.register_forward_hook(lambda module, inputs, output: hidden.append(output.last_hidden_state))
    torch.testing.assert_close(logits(decoder, states, mask, text), hidden[0] @ decoder.shared.weight.T)


def test_a_cache_that_does_not_arrive_is_an_error(decoder, items):
    """As when it is passed under a name that is not read: each token would be decoded as if it were the first."""
    states, mask, text = batch(items)
    with pytest.raises(ValueError, match="the mask covers 11 tokens before the 1 that are given, the cache holds 0"):
        decoder(
            inputs_embeds=states,
            attention_mask=mask,
            decoder_input_ids=text.ids[:, -1:],
            decoder_attention_mask=text.attention_mask,
            decoder_answer_start=text.answer_start,
        )

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

"""What an LLM that hears is taught and answers, on its way from embeddings to tokens."""

import pytest
import torch
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM, AutoTokenizer, BloomConfig, BloomForCausalLM

from nemo_speechllm import assets
from nemo_speechllm.data.conversation import Conversation, Turn
from nemo_speechllm.data.dataset import ConversationBatch
from nemo_speechllm.models import SALM
from nemo_speechllm.modules.segments import IGNORE_INDEX
from nemo_speechllm.prompts.segments import ContextError
from tests.questions import DURATIONS, asked, collate


def test_compression_needs_ctc(make_salm):
    with pytest.raises(ValueError, match="model.loss.ctc_weight is 0"):
        make_salm(ctc_compression=True, loss={"ctc_weight": 0.0})


class TestGenerate:
    @pytest.mark.parametrize("ctc_compression, ctc_weight", [(False, 0.0), (True, 0.0), (True, 0.3)])
    def test_alone_in_a_batch_and_over_padded_are_token_identical(self, salm, make_audio, ctc_compression, ctc_weight):
        salm.cfg.ctc_compression, salm.cfg.generation.ctc_weight = ctc_compression, ctc_weight
        conversations = [
            asked(make_audio(seconds, seed=i), instruction="Transcribe." * (1 + i % 3), task="asr")
            for i, seconds in enumerate(DURATIONS)
        ]
        alone = [answer.ids for answer in salm.generate(conversations, batch_size=1, max_new_tokens=12)]
        together = [answer.ids for answer in salm.generate(conversations, batch_size=8, max_new_tokens=12)]
        batch = collate(salm, conversations)
        padded = ConversationBatch(
            conversations, torch.nn.functional.pad(batch.audio, (0, 40000)), batch.audio_lengths
        )
        over_padded = [answer.ids for answer in salm.answering.answer_batch(padded, max_new_tokens=12, beam_size=1)]

        assert len({tuple(ids) for ids in alone}) > 4  # the answers do depend on the audio
        assert together == alone
        assert over_padded == alone

    def test_ctc_has_a_say_in_transcripts_only(self, salm, make_audio):
        """With all the weight a transcript is what CTC hears; a question of the user's own is the LLM's to answer."""
        salm.cfg.generation.ctc_weight = 1.0
        audio = make_audio(2.0)
        transcript = salm.generate([asked(audio, task="asr")], max_new_tokens=40)[0]
        assert set(transcript.ids) <= set(range(40))
        question = salm.generate([asked(audio)], max_new_tokens=8)[0]
        salm.cfg.generation.ctc_weight = 0.0
        assert question.ids == salm.generate([asked(audio)], max_new_tokens=8)[0].ids

    @pytest.mark.parametrize("text", ["What is the capital of France?", "Say {{ it }} twice."])
    def test_without_audio_it_is_the_llm(self, tiny_salm_config, text):
        folder = assets.resolve("smollm2-135m-instruct")
        model = SALM(OmegaConf.merge(tiny_salm_config.model, {"llm": {"pretrained": str(folder)}})).eval()
        answer = model.generate([Conversation("text", [Turn("user", [text])])], max_new_tokens=16)[0]

        tokenizer = AutoTokenizer.from_pretrained(folder)
        messages = [{"role": "system", "content": ""}, {"role": "user", "content": text}]
        prompt = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        llm = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        expected = llm.generate(**prompt, max_new_tokens=16, do_sample=False)[0, prompt["input_ids"].shape[1] :]
        assert answer.ids == [i for i in expected.tolist() if i != tokenizer.eos_token_id]

    def test_audio_and_text_alone_share_a_batch(self, salm, make_audio):
        text = Conversation("text", [Turn("user", ["Hello."])])
        audio = asked(make_audio(1.0))
        alone = [salm.generate([item], max_new_tokens=6)[0].ids for item in (text, audio)]
        assert [answer.ids for answer in salm.generate([text, audio], max_new_tokens=6)] == alone

    def test_a_closing_answer_is_not_read(self, salm, make_audio):
        samples = make_audio(0.8)
        without, with_answer = salm.generate([asked(samples), asked(samples, "the answer")], max_new_tokens=6)
        assert without.ids == with_answer.ids

    def test_what_is_beyond_the_context_is_named_before_the_llm_is_run(self, salm, make_audio, monkeypatch):
        monkeypatch.setattr(salm.llm, "forward", lambda *_, **__: pytest.fail("the LLM was run"))
        words = "word " * 3000
        learned, question = asked(make_audio(0.5), answer=words), asked(make_audio(0.5), instruction=words)
        learned.metadata["manifest_line"] = "train.jsonl:3"
        with pytest.raises(ContextError, match="train.jsonl:3: 30.. tokens of text .* more than the 2048"):
            salm.loss(collate(salm, [learned]))
        with pytest.raises(ContextError, match="30.. tokens of text"):
            salm.generate([question])

    def test_beam_search_runs(self, salm, make_audio):
        answers = salm.generate([asked(make_audio(s)) for s in (0.5, 0.9)], max_new_tokens=4, beam_size=3)
        assert len(answers) == 2

    @pytest.mark.parametrize("option", [{"max_new_tokens": 0}, {"max_new_tokens": -1}, {"beam_size": 0}])
    def test_a_limit_below_one_is_refused_by_name(self, salm, make_audio, option):
        ((name, value),) = option.items()
        with pytest.raises(ValueError, match=f"{name} is {value}; it must be a whole number"):
            salm.generate([asked(make_audio(0.3))], **option)
        with pytest.raises(ValueError, match=f"{name} is {value}; it must be a whole number"):
            salm.transcribe(make_audio(0.3), verbose=False, **option)


class TestLoss:
    def test_end_token_is_learned_where_pad_is_eos(self, make_salm, make_audio):
        model = make_salm(
            freeze_params=["^perception\\.encoder\\."],
            lora=None,
            loss={"ctc_weight": 0.0},
            ctc_compression=False,
            generation={"max_new_tokens": 24, "ctc_weight": 0.0},
        )
        assert model.tokenizer.pad_token_id == model.tokenizer.eos_token_id == model.prompt.end_token_id
        texts = ["press one", "please hold the line", "thank you", "one moment"]
        conversations = [asked(make_audio(0.5 + i / 3, seed=i), text) for i, text in enumerate(texts)]
        batch = collate(model, conversations)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
        for _ in range(60):
            optimizer.zero_grad()
            model.loss(batch)["loss"].backward()
            optimizer.step()

        answers = model.generate(conversations)
        assert [answer.text for answer in answers] == texts
        assert not any(answer.truncated for answer in answers)

    def test_lm_loss_is_hugging_faces_on_the_answer_and_its_end(self, salm, make_audio):
        batch = collate(salm, [asked(make_audio(0.7), "thank you"), asked(make_audio(1.5), "press one for support")])
        inputs = salm.prepare_inputs(batch, salm.perceive(batch))
        learned = [row[row != IGNORE_INDEX] for row in inputs.labels]
        assert [salm.tokenizer.decode(ids) for ids in learned] == [
            "thank you<|im_end|>",
            "press one for support<|im_end|>",
        ]
        positions = (inputs.attention_mask.cumsum(1) - 1).clamp(min=0)
        expected = salm.llm(
            inputs_embeds=inputs.embeddings,
            attention_mask=inputs.attention_mask,
            position_ids=positions,
            labels=inputs.labels,
        ).loss
        torch.testing.assert_close(salm.loss(batch)["lm_loss"], expected)

    def test_an_llm_with_alibi_takes_its_positions_from_the_mask(self, make_salm, tokenizer, make_audio, tmp_path):
        """BLOOM (2307.11795, section 4.3) has no position_ids."""
        torch.manual_seed(0)
        config = BloomConfig(vocab_size=len(tokenizer), hidden_size=64, n_layer=2, n_head=4)
        BloomForCausalLM(config).save_pretrained(tmp_path / "bloom")
        tokenizer.save_pretrained(tmp_path / "bloom")
        lora = {"target_modules": ["query_key_value"]}
        model = make_salm(
            llm={"pretrained": str(tmp_path / "bloom")},
            lora=lora,
            loss={"ctc_weight": 0.0},
            ctc_compression=False,
            generation={"ctc_weight": 0.0},
        )
        items = [asked(make_audio(seconds, seed=i), "one two") for i, seconds in enumerate((0.5, 1.7))]
        together = float(model.loss(collate(model, items))["lm_loss"])
        alone = [float(model.loss(collate(model, [item]))["lm_loss"]) for item in items]
        assert together == pytest.approx(sum(alone) / 2, rel=1e-4)
        answers = [model.generate([item], max_new_tokens=6)[0].ids for item in items]
        assert [answer.ids for answer in model.generate(items, max_new_tokens=6)] == answers

    def test_without_lm_weight_the_llm_is_not_run(self, make_salm, make_audio, monkeypatch):
        model = make_salm(loss={"lm_weight": 0.0, "ctc_weight": 1.0})
        monkeypatch.setattr(model.llm, "forward", None)
        batch = collate(model, [asked(make_audio(1.5), "thank you")])
        losses = model.loss(batch)
        assert set(losses) == {"loss", "ctc_loss"}
        losses["loss"].backward()
        assert model.perception.projection.linear.weight.grad.abs().sum() > 0
        assert len(model.answering.answer_batch(batch, max_new_tokens=4, beam_size=1)) == 1

    def test_only_the_recipes_parameters_get_a_gradient(self, salm, make_audio):
        salm.loss(collate(salm, [asked(make_audio(1.0), "thank you")]))["loss"].backward()
        trained = {name for name, parameter in salm.named_parameters() if parameter.grad is not None}
        assert trained
        assert all(
            name.startswith(("perception.adapter", "perception.projection", "alignment.")) or "lora_" in name
            for name in trained
        )

    def test_a_pattern_that_freezes_nothing_is_an_error(self, make_salm):
        with pytest.raises(ValueError, match=r"encodr.*matches no parameter"):
            make_salm(freeze_params=["^perception\\.encodr"])

    def test_an_unknown_lora_target_is_an_error(self, make_salm):
        with pytest.raises(ValueError, match="query_key_value"):
            make_salm(lora={"target_modules": ["query_key_value"]})

    def test_a_missing_llm_folder_is_an_error(self, make_salm):
        with pytest.raises(assets.AssetError, match="/nowhere/llm"):
            make_salm(llm={"pretrained": "/nowhere/llm"})


class TestDraft:
    @pytest.mark.parametrize("ctc_weight", [0.0, 0.3])
    def test_ctc_drafts_change_no_answer(self, salm, make_audio, ctc_weight):
        salm.cfg.generation.ctc_weight = ctc_weight
        items = [asked(make_audio(seconds, seed=i), task="asr") for i, seconds in enumerate(DURATIONS)]
        items += [asked(make_audio(1.0)), Conversation("text", [Turn("user", ["Hello."])])]
        plain = [answer.ids for answer in salm.generate(items, max_new_tokens=12)]
        salm.cfg.generation.draft = "ctc"
        assert [answer.ids for answer in salm.generate(items, max_new_tokens=12)] == plain
        assert [answer.ids for answer in salm.generate(items, batch_size=1, max_new_tokens=12)] == plain

    def test_it_needs_ctc(self, make_salm, make_audio):
        changes = {"loss": {"ctc_weight": 0.0}, "ctc_compression": False, "generation": {"ctc_weight": 0.0}}
        model = make_salm(**changes)
        model.cfg.generation.draft = "ctc"
        with pytest.raises(ValueError, match="model.generation.draft=ctc: this needs CTC's hypothesis"):
            model.generate([asked(make_audio(0.5), task="asr")])

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

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from nemo.collections.asr.parts.mixins.transcription import TranscribeConfig
from nemo.collections.asr.parts.utils.rnnt_utils import Hypothesis
from omegaconf import OmegaConf
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, AutoTokenizer, BloomConfig, BloomForCausalLM

from nemo_speechllm import assets
from nemo_speechllm.checkpointing.errors import CheckpointError
from nemo_speechllm.data.conversation import Audio, AudioError, Conversation, Turn
from nemo_speechllm.data.dataset import ConversationBatch, ConversationDataset
from nemo_speechllm.models import SALM, shipped
from nemo_speechllm.models.segmentation import split_at_pauses
from nemo_speechllm.models.shipped import shipped_models
from nemo_speechllm.modules.segments import IGNORE_INDEX
from nemo_speechllm.prompts.segments import ContextError

DURATIONS = (1.0, 0.31, 2.4, 0.7, 1.77, 0.5, 3.1, 1.2)


def asked(samples, answer=None, instruction="Transcribe the speech.", task=None):
    turns = [Turn("user", [Audio(torch.as_tensor(samples)), instruction])]
    turns += [Turn("assistant", [answer])] if answer is not None else []
    return Conversation("test", turns, {"text": answer, "task": task})


def collate(model, conversations) -> ConversationBatch:
    return ConversationDataset(model.builder).collate(conversations)


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
        with pytest.raises(ValueError, match=f"{name} is {value}; it must be at least 1"):
            salm.generate([asked(make_audio(0.3))], **option)
        with pytest.raises(ValueError, match=f"{name} is {value}; it must be at least 1"):
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


class TestTranscribe:
    @pytest.fixture
    def audio_file(self, tmp_path, make_audio):
        def make(
            seconds: float = 1.0, seed: int = 0, rate: int = 16000, channels: int = 1, name: str = "a.wav"
        ) -> Path:
            samples = make_audio(seconds * rate / 16000, seed)
            soundfile.write(tmp_path / name, np.stack([samples * (c + 1) for c in range(channels)], 1), rate)
            return tmp_path / name

        return make

    def test_path_list_array_and_tensor_agree(self, salm, audio_file):
        path = audio_file()
        samples = soundfile.read(path, dtype="float32")[0]
        expected = salm.transcribe(str(path), verbose=False)
        assert len(expected) == 1 and isinstance(expected[0], str)
        for audio in (path, [path], [str(path)], samples, torch.from_numpy(samples), [samples]):
            assert salm.transcribe(audio, verbose=False) == expected

    def test_order_does_not_depend_on_batch_size(self, salm, audio_file):
        paths = [audio_file(seconds, i, name=f"{i}.wav") for i, seconds in enumerate(DURATIONS[:5])]
        expected = [salm.transcribe(path, verbose=False)[0] for path in paths]
        assert len(set(expected)) > 2
        assert salm.transcribe(paths, batch_size=2, verbose=False) == expected
        assert salm.transcribe(paths, batch_size=5, verbose=False) == expected

    def test_hypotheses(self, salm, audio_file):
        path = audio_file()
        (hypothesis,) = salm.transcribe(path, return_hypotheses=True, verbose=False)
        assert isinstance(hypothesis, Hypothesis)
        assert hypothesis.text == salm.transcribe(path, verbose=False)[0]
        assert salm.tokenizer.decode(hypothesis.y_sequence, skip_special_tokens=True).strip() == hypothesis.text

    def test_instruction_and_keywords_are_asked(self, salm, audio_file):
        path = audio_file()
        samples = soundfile.read(path, dtype="float32")[0]
        asked_for = "The following words may occur: SALM, NeMo. What is said?"
        expected = salm.generate([asked(samples, instruction=asked_for)])[0].text
        assert salm.transcribe(path, instruction="What is said?", keywords=["SALM", "NeMo"], verbose=False) == [
            expected
        ]

    def test_an_empty_list_takes_a_manifests_keywords_away(self, salm, audio_file):
        row = {"audio_filepath": str(audio_file()), "keywords": ["SALM"]}
        for keywords, given in ((None, ["SALM"]), ([], []), (["NeMo"], ["NeMo"])):
            (item,) = salm._conversations_of([row], replace(salm.get_transcribe_config(), keywords=keywords))
            assert item.metadata["keywords"] == given

    def test_manifest_with_offset_and_duration(self, salm, audio_file, tmp_path):
        path = audio_file(3.0)
        samples = soundfile.read(path, dtype="float32")[0]
        rows = [
            {"audio_filepath": path.name, "offset": 1.0, "duration": 0.5},
            {"audio_filepath": path.name, "offset": 0.0, "duration": 0.5},
            {"audio_filepath": path.name, "instruction": "What?"},
        ]
        manifest = tmp_path / "in.jsonl"
        manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
        expected = salm.generate(
            [
                asked(samples[16000:24000], task="asr"),
                asked(samples[:8000], task="asr"),
                asked(samples, instruction="What?"),
            ]
        )
        assert salm.transcribe(str(manifest), verbose=False) == [answer.text for answer in expected]

    def test_dataloader_of_batches(self, salm, make_audio):
        conversations = [asked(make_audio(0.5)), asked(make_audio(0.9, 1))]
        loader = DataLoader(conversations, batch_size=1, collate_fn=ConversationDataset(salm.builder).collate)
        assert salm.transcribe(loader, verbose=False) == [answer.text for answer in salm.generate(conversations)]

    def test_nemos_config_objects(self, salm, audio_file):
        path = audio_file()
        expected = salm.transcribe(path, verbose=False)
        config = salm.get_transcribe_config()
        assert isinstance(config, TranscribeConfig)
        config.batch_size, config.max_new_tokens = 1, 2
        assert salm.transcribe([path], override_config=config) != expected
        assert salm.transcribe([path], override_config=TranscribeConfig(verbose=False)) == expected

    def test_missing_and_unreadable_files_are_named(self, salm, tmp_path):
        with pytest.raises(FileNotFoundError, match="gone.wav"):
            salm.transcribe(str(tmp_path / "gone.wav"), verbose=False)
        (tmp_path / "noise.wav").write_bytes(b"this is no audio")
        with pytest.raises(AudioError, match="noise.wav"):
            salm.transcribe(str(tmp_path / "noise.wav"), verbose=False)
        with pytest.raises(ValueError, match="no audio"):
            salm.transcribe([], verbose=False)

    def test_a_part_beyond_the_end_is_named(self, salm, audio_file, tmp_path):
        manifest = tmp_path / "in.jsonl"
        manifest.write_text(json.dumps({"audio_filepath": audio_file(1.0).name, "offset": 5.0, "duration": 1.0}))
        with pytest.raises(AudioError, match="a.wav"):
            salm.transcribe(str(manifest), verbose=False)

    def test_telephone_audio_is_resampled(self, salm, audio_file):
        path = audio_file(1.0, rate=8000)
        batch = collate(salm, salm._conversations_of([path], salm.get_transcribe_config()))
        assert batch.audio_lengths.tolist() == [16000]
        assert len(salm.transcribe(path, verbose=False)) == 1

    def test_stereo_needs_a_channel(self, salm, audio_file):
        path = audio_file(channels=2)
        with pytest.raises(AudioError, match="a.wav.*channel_selector"):
            salm.transcribe(path, verbose=False)
        left, right = soundfile.read(path, dtype="float32")[0].T
        for selector, samples in ((0, left), (1, right), ("average", (left + right) / 2)):
            expected = salm.transcribe(np.ascontiguousarray(samples), verbose=False)
            assert salm.transcribe(path, channel_selector=selector, verbose=False) == expected

    def test_long_audio_and_silence(self, salm, make_audio):
        long, silence = make_audio(33.0), np.zeros(8000, dtype=np.float32)
        _, lengths = salm.perception(torch.from_numpy(long)[None], torch.tensor([len(long)])).embeddings
        assert lengths.item() == -(-33 * 50 // 4)
        assert len(salm.transcribe([long, silence], verbose=False)) == 2

    def test_what_it_cannot_do_is_refused(self, salm, audio_file):
        with pytest.raises(ValueError, match="timestamps"):
            salm.transcribe(audio_file(), timestamps=True)


class TestShippedCheckpoints:
    @pytest.fixture
    def shipped(self, salm, tmp_path, monkeypatch):
        monkeypatch.setattr(shipped, "CHECKPOINT_FOLDER", tmp_path / "shipped")
        salm.save_to(tmp_path / "shipped/salm_x.nemo")
        (tmp_path / "shipped/desta2_y.nemo").touch()

    def test_list_and_load(self, shipped, salm, make_audio):
        assert [info.pretrained_model_name for info in SALM.list_available_models()] == ["salm_x"]
        assert list(shipped_models()) == ["desta2_y", "salm_x"], "those of the base class are all there are"
        restored = SALM.from_pretrained("salm_x")
        samples = make_audio(1.0)
        assert restored.transcribe(samples, verbose=False) == salm.transcribe(samples, verbose=False)

    def test_an_unknown_name_is_an_error_that_lists_the_known(self, shipped):
        with pytest.raises(CheckpointError, match=r"salm_z.*salm_x"):
            SALM.from_pretrained("salm_z")

    def test_training_starts_from_one(self, shipped, salm, make_salm):
        model = make_salm()
        assert not _equal(model, salm)
        model.maybe_init_from_pretrained_checkpoint(OmegaConf.create({"init_from_pretrained_model": "salm_x"}))
        assert _equal(model, salm)


def _equal(one: SALM, other: SALM) -> bool:
    states = one.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(torch.equal(v, states[1][k]) for k, v in states[0].items())


def test_a_long_recording_is_transcribed_in_pieces(salm, make_audio):
    salm.cfg.generation.max_audio_seconds = 2.0
    samples = torch.from_numpy(make_audio(5.0))
    pieces = split_at_pauses(samples, 2.0)
    assert len(pieces) > 2
    alone = salm.transcribe([piece.numpy() for piece in pieces], verbose=False)
    assert salm.transcribe(samples.numpy(), verbose=False) == [" ".join(text for text in alone if text)]
    asked = salm.transcribe(samples.numpy(), instruction="What is it about?", return_hypotheses=True, verbose=False)
    assert len(asked[0].y_sequence) <= salm.cfg.generation.max_new_tokens

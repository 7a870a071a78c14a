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
"""CTC-prompted LLM: stage 1's encoder and head inside stage 2, stacking, masking, both decoders, a checkpoint of its
own."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from nemo.collections.asr.models import EncDecCTCModel, EncDecCTCModelBPE
from omegaconf import OmegaConf

from nemo_speechllm.checkpointing.errors import CheckpointError
from nemo_speechllm.data.conversation import Audio, Conversation, Turn
from nemo_speechllm.data.dataset import ConversationBatch
from nemo_speechllm.decoding.rescoring import N_HYPOTHESES, ctc_hypotheses
from nemo_speechllm.models import SALM, CTCPromptedLLM
from nemo_speechllm.modules.segments import IGNORE_INDEX
from tests.questions import collate

DURATIONS = (1.0, 0.31, 2.4, 0.7, 1.77)

RESTORE = """
import sys, soundfile
from nemo_speechllm.models import load_model
model = load_model(sys.argv[1])
samples = [soundfile.read(path, dtype="float32")[0] for path in sys.argv[2:]]
for decoder in ("llm", "ctc"):
    print("ANSWERS", model.transcribe(samples, decoder=decoder, verbose=False))
"""


BY_CTC = {"max_new_tokens": 4, "beam_size": 1, "decoder": "ctc"}


def asked(samples, answer=None, name="test") -> Conversation:
    turns = [Turn("user", [Audio(torch.as_tensor(samples)), ""])]
    turns += [Turn("assistant", [answer])] if answer is not None else []
    return Conversation(name, turns, {"text": answer, "lang": "en", "task": "asr"})


@pytest.fixture
def samples(make_audio) -> list:
    return [make_audio(seconds, seed=i) for i, seconds in enumerate(DURATIONS)]


class TestPrompt:
    def test_it_is_the_audio_the_answer_and_its_end(self, make_ctc_prompted, make_audio):
        model = make_ctc_prompted()
        batch = collate(model, [asked(make_audio(1.0), "thank you")])
        assert model.builder.question(Audio(torch.zeros(9)), {}, "x").instruction == ""
        perceived = model.perceive(batch)
        embeddings, lengths = perceived.embeddings
        inputs = model.prepare_inputs(batch, perceived)
        learned = inputs.labels[0] != IGNORE_INDEX
        assert model.tokenizer.decode(inputs.labels[0][learned]) == "thank you" + model.tokenizer.eos_token
        assert learned.tolist() == [False] * int(lengths[0]) + [True] * int(learned.sum())
        assert torch.equal(inputs.embeddings[0, : lengths[0]], embeddings[0, : lengths[0]])

    def test_a_language_may_follow_the_audio(self, make_ctc_prompted, make_audio):
        model = make_ctc_prompted(prompt={"instructions": {"asr": "{lang}: "}})
        audio = Audio(torch.as_tensor(make_audio(0.5)))
        segments = model.prompt.segments(model.builder.conversation(audio, {"lang": "fr"}, "x"))
        assert model.tokenizer.decode(segments[1].ids) == "fr: "

    @pytest.mark.parametrize("stack, seconds", [(1, 0.08), (3, 0.24), (12, 0.96)])
    def test_stacking_gives_the_paper_s_strides(self, make_ctc_prompted, make_audio, stack, seconds):
        model = make_ctc_prompted(perception={"stack": stack})
        assert model.perception.frame_shift == pytest.approx(seconds)
        audio = torch.as_tensor(make_audio(2.0))[None]
        _, lengths = model.perception(audio, torch.tensor([32000])).embeddings
        assert lengths.item() == -(-25 // stack)


class TestTraining:
    def test_answer_losses_are_those_of_training_one_by_one(self, make_ctc_prompted, samples):
        model = make_ctc_prompted()
        conversations = [
            asked(audio, text) for audio, text in zip(samples, ("Thank you.", "Hold on.", "Bye."), strict=False)
        ]
        losses = model.answer_losses(conversations)
        assert losses == [float(model.loss(collate(model, [item]))["lm_loss"]) for item in conversations]
        assert losses[::-1] == model.answer_losses(conversations[::-1]) and not model.training
        aligned = make_ctc_prompted(lora=None, loss={"lm_weight": 0.0, "ctc_weight": 1.0})
        with pytest.raises(ValueError, match="trained by CTC alone.*its decoder has no loss"):
            aligned.answer_losses(conversations)

    def test_without_rank_no_parameter_of_the_llm_trains(self, make_ctc_prompted):
        for lora in (None, {"r": 0}):
            model = make_ctc_prompted(lora=lora)
            trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
            assert trained and all(name.startswith("perception.projection.") for name in trained)
            assert not any(".lora_" in name for name, _ in model.named_parameters())

    @pytest.mark.parametrize("rank", [8, 32])
    def test_lora_is_on_the_attention_alone(self, make_ctc_prompted, rank):
        model = make_ctc_prompted(lora={"r": rank})
        adapted = {
            name.split(".lora_")[0].rsplit(".", 1)[1] for name, _ in model.named_parameters() if "lora_" in name
        }
        assert adapted == {"q_proj", "k_proj", "v_proj", "o_proj"}

    def test_losses_are_those_the_recipe_weighs(self, make_ctc_prompted, samples):
        weights = {"lm_weight": 1.0, "ctc_weight": 0.25, "encoder_ctc_weight": 0.5}
        model = make_ctc_prompted(loss=weights, freeze_params=["^llm\\.(?!.*lora_)"], perception={"state_mask": None})
        batch = collate(model, [asked(audio, "Thank you.") for audio in samples[2:]])
        losses = model.loss(batch)
        parts = {name.replace("_weight", "_loss"): weight for name, weight in weights.items()}
        assert set(losses) == {"loss", *parts}
        torch.testing.assert_close(losses["loss"], sum(weight * losses[name] for name, weight in parts.items()))
        losses["encoder_ctc_loss"].backward()
        trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
        assert any(n.startswith("perception.encoder.") for n in trained) and any(
            n.startswith("ctc_head.") for n in trained
        )
        assert not any(name.startswith(("llm.", "perception.projection.")) for name in trained)

    def test_audio_in_which_nothing_is_heard_is_still_a_prompt(self, make_ctc_prompted, samples):
        model = make_ctc_prompted(ctc_compression=True, loss={"ctc_weight": 0.5}, perception={"state_mask": None})
        model.alignment.seen.zero_()  # CTC has met no token, so it hears none
        conversations = [asked(audio, "Thank you.") for audio in samples[:2]]
        losses = model.answer_losses(conversations)
        assert all(0 < loss < 50 for loss in losses)
        answers = model.generate(conversations)
        assert answers == model.generate(conversations[:1]) + model.generate(conversations[1:])

    def test_what_begins_with_its_answer_has_a_loss_for_all_but_the_first_token(self, make_ctc_prompted):
        model = make_ctc_prompted()
        text = [Conversation("x", [Turn("user", [""]), Turn("assistant", ["Thank you."])], {})]
        (loss,) = model.answer_losses(text)
        ids = torch.tensor(model.tokenizer("Thank you.").input_ids + [model.prompt.end_token_id])
        with torch.no_grad():
            logits = model.llm(input_ids=ids[None]).logits[0, :-1]
        assert loss == pytest.approx(float(torch.nn.functional.cross_entropy(logits, ids[1:])), rel=1e-4)

    def test_an_aligned_encoder_initialises_any_stride_and_the_projection_its_own(self, make_ctc_prompted):
        frames, same, stacks = make_ctc_prompted(), make_ctc_prompted(), make_ctc_prompted(perception={"stack": 3})
        with torch.no_grad():
            for parameter in frames.perception.parameters():
                parameter.add_(1.0)
        before = {name: tensor.clone() for name, tensor in stacks.perception.projection.state_dict().items()}
        for model in (same, stacks):
            model.load_state_dict(frames.state_dict(), strict=False)
            for name, tensor in frames.perception.encoder.state_dict().items():
                assert torch.equal(model.perception.encoder.state_dict()[name], tensor)
        for name, tensor in frames.perception.projection.state_dict().items():
            assert torch.equal(same.perception.projection.state_dict()[name], tensor)
            assert torch.equal(stacks.perception.projection.state_dict()[name], before[name])
        with pytest.raises(CheckpointError, match="perception.projection.linear.weight"):
            stacks.load_state_dict(frames.state_dict())

    def test_alignment_reads_stage_1_s_pieces_as_the_llm_embeds_their_text(self, make_ctc_prompted, samples):
        model = make_ctc_prompted(loss={"lm_weight": 0.0, "ctc_weight": 1.0}, lora=None)
        pieces = model.ctc.tokenizer.ids_to_tokens(list(range(model.ctc.blank)))
        table, llm = model._piece_embeddings(), model.llm.get_input_embeddings().weight
        for piece, row in zip(pieces, table, strict=False):
            ids = model.tokenizer(piece.replace("▁", " "), add_special_tokens=False).input_ids
            torch.testing.assert_close(row, llm[ids].mean(0))
        batch = collate(model, [asked(samples[2], "Thank you.")])
        (target,) = map(torch.tensor, model.ctc.ids(["Thank you."]))
        model.alignment.seen.fill_(True)
        audio, lengths = model.perceive(batch).frames
        log_probs = model.alignment.log_probs(audio)
        expected = torch.nn.functional.ctc_loss(
            log_probs.transpose(0, 1), target[None] + 1, lengths, torch.tensor([len(target)]), reduction="sum"
        )
        torch.testing.assert_close(model.loss(batch)["ctc_loss"], expected / len(target))

    def test_alignment_has_a_position_per_frame_at_any_stride(self, make_ctc_prompted, samples):
        model = make_ctc_prompted(
            loss={"lm_weight": 0.0, "ctc_weight": 1.0}, perception={"stack": 12, "state_mask": None}
        )
        batch = collate(model, [asked(samples[2], "Thank you for calling.")])
        perceived = model.perceive(batch)
        tokens = len(model.tokenizer("Thank you for calling.").input_ids)
        assert int(perceived.embeddings[1]) < tokens < int(perceived.frames[1])
        model.loss(batch)["loss"].backward()
        places = model.perception.projection.linear.weight.grad.unflatten(1, (12, -1))
        assert places.abs().amax((0, 2)).min() > 0  # of every frame of a stack

    def test_encoder_loss_is_that_of_stage_1(self, make_ctc_prompted, ctc_prompted_config, samples):
        model = make_ctc_prompted(loss={"encoder_ctc_weight": 1.0})
        texts = ["Thank you.", "Press one.", "Merci."]
        batch = collate(model, [asked(audio, text) for audio, text in zip(samples[2:], texts, strict=False)])
        stage1 = EncDecCTCModelBPE.restore_from(ctc_prompted_config.perception.encoder.pretrained).eval()
        ids = [torch.tensor(stage1.tokenizer.text_to_ids(text)) for text in texts]
        log_probs, lengths, _ = stage1(input_signal=batch.audio, input_signal_length=batch.audio_lengths)
        expected = stage1.loss(
            log_probs=log_probs,
            targets=torch.nn.utils.rnn.pad_sequence(ids, batch_first=True),
            input_lengths=lengths,
            target_lengths=torch.tensor([len(row) for row in ids]),
        )
        torch.testing.assert_close(model.loss(batch)["encoder_ctc_loss"], expected)

    def test_text_alone_has_no_encoder_loss(self, make_ctc_prompted):
        model = make_ctc_prompted(loss={"encoder_ctc_weight": 1.0})
        turns = [Turn("user", ["Hello."]), Turn("assistant", ["Hi."])]
        assert "encoder_ctc_loss" not in model.loss(collate(model, [Conversation("text", turns)]))

    def test_cached_states_give_the_same_losses_and_transcripts(self, make_ctc_prompted, samples, tmp_path):
        model = make_ctc_prompted(loss={"encoder_ctc_weight": 1.0})
        batch = collate(model, [asked(audio, "Thank you.") for audio in samples[2:]])
        losses, read = model.loss(batch), model.answering.answer_batch(batch, **BY_CTC)
        model.perception.cache_states(str(tmp_path / "states"))
        for _ in range(2):  # stored, then read
            cached = model.loss(batch)
            assert cached["encoder_ctc_loss"].item() == pytest.approx(losses["encoder_ctc_loss"].item(), rel=1e-2)
            assert [a.text for a in model.answering.answer_batch(batch, **BY_CTC)] == [a.text for a in read]
        assert len(list((tmp_path / "states").rglob("*.safetensors"))) == 3


class TestTextMask:
    @staticmethod
    def inputs(model, name="a"):
        conversation = asked(torch.zeros(16000), "please hold the line for one moment", name)
        batch = collate(model, [conversation])
        return model.prepare_inputs(batch, model.perceive(batch))

    def test_only_training_reads_masks_and_labels_stay(self, make_ctc_prompted):
        model = make_ctc_prompted(text_mask={"fraction": 0.5, "seed": 3})
        plain = self.inputs(model)
        model.train()
        masked = self.inputs(model)
        assert torch.equal(plain.labels, masked.labels)
        answer = (plain.labels != IGNORE_INDEX)[0]
        differs = (plain.embeddings != masked.embeddings).any(-1)[0]
        unknown = model.llm.get_input_embeddings().weight[model.tokenizer.unk_token_id]
        assert differs[answer].any() and not differs[answer].all()
        assert (masked.embeddings[0, differs & answer] == unknown).all()

    def test_the_draw_depends_on_seed_epoch_and_sample_only(self, make_ctc_prompted, monkeypatch):
        def masked(seed: int, epoch: int, name: str) -> torch.Tensor:
            model = make_ctc_prompted(text_mask={"fraction": 0.5, "seed": seed}, perception={"state_mask": None})
            monkeypatch.setattr(CTCPromptedLLM, "current_epoch", epoch)
            return self.inputs(model.train(), name).embeddings[0, -9:]

        first = masked(0, 0, "a")
        assert torch.equal(masked(0, 0, "a"), first)
        assert not any(torch.equal(masked(*other), first) for other in ((1, 0, "a"), (0, 1, "a"), (0, 0, "b")))

    def test_a_mask_token_that_does_not_exist_is_an_error(self, make_ctc_prompted):
        with pytest.raises(ValueError, match="text_mask.token is <mask>"):
            make_ctc_prompted(text_mask={"fraction": 0.5, "token": "<mask>"})


class TestAnswers:
    @pytest.mark.parametrize("decoder, ctc_weight", [("llm", 0.0), ("ctc", 0.0), ("llm", 0.5)])
    def test_alone_in_a_batch_and_over_padded_are_identical(self, make_ctc_prompted, samples, decoder, ctc_weight):
        model = make_ctc_prompted(perception={"stack": 3}, generation={"ctc_weight": ctc_weight})
        conversations = [asked(audio) for audio in samples]
        options = {"max_new_tokens": 8, "beam_size": 1, "decoder": decoder}
        alone = [answer.ids for answer in model.generate(conversations, batch_size=1, **options)]
        together = [answer.ids for answer in model.generate(conversations, batch_size=8, **options)]
        batch = collate(model, conversations)
        audio = torch.nn.functional.pad(batch.audio, (0, 40000))
        padded = ConversationBatch(conversations, audio, batch.audio_lengths)
        assert len({tuple(ids) for ids in alone}) > 3
        assert together == alone
        assert [answer.ids for answer in model.answering.answer_batch(padded, **options)] == alone

    def test_ctc_is_what_nemo_s_own_model_transcribes(self, make_ctc_prompted, ctc_prompted_config, samples):
        samples = [samples[i] for i in (0, 2, 4)]  # NeMo pads what is shorter than a second
        stage1 = EncDecCTCModelBPE.restore_from(ctc_prompted_config.perception.encoder.pretrained).eval()
        expected = [hypothesis.text.strip() for hypothesis in stage1.transcribe(samples, batch_size=1, verbose=False)]
        model = make_ctc_prompted()
        assert model.transcribe(samples, decoder="ctc", verbose=False) == expected
        read = model.transcribe(samples, decoder="ctc", return_hypotheses=True, verbose=False)
        decode = stage1.decoding.decode_tokens_to_str_with_strip_punctuation
        assert [decode(hypothesis.y_sequence.tolist()).strip() for hypothesis in read] == expected
        assert any(expected)

    @pytest.mark.parametrize("weight", [1e-4, 0.5, 1.0])
    def test_the_llm_chooses_among_what_ctc_may_have_heard(self, make_ctc_prompted, samples, weight):
        model = make_ctc_prompted(generation={"ctc_weight": weight})
        conversation = asked(samples[2])
        (answer,) = model.generate([conversation], max_new_tokens=128)
        model.cfg.generation.ctc_weight = 0.0
        (own,) = model.generate([conversation], max_new_tokens=128)
        perceived = model.perceive(collate(model, [conversation]))
        frames = model.ctc_log_probs(perceived)[0, : int(model.ctc_states(perceived)[1])]
        heard = ctc_hypotheses(model.ctc, frames, N_HYPOTHESES, own.text)
        per_token = model.answer_losses([conversation.with_answer(item.text) for item in heard])
        ends = [len(model.tokenizer(item.text).input_ids) + 1 for item in heard]
        scores = [
            weight * item.log_prob - (1 - weight) * loss * length
            for item, loss, length in zip(heard, per_token, ends, strict=True)
        ]
        assert len(heard) >= N_HYPOTHESES and answer.text == heard[int(torch.tensor(scores).argmax())].text
        assert answer.ids == model.tokenizer(answer.text).input_ids and not answer.truncated
        model.cfg.generation.ctc_weight = weight
        (cut,) = model.generate([conversation], max_new_tokens=2)
        assert cut.truncated and len(cut.ids) == 2

    def test_the_recipe_chooses_the_decoder(self, make_ctc_prompted, samples):
        model = make_ctc_prompted(generation={"decoder": "ctc"})
        by_recipe = model.transcribe(samples, verbose=False)
        assert by_recipe == model.transcribe(samples, decoder="ctc", verbose=False)
        assert by_recipe != model.transcribe(samples, decoder="llm", verbose=False)

    def test_what_cannot_be_decoded_is_refused(self, make_ctc_prompted, samples):
        model = make_ctc_prompted()
        with pytest.raises(ValueError, match="decoder is 'rnnt'; known are"):
            model.transcribe(samples, decoder="rnnt", verbose=False)
        with pytest.raises(ValueError, match="have none.*greeting"):
            model.generate([Conversation("greeting", [Turn("user", ["Hello."])])], decoder="ctc")


def test_decoder_ctc_of_a_model_without_a_head_is_an_error(make_salm, samples):
    model = make_salm(loss={"ctc_weight": 0.0}, ctc_compression=False, generation={"ctc_weight": 0.0})
    with pytest.raises(ValueError, match="SALM was trained without CTC.*use decoder=llm"):
        model.transcribe(samples[0], decoder="ctc", verbose=False)


def test_decoder_ctc_of_a_salm_reads_the_llm_s_tokens(make_salm, samples):
    model: SALM = make_salm(loss={"ctc_weight": 1.0})
    model.train().loss(collate(model, [asked(audio, "thank you") for audio in samples]))  # tokens are met in training
    model.eval()
    batch = collate(model, [asked(audio) for audio in samples])
    perceived = model.perceive(batch)
    read = model.ctc.greedy(model.ctc_log_probs(perceived), perceived.frames[1])
    answers = model.answering.generate(batch, perceived, max_new_tokens=8, beam_size=1, decoder="ctc")
    assert [(answer.ids, answer.text) for answer in answers] == [(item.ids, item.text) for item in read]
    assert any(item.ids for item in read)


class TestCheckpoint:
    @pytest.mark.slow
    def test_restores_bit_equal_elsewhere_without_stage_1(
        self, make_ctc_prompted, ctc_prompted_config, samples, make_manifest
    ):
        model = make_ctc_prompted()
        stage1 = Path(ctc_prompted_config.perception.encoder.pretrained)
        manifest = make_manifest(DURATIONS[:2])
        audio = [str(path) for path in sorted(manifest.parent.glob("*.flac"))]
        expected = [model.transcribe(audio, decoder=decoder, verbose=False) for decoder in ("llm", "ctc")]
        path = stage1.with_name("stage2.nemo")
        model.save_to(path)
        stage1.unlink()

        done = subprocess.run([sys.executable, "-c", RESTORE, path, *audio], capture_output=True, text=True)
        assert [line for line in done.stdout.splitlines() if line.startswith("ANSWERS")] == [
            f"ANSWERS {answers}" for answers in expected
        ], done.stderr

        once = CTCPromptedLLM.restore_from(path)
        once.save_to(path.with_name("again.nemo"))
        path.unlink()
        twice = CTCPromptedLLM.restore_from(path.with_name("again.nemo"))
        for other in (once, twice):
            whole = torch.nn.Module.state_dict(model), torch.nn.Module.state_dict(other)
            assert whole[0].keys() == whole[1].keys()
            assert all(torch.equal(value, whole[1][name]) for name, value in whole[0].items())
        assert not twice.train().perception.encoder.training  # frozen, whether it was embedded or referred to

    def test_by_reference_only_the_encoder_is_left_out(self, make_ctc_prompted):
        model = make_ctc_prompted(perception={"encoder": {"embed": False}})
        names = set(model.state_dict())
        assert not any(name.startswith("perception.encoder.") for name in names)
        assert "ctc_head.decoder.decoder_layers.0.weight" in names

    def test_an_encoder_of_another_kind_is_an_error(self, fastconformer_config, ctc_prompted_config, tmp_path):
        labels = list("abc ")
        decoder = {
            "_target_": "nemo.collections.asr.modules.ConvASRDecoder",
            "feat_in": 32,
            "num_classes": len(labels),
            "vocabulary": labels,
        }
        of_characters = EncDecCTCModel(OmegaConf.create(fastconformer_config | {"decoder": decoder}))
        of_characters.save_to(str(tmp_path / "characters.nemo"))
        encoder = {"perception": {"encoder": {"pretrained": str(tmp_path / "characters.nemo")}}}
        with pytest.raises(ValueError, match="holds a EncDecCTCModel, not an EncDecCTCModelBPE.*stage1_ctc"):
            CTCPromptedLLM(OmegaConf.merge(ctc_prompted_config, encoder))

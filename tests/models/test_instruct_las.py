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

"""InstructLAS: what it reads and learns, what it answers, and what its checkpoint holds."""

import os
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from omegaconf import OmegaConf

from nemo_speechllm.checkpointing.errors import CheckpointError
from nemo_speechllm.data.conversation import Audio, Conversation, Turn
from nemo_speechllm.data.dataset import ConversationBatch
from nemo_speechllm.models import InstructLAS, instruct_las, load_model
from nemo_speechllm.prompts.segments import ContextError
from tests.questions import collate

ROOT = Path(__file__).parents[2]
DURATIONS = (1.0, 0.31, 2.4, 0.7, 1.77)
INSTRUCTIONS = (
    "Transcribe the speech.",
    "",
    "Repeat the last word of this recording, please.",
    "Hold",
    "Hold the line.",
)

RESTORE = """
import sys, soundfile
from nemo_speechllm.models import load_model
model = load_model(sys.argv[1])
samples = [soundfile.read(path, dtype="float32")[0] for path in sys.argv[2:]]
for decoder in ("llm", "ctc"):
    print("ANSWERS", model.transcribe(samples, decoder=decoder, verbose=False))
"""


def asked(samples, instruction="Transcribe the speech.", answer=None, text=None) -> Conversation:
    turns = [Turn("user", [Audio(torch.as_tensor(samples)), instruction])]
    turns += [Turn("assistant", [answer])] if answer is not None else []
    return Conversation("test", turns, {"text": text or answer, "lang": "en"})


@pytest.fixture
def conversations(make_audio) -> list[Conversation]:
    """Five audios of different length with five instructions of different length."""
    return [
        asked(make_audio(s, seed=i), text) for i, (s, text) in enumerate(zip(DURATIONS, INSTRUCTIONS, strict=False))
    ]


class TestPrompt:
    def test_it_is_instruction_and_answer_and_the_answer_is_learned(self, make_instruct_las, make_audio):
        model = make_instruct_las()
        items = [
            asked(make_audio(1.0), "Repeat the last word.", "LINE", "Please hold the line."),
            asked(make_audio(0.5), "", "Thank you."),
            asked(make_audio(0.5), "Hold", ""),
        ]
        text = model._text(items)
        pieces = [
            [model.tokenizer.ids_to_tokens([i])[0] for i in row[mask > 0]]
            for row, mask in zip(*text_of(text), strict=False)
        ]
        parts = [(row.index("[EOT]"), row) for row in pieces]
        decode = model.tokenizer.tokenizer.decode_pieces
        assert [(decode(row[:at]), decode(row[at + 1 : -1]), row[-1]) for at, row in parts] == [
            ("Repeat the last word.", "LINE", "</s>"),
            ("", "Thank you.", "</s>"),
            ("Hold", "", "</s>"),
        ]
        learned = [row[mask > 0].tolist() for row, mask in zip(text.learned, text.attention_mask, strict=False)]
        assert learned == [[False] * (at + 1) + [True] * (len(row) - at - 1) for at, row in parts]

    def test_a_text_that_memory_would_not_hold_is_named(self, make_instruct_las, make_audio):
        model = make_instruct_las()
        item = asked(make_audio(0.5), "", "hold the line " * 3000)
        item.metadata["manifest_line"] = "train.jsonl:3"
        with pytest.raises(ContextError, match="train.jsonl:3: .* tokens of text .* more than the 4096"):
            model.loss(collate(model, [item]))

    def test_what_it_was_not_made_for_is_refused(self, make_instruct_las, make_audio):
        model, audio = make_instruct_las(), Audio(torch.as_tensor(make_audio(0.5)))
        exchange = [Turn("user", [audio, "One."]), Turn("assistant", ["1"]), Turn("user", ["Two."])]
        with pytest.raises(ValueError, match="about one audio, this conversation has 0"):
            model.generate([Conversation("hello", [Turn("user", ["Hello."])])])
        with pytest.raises(ValueError, match="about one audio, this conversation has 2"):
            model.generate([Conversation("both", [Turn("user", [audio, audio, "Same?"])])])
        with pytest.raises(ValueError, match="two: a training example is one instruction and one answer"):
            model.prompt.segments(Conversation("two", [*exchange, Turn("assistant", ["2"])]))
        asked_again = model.prompt.segments(Conversation("two", exchange))
        assert asked_again == model.prompt.segments(asked(make_audio(0.5), "Two."))


def text_of(text):
    return text.ids, text.attention_mask


class TestTraining:
    def test_losses_are_those_the_recipe_weighs(self, make_instruct_las, make_audio):
        model = make_instruct_las()
        answers = [("Repeat the last word.", "line", "Please hold the line."), ("", "Thank you.", "Thank you.")]
        batch = collate(model, [asked(make_audio(2.0, seed=i), *item) for i, item in enumerate(answers)])
        losses = model.loss(batch)
        assert set(losses) == {"loss", "lm_loss", "encoder_ctc_loss"}
        torch.testing.assert_close(losses["loss"], 0.7 * losses["lm_loss"] + 0.3 * losses["encoder_ctc_loss"])
        plain = make_instruct_las(loss={"encoder_ctc_weight": 0.0, "lm_weight": 1.0})
        assert plain.ctc is None and set(plain.loss(batch)) == {"loss", "lm_loss"}

    def test_without_a_weight_the_decoder_is_not_run_and_ctc_answers(self, make_instruct_las, make_audio, monkeypatch):
        model = make_instruct_las(loss={"lm_weight": 0.0, "encoder_ctc_weight": 1.0}, generation={"decoder": None})
        monkeypatch.setattr(model.text_decoder, "forward", None)
        items = [asked(make_audio(2.0), "Hold", "Thank you.")]
        losses = model.loss(collate(model, items))
        assert set(losses) == {"loss", "encoder_ctc_loss"}
        torch.testing.assert_close(losses["loss"], losses["encoder_ctc_loss"])
        assert model.generate(items) == model.generate(items, decoder="ctc")

    def test_ctc_learns_what_is_said_whatever_the_answer(self, make_instruct_las, make_audio):
        model = make_instruct_las()
        text = "Please hold the line."
        batches = [
            collate(model, [asked(make_audio(2.0), "Repeat it.", answer, text)]) for answer in ("LINE", "", text)
        ]
        losses = [model.loss(batch) for batch in batches]
        assert len({float(item["encoder_ctc_loss"]) for item in losses}) == 1
        assert len({float(item["lm_loss"]) for item in losses}) == 3

    def test_texts_read_beside_those_of_their_length_have_the_loss_of_all(
        self, make_instruct_las, make_audio, monkeypatch
    ):
        model = make_instruct_las()
        texts = [("Hold", "Thank you."), ("", "Please hold the line."), ("Repeat the last word.", ""), ("", "Thank")]
        batch = collate(model, [asked(make_audio(1.0, seed=i), *text, "Hold.") for i, text in enumerate(texts)])
        perceived = model.perceive(batch)
        whole = model.lm_loss(batch, perceived)
        monkeypatch.setattr("nemo_speechllm.models.instruct_las.TEXTS_AT_ONCE", 2)
        parts = model.lm_loss(batch, perceived)
        torch.testing.assert_close(parts.value, whole.value)
        torch.testing.assert_close(parts.of_answers, whole.of_answers)

    def test_only_training_has_dropout_masks_and_smoothed_labels(self, make_instruct_las, make_audio):
        model = make_instruct_las()
        batch = collate(model, [asked(make_audio(2.0), "", "Thank you.")])
        assert model.loss(batch)["lm_loss"] == model.loss(batch)["lm_loss"]
        model.train()
        assert model.loss(batch)["lm_loss"] != model.loss(batch)["lm_loss"]

    def test_it_learns_to_answer_two_instructions_about_two_audios(self, make_instruct_las, make_audio):
        encoder = {"spec_augment": None, "config": {"encoder": NO_DROPOUT}}
        model = make_instruct_las(perception={"encoder": encoder}, decoder={"dropout": 0.0})
        with torch.no_grad():
            for parameter in model.text_decoder.parameters():
                parameter.div_(1.7)
        texts = ("Press one for support.", "Merci de patienter.")
        items = [
            asked(make_audio(1.5 + i, seed=i), instruction, change(text), text)
            for i, text in enumerate(texts)
            for instruction, change in (("Transcribe the speech.", str), ("Repeat the last word.", last_word))
        ]
        batch = collate(model, items)
        optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
        model.train()
        for _ in range(80):
            optimizer.zero_grad()
            model.loss(batch)["loss"].backward()
            optimizer.step()
        answers = [answer.text for answer in model.eval().generate(items, max_new_tokens=40)]
        assert answers == [texts[0], "support.", texts[1], "patienter."]


NO_DROPOUT = {"dropout": 0.0, "dropout_pre_encoder": 0.0, "dropout_att": 0.0}


def last_word(text: str) -> str:
    return text.split()[-1]


class TestAnswers:
    @pytest.mark.parametrize("options", [{}, {"beam_size": 3}, {"decoder": "ctc"}], ids=["greedy", "beam", "ctc"])
    @pytest.mark.parametrize("ctc_compression", [False, True], ids=["frames", "tokens"])
    def test_alone_in_a_batch_and_over_padded_are_identical(
        self, make_instruct_las, conversations, options, ctc_compression
    ):
        model = make_instruct_las(ctc_compression=ctc_compression)
        alone = [answer.ids for answer in model.generate(conversations, batch_size=1, **options)]
        together = [answer.ids for answer in model.generate(conversations, batch_size=8, **options)]
        batch = collate(model, conversations)
        audio = torch.nn.functional.pad(batch.audio, (0, 40000))
        padded = ConversationBatch(conversations, audio, batch.audio_lengths)
        options = {"max_new_tokens": 12, "beam_size": 1} | options
        assert len({tuple(ids) for ids in alone}) >= 3
        assert together == alone
        assert [answer.ids for answer in model.answering.answer_batch(padded, **options)] == alone

    def test_the_answer_depends_on_the_instruction_and_what_is_heard_by_ctc_does_not(
        self, make_instruct_las, make_audio
    ):
        model = make_instruct_las()
        items = [asked(make_audio(2.0), instruction) for instruction in INSTRUCTIONS]
        assert len({answer.text for answer in model.generate(items)}) > 1
        assert len({answer.text for answer in model.generate(items, decoder="ctc")}) == 1

    def test_an_answer_in_the_conversation_is_not_read(self, make_instruct_las, make_audio):
        model, audio = make_instruct_las(), make_audio(2.0)
        answers = model.generate([asked(audio), asked(audio, answer="Thank you.")])
        assert answers[0] == answers[1] and answers[0].ids

    def test_transcribe_asks_the_recipe_s_instruction_or_another(self, make_instruct_las, make_audio):
        model, audio = make_instruct_las(), make_audio(2.0)
        by_instruction = {text: model.generate([asked(audio, text)])[0].text for text in INSTRUCTIONS}
        assert model.transcribe(audio, verbose=False) == [by_instruction["Transcribe the speech."]]
        assert model.transcribe(audio, instruction="Hold", verbose=False) == [by_instruction["Hold"]]
        plain = make_instruct_las(prompt={"instructions": {"asr": ""}})
        assert plain.transcribe(audio, verbose=False) == [by_instruction[""]]

    def test_a_model_that_learns_nothing_is_an_error(self, make_instruct_las):
        with pytest.raises(ValueError, match="both 0: there is nothing to learn"):
            make_instruct_las(loss={"encoder_ctc_weight": 0.0, "lm_weight": 0.0})

    def test_decoder_ctc_of_a_model_without_a_head_is_an_error(self, make_instruct_las, make_audio):
        model = make_instruct_las(loss={"encoder_ctc_weight": 0.0})
        with pytest.raises(ValueError, match="InstructLAS was trained without CTC.*use decoder=llm"):
            model.transcribe(make_audio(0.5), decoder="ctc", verbose=False)


class TestCompression:
    def test_the_decoder_attends_to_what_ctc_hears_and_one_place_more(self, make_instruct_las, conversations):
        model = make_instruct_las(ctc_compression=True)
        batch = collate(model, conversations)
        perceived = model.perceive(batch)
        attended, lengths = model._heard(perceived)
        read = [len(item.ids) for item in model.ctc.greedy(model.ctc_log_probs(perceived), perceived.encoded[1])]
        assert lengths.tolist() == [count + 1 for count in read]
        assert attended.shape[1] == max(read) + 1 and max(read) > min(read)

    def test_where_ctc_hears_nothing_there_is_an_answer_and_a_finite_gradient(self, make_instruct_las, make_audio):
        model = make_instruct_las(ctc_compression=True)
        with torch.no_grad():
            model.ctc_head.decoder.decoder_layers[0].bias[-1] = 1e4  # all blank
        items = [asked(make_audio(2.0, seed=i), "Hold", "Thank you.") for i in range(2)]
        losses = model.loss(collate(model, items))
        losses["lm_loss"].backward()
        assert losses["lm_loss"].isfinite()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
        assert [answer.ids for answer in model.generate(items)]

    def test_a_recording_shorter_than_a_frame_is_answered(self, make_instruct_las, make_audio):
        model = make_instruct_las(ctc_compression=True)
        short, other = asked(torch.zeros(40)), asked(make_audio(0.8), "Hold")
        alone = [model.generate([item])[0].ids for item in (short, other)]
        assert [answer.ids for answer in model.generate([short, other])] == alone

    @pytest.mark.parametrize(
        "changes", [{"loss": {"encoder_ctc_weight": 0.0}}, {"perception": {"stack": 2}}], ids=["no CTC", "stack"]
    )
    def test_without_ctc_of_the_same_frames_it_is_an_error(self, make_instruct_las, changes):
        with pytest.raises(ValueError, match="ctc_compression joins the frames.*encoder_ctc_weight"):
            make_instruct_las(ctc_compression=True, **changes)


class TestCheckpoint:
    @pytest.mark.slow
    def test_restores_bit_equal_elsewhere_without_the_tokenizer_s_folder(
        self, make_instruct_las, make_manifest, instruction_tokenizer_folder, tmp_path
    ):
        folder = tmp_path / "tokenizer"
        folder.mkdir()
        moved = folder / "tokenizer.model"
        moved.write_bytes((instruction_tokenizer_folder / "tokenizer.model").read_bytes())
        model = make_instruct_las(tokenizer={"dir": str(folder)})
        manifest = make_manifest(DURATIONS[:2])
        audio = [str(path) for path in sorted(manifest.parent.glob("*.flac"))]
        expected = [model.transcribe(audio, decoder=decoder, verbose=False) for decoder in ("llm", "ctc")]
        path = tmp_path / "las.nemo"
        model.save_to(path)
        moved.unlink()

        done = subprocess.run([sys.executable, "-c", RESTORE, path, *audio], capture_output=True, text=True)
        assert [line for line in done.stdout.splitlines() if line.startswith("ANSWERS")] == [
            f"ANSWERS {answers}" for answers in expected
        ], done.stderr

        once = InstructLAS.restore_from(path)
        once.save_to(tmp_path / "again.nemo")
        path.unlink()
        twice = load_model(tmp_path / "again.nemo")
        assert str(folder) not in OmegaConf.to_yaml(twice.cfg)
        for other in (once, twice):
            whole = torch.nn.Module.state_dict(model), torch.nn.Module.state_dict(other)
            assert whole[0].keys() == whole[1].keys()
            assert all(torch.equal(value, whole[1][name]) for name, value in whole[0].items())

    def test_an_encoder_may_come_from_a_nemo_checkpoint_and_is_saved_as_trained(
        self, make_instruct_las, make_fastconformer, conversations, tmp_path
    ):
        pretrained = make_fastconformer()
        model = make_instruct_las(perception={"encoder": {"pretrained": str(pretrained)}})
        expected = [answer.ids for answer in model.generate(conversations)]
        model.save_to(tmp_path / "las.nemo")
        pretrained.unlink()
        restored = InstructLAS.restore_from(tmp_path / "las.nemo")
        assert [answer.ids for answer in restored.generate(conversations)] == expected

    @pytest.mark.parametrize("vocab_size", [96, 110])
    def test_another_tokenizer_s_pieces_keep_their_weights(
        self, make_instruct_las, tokenizer_script, vocab_size, tmp_path
    ):
        start = make_instruct_las()
        start.save_to(tmp_path / "start.nemo")
        texts = ["turn on the kitchen light", "hold the line", "write the word", "Transcribe the speech."]
        tokenizer_script.train(texts, tmp_path / "tokenizer", vocab_size, instructions=True)
        model = make_instruct_las(tokenizer={"dir": str(tmp_path / "tokenizer")})
        fresh = {name: value.clone() for name, value in torch.nn.Module.state_dict(model).items()}
        model.maybe_init_from_pretrained_checkpoint(
            OmegaConf.create({"init_from_nemo_model": str(tmp_path / "start.nemo")})
        )

        now, theirs = torch.nn.Module.state_dict(model), torch.nn.Module.state_dict(start)
        names = [
            "text_decoder.shared.weight",
            "text_decoder.lm_head.weight",
            *(f"ctc_head.decoder.decoder_layers.0.{name}" for name in ("weight", "bias")),
        ]
        old, new = start.tokenizer.vocab, model.tokenizer.vocab
        assert {"[EOT]", "</s>", "a", "A"} <= set(old) & set(new) and set(new) - set(old) and set(old) - set(new)
        for name in names:
            for row, piece in enumerate(new):
                expected = theirs[name][old.index(piece)] if piece in old else fresh[name][row]
                assert torch.equal(now[name][row], expected), (name, piece)
        assert all(torch.equal(now[name][-1], theirs[name][-1]) for name in names[2:]), "the blank"
        assert torch.equal(
            now["perception.encoder.encoder.layers.0.conv.pointwise_conv1.weight"],
            theirs["perception.encoder.encoder.layers.0.conv.pointwise_conv1.weight"],
        )

    def test_a_decoder_of_another_width_is_named(self, make_instruct_las, tmp_path):
        make_instruct_las().save_to(tmp_path / "start.nemo")
        wider = make_instruct_las(decoder={"d_model": 64})
        with pytest.raises(
            CheckpointError, match=r"does not fit this InstructLAS: .*saved \(83, 48\), here \(83, 64\)"
        ):
            wider.maybe_init_from_pretrained_checkpoint(
                OmegaConf.create({"init_from_nemo_model": str(tmp_path / "start.nemo")})
            )

    def test_a_shipped_model_may_be_gone_on_from_by_its_name(
        self, make_instruct_las, conversations, monkeypatch, tmp_path
    ):
        start = make_instruct_las()
        start.save_to(tmp_path / "start.nemo")
        monkeypatch.setattr(instruct_las, "shipped_models", lambda: {"shipped": str(tmp_path / "start.nemo")})
        model = make_instruct_las(decoder={"dropout": 0.0})
        torch.nn.init.zeros_(model.text_decoder.shared.weight)
        model.maybe_init_from_pretrained_checkpoint(OmegaConf.create({"init_from_nemo_model": "shipped"}))
        expected = [answer.ids for answer in start.generate(conversations)]
        assert [answer.ids for answer in model.generate(conversations)] == expected

    def test_a_tokenizer_that_is_missing_or_of_another_kind_is_an_error(
        self, make_instruct_las, ctc_tokenizer_folder, tmp_path
    ):
        with pytest.raises(FileNotFoundError, match="tokenizer.model does not exist.*--instructions"):
            make_instruct_las(tokenizer={"dir": str(tmp_path)})
        with pytest.raises(ValueError, match=r"has no control symbol \[EOT\].*--instructions"):
            make_instruct_las(tokenizer={"dir": str(ctc_tokenizer_folder)})


def test_a_run_that_is_resumed_ends_with_the_weights_of_one_that_was_not(
    instruct_las_recipe, make_manifest, make_trainer, save_at, tmp_path
):
    data = {"manifest_filepath": str(make_manifest(name="speech.jsonl")), "num_workers": 0}
    train = data | {"use_bucketing": False, "batch_duration": 2.5}
    cfg = OmegaConf.merge(instruct_las_recipe.model, {"train_ds": train, "validation_ds": data})

    def fit(resume: Path | None, *callbacks) -> tuple[InstructLAS, pl.Trainer]:
        pl.seed_everything(0)
        trainer = make_trainer(
            max_steps=4, val_check_interval=2, check_val_every_n_epoch=None, callbacks=list(callbacks)
        )
        model = InstructLAS(OmegaConf.create({"model": cfg}).model, trainer)
        trainer.fit(model, ckpt_path=resume)
        return model, trainer

    # not before a validation, which draws random numbers and is not repeated
    whole, trainer = fit(None, save_at(3, tmp_path / "half.ckpt"))
    assert {"val_loss", "val_wer", "train_lm_loss", "train_encoder_ctc_loss"} <= set(trainer.logged_metrics)
    resumed, _ = fit(tmp_path / "half.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.slow
def test_a_small_model_from_manifest_to_chat(make_manifest, tmp_path):
    """The commands of the recipe, then export and chat."""
    manifest = make_manifest(
        (1.2, 1.6, 1.4, 1.8), "train.jsonl", [{"instruction": "Repeat it.", "answer": "LINE"}] + [{}] * 3
    )
    (tmp_path / "more.txt").write_text("Repeat it.\nTranscribe the speech.\n")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

    def run(script: str, *arguments) -> str:
        command = [sys.executable, str(ROOT / "examples" / script), *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    tokenizer = tmp_path / "tokenizer"
    options = ["--texts", tmp_path / "more.txt", "--instructions", "--vocab-size", 80, "--out", tokenizer]
    assert "not know" not in run("data/train_tokenizer.py", manifest, *options)
    sizes = {"n_layers": 1, "d_model": 32, "subsampling_conv_channels": 8}
    run(
        "train.py",
        "--config-name=instruct_las/small",
        f"model.tokenizer.dir={tokenizer}",
        f"model.train_ds.manifest_filepath={manifest}",
        f"model.validation_ds.manifest_filepath={manifest}",
        "model.train_ds.num_workers=0",
        "model.train_ds.num_buckets=2",
        "model.generation.max_new_tokens=4",
        *(f"model.perception.encoder.config.encoder.{name}={value}" for name, value in sizes.items()),
        "trainer.accelerator=cpu",
        "trainer.max_steps=2",
        "trainer.val_check_interval=2",
        f"exp_manager.exp_dir={tmp_path / 'runs'}",
    )
    (trained,) = (tmp_path / "runs").rglob("*.nemo")
    exported = tmp_path / "small.nemo"
    run("export.py", f"model={trained}", f"output={exported}")
    assert exported.stat().st_size < 0.6 * trained.stat().st_size
    audio = tmp_path / "train-0.flac"
    run("chat.py", f"model={exported}", f"audio={audio}", "prompt='Repeat it.'")
    assert str(tmp_path) not in OmegaConf.to_yaml(load_model(exported).cfg)

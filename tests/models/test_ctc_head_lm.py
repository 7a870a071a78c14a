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


"""A CTC-prompted LLM that reads posteriors: stage 1 over a frozen Whisper, stage 2 from text alone."""

import json
import tarfile
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from hydra import compose, initialize_config_dir
from nemo.utils.model_utils import import_class_by_path
from omegaconf import DictConfig, OmegaConf

from nemo_speechllm.data.conversation import Audio, Conversation, SpokenText, Turn
from nemo_speechllm.data.dataset import ConversationDataset
from nemo_speechllm.decoding.keyword_preference import KeywordPreference
from nemo_speechllm.decoding.rescoring import N_HYPOTHESES, ctc_hypotheses
from nemo_speechllm.models import SALM, CTCPromptedLLM
from nemo_speechllm.models.ctc_head_lm import CTCHeadSpeechLM
from nemo_speechllm.models.whisper_reader import WhisperReading
from nemo_speechllm.modules.ctc_posterior import PosteriorBank
from nemo_speechllm.training.train import read_recipe, train

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture
def recipe(tiny_llm_folder, tiny_whisper_folder, ctc_tokenizer_folder):
    """``recipe(name, overrides)`` → a recipe, of ``conf/ctc_prompted_llm`` without a folder, tiny and without data."""

    def make(name: str, *overrides: str, **changes) -> DictConfig:
        with initialize_config_dir(str(CONF), version_base=None):
            cfg = compose(name if "/" in name else f"ctc_prompted_llm/{name}", overrides=list(overrides))
        tiny = {
            "llm": {"pretrained": str(tiny_llm_folder)},
            "perception": {
                "encoder": {"pretrained": str(tiny_whisper_folder)},
                "adapter": {"n_layers": 1, "d_model": 32},
            },
            "ctc_head": {"tokenizer": str(ctc_tokenizer_folder / "tokenizer.model")},
            "generation": {"max_new_tokens": 6},
            "train_ds": None,
            "validation_ds": None,
        }
        cfg.model = OmegaConf.merge(cfg.model, tiny, changes)
        return cfg

    return make


@pytest.fixture
def stage1(recipe) -> CTCPromptedLLM:
    """Stage 1 with random weights whose head says something."""
    torch.manual_seed(0)
    model = CTCPromptedLLM(recipe("stage1_whisper").model).eval()
    with torch.no_grad():
        layer = model.ctc_head.decoder.decoder_layers[0]
        layer.weight.mul_(30.0)
    return model


@pytest.fixture
def make_stage2(recipe, stage1, tmp_path):
    """``make_stage2(recipe, **changes)`` → stage 2 of a saved stage 1, with a bank of what its head might hear."""
    stage1.save_to(tmp_path / "stage1.nemo")
    size = stage1.ctc_head.blank
    texts = stage1.ctc.ids(["please hold the line", "thank you"])
    heard = [0.9 * torch.eye(size)[ids[:2] + [3, *ids[4:]]] + 0.1 / size for ids in texts]
    PosteriorBank.measure(heard, texts, size).save(tmp_path / "bank.npz")

    def make(name: str = "stage2_posterior", bank: str = str(tmp_path / "bank.npz"), **changes) -> CTCHeadSpeechLM:
        stage1_nemo = str(tmp_path / "stage1.nemo")
        cfg = recipe(name, f"init_from_nemo_model={stage1_nemo}", **changes)
        cfg.model.ctc_head.tokenizer, cfg.model.ctc_posterior.bank = stage1_nemo, bank
        torch.manual_seed(1)
        model = import_class_by_path(cfg.model.target)(cfg.model)
        model.maybe_init_from_pretrained_checkpoint(
            OmegaConf.create({"init_from_nemo_model": cfg.init_from_nemo_model})
        )
        return model.eval()

    return make


SALM_RECIPE = "salm/whisper_smollm2_posterior"


def asked(model, audio: Audio, text: str, name: str = "test") -> Conversation:
    metadata = {"text": text, "lang": "en"}
    return model.builder.conversation(audio, metadata, name, text)


def collate(model, *conversations):
    return ConversationDataset(model.builder).collate(list(conversations))


def posteriors(model, *conversations) -> list[torch.Tensor]:
    batch = collate(model, *conversations)
    return model.posteriors(batch, model.perceive(batch))


def test_a_text_in_the_place_of_audio_is_refused_where_nothing_is_made_of_it(stage1):
    with pytest.raises(ValueError, match="'thank you' is a text without audio, in which a CTC.* hears"):
        stage1.loss(collate(stage1, asked(stage1, SpokenText("thank you"), "Thank you.")))


def test_stage_1_trains_adapter_and_head_by_ctc_alone(stage1, make_audio):
    audio = Audio(torch.as_tensor(make_audio(1.5)))
    losses = stage1.train().loss(collate(stage1, asked(stage1, audio, "thank you")))
    assert set(losses) == {"loss", "encoder_ctc_loss"}
    losses["loss"].backward()
    trained = {
        name.split(".")[0] + "." + name.split(".")[1] for name, p in stage1.named_parameters() if p.grad is not None
    }
    assert trained == {"perception.adapter", "ctc_head.decoder"}


def test_stage_2_hears_what_stage_1_heard_and_comes_back_from_its_file(make_stage2, stage1, make_audio, tmp_path):
    model, samples = make_stage2(), make_audio(1.2)
    expected = stage1.transcribe(samples, decoder="ctc", verbose=False)
    assert expected[0] and model.transcribe(samples, decoder="ctc", verbose=False) == expected
    answers = model.transcribe([samples, make_audio(0.4, seed=3)], verbose=False)
    assert answers == [model.transcribe(each, verbose=False)[0] for each in (samples, make_audio(0.4, seed=3))]
    with torch.no_grad():
        model.posterior.correction.normal_()
    model.save_to(tmp_path / "stage2.nemo")
    (tmp_path / "bank.npz").unlink()
    (tmp_path / "stage1.nemo").unlink()
    restored = CTCPromptedLLM.restore_from(tmp_path / "stage2.nemo").eval()
    assert restored.transcribe(samples, verbose=False) == model.transcribe(samples, verbose=False)


def test_text_stands_in_the_place_of_audio_and_audio_stays_what_it_is(make_stage2, make_audio):
    model = make_stage2()
    audio = asked(model, Audio(torch.as_tensor(make_audio(1.0))), "thank you", "audio")
    text = asked(model, SpokenText("please hold the line"), "Please hold the line.", "text")
    alone, mixed = posteriors(model, audio), posteriors(model, text, audio)
    torch.testing.assert_close(mixed[1], alone[0])
    assert mixed[0].shape[1] == model.ctc_head.blank
    embeddings, lengths = model.perceive(collate(model, text, audio)).embeddings
    assert lengths.tolist() == [max(1, len(item)) for item in mixed]


def test_what_is_heard_of_a_text_depends_on_epoch_and_name_alone(make_stage2):
    model = make_stage2(ctc_posterior={"error_rate": [0.5, 0.9]})
    text, other = (asked(model, SpokenText("please hold the line"), "x", name) for name in ("a", "b"))
    first, again = posteriors(model, text, other), posteriors(model, text)
    assert torch.equal(first[0], again[0])
    assert first[0].shape != first[1].shape or not torch.equal(first[0], first[1])


def test_a_training_on_lines_of_text_alone(make_stage2, make_trainer, make_manifest, tmp_path):
    rows = [{"text": text} for text in ("Please hold the line.", "Thank you.", "Press one for support.") * 4]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = make_stage2()
    before = model.posterior.correction.clone()
    source = {"type": "txt_jsonl", "paths": str(tmp_path / "texts.jsonl"), "language": "en", "text_field": "text"}
    data = {
        "input_cfg": [source], "sample_rate": 16000, "use_multimodal_sampling": True, 
        "token_equivalent_duration": 0.08,
        "batch_tokens": 128, "shuffle": True, "seed": 0, "shard_seed": 0, "num_workers": 0, "force_finite": False,
    }  # fmt: skip
    trainer = make_trainer(max_steps=2, limit_val_batches=0)
    model.set_trainer(trainer)
    model.setup_training_data(OmegaConf.create(data))
    trainer.fit(model)
    assert not torch.equal(model.posterior.correction, before)


def test_the_bank_goes_along_so_that_a_checkpoint_learns_from_texts_of_one_s_own(make_stage2, tmp_path):
    make_stage2().save_to(tmp_path / "stage2.nemo")
    CTCPromptedLLM.restore_from(tmp_path / "stage2.nemo").save_to(tmp_path / "again.nemo")
    first, again = make_stage2(), make_stage2(bank=str(tmp_path / "again.nemo"))
    assert vars(again._simulator.bank).keys() == vars(first._simulator.bank).keys()
    texts = [asked(model, SpokenText("please hold the line"), "x") for model in (first, again)]
    assert torch.equal(*(posteriors(model, text)[0] for model, text in zip((first, again), texts, strict=True)))


@pytest.mark.parametrize("kind", [SALM, CTCPromptedLLM])
def test_a_checkpoint_is_adapted_to_texts_without_audio_and_without_a_bank(kind, make_stage2, make_audio, tmp_path):
    stage2, adapt, name = {
        SALM: (SALM_RECIPE, "salm/adapt_to_text", "salm_adapted"),
        CTCPromptedLLM: ("stage2_posterior", "ctc_prompted_llm/adapt_to_text", "ctc_prompted_adapted"),
    }[kind]
    model, audio = make_stage2(stage2), Audio.from_samples(make_audio(1.0))
    model.save_to(tmp_path / "stage2.nemo")
    (tmp_path / "bank.npz").unlink()
    (tmp_path / "menu.txt").write_text("Please hold the line.\nThank you.\n" * 8)
    changes = {
        "init_from_nemo_model": str(tmp_path / "stage2.nemo"),
        "model.llm.pretrained": model.cfg.llm.pretrained,
        "model.perception.encoder.pretrained": model.cfg.perception.encoder.pretrained,
        "model.perception.adapter.n_layers": 1,
        "model.perception.adapter.d_model": 32,
        "model.train_ds.input_cfg.0.paths": str(tmp_path / "menu.txt"),
        "model.train_ds.num_workers": 0,
        "model.train_ds.batch_tokens": 128,
        "model.optim.lr": 0.03,
        "trainer.accelerator": "cpu",
        "trainer.max_steps": 8,
        "exp_manager.exp_dir": str(tmp_path),
        "exp_manager.create_tensorboard_logger": False,
    }
    train(read_recipe([CONF], adapt, changes))
    adapted = kind.restore_from(tmp_path / f"{name}/checkpoints/{name}.nemo")
    item = asked(model, audio, "Please hold the line.")
    assert adapted.answer_losses([item])[0] < model.answer_losses([item])[0] - 0.1
    assert adapted.transcribe(audio.load(), decoder="ctc", verbose=False) == model.transcribe(
        audio.load(), decoder="ctc", verbose=False
    )


def test_a_salm_becomes_no_model_without_instructions(make_stage2, tmp_path):
    model, salm = make_stage2(), make_stage2(SALM_RECIPE)
    salm.save_to(tmp_path / "salm.nemo")
    with pytest.raises(ValueError, match="salm.nemo is a SALM, and this recipe makes a CTCPromptedLLM.*adapt_to_text"):
        model.maybe_init_from_pretrained_checkpoint(
            OmegaConf.create({"init_from_nemo_model": str(tmp_path / "salm.nemo")})
        )


def test_errors_name_what_is_missing(make_stage2, recipe, tmp_path):
    with pytest.raises(FileNotFoundError, match="ctc_head.tokenizer .*gone.model does not exist"):
        CTCPromptedLLM(recipe("stage1_whisper", ctc_head={"tokenizer": "gone.model"}).model)
    with pytest.raises(ValueError, match="ctc_posterior.bank .*stage1.nemo holds no posteriors.npz: .*measure_post"):
        make_stage2(bank=str(tmp_path / "stage1.nemo"))
    model = make_stage2()
    model._simulator = None
    with pytest.raises(ValueError, match="ctc_posterior.bank.*measure_posteriors"):
        model.perceive(collate(model, asked(model, SpokenText("thank you"), "Thank you.")))


def test_a_prompt_of_audio_and_nothing_else_is_refused(make_stage2, make_audio):
    model = make_stage2(prompt={"chat_template": "{% for message in messages %}{{ message['content'] }}{% endfor %}"})
    audio = asked(model, Audio(torch.as_tensor(make_audio(1.0))), "thank you")
    with pytest.raises(ValueError, match="conversation test: .*cannot tell where it ends.*chat_template"):
        model.loss(collate(model, audio))
    with pytest.raises(ValueError, match="cannot tell where it ends"):
        model.transcribe(make_audio(1.0), verbose=False)
    model.prompt.chat_template = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
    assert model.loss(collate(model, audio))["loss"].isfinite()


def test_salm_reads_posteriors_of_the_same_ear_beside_instruction_and_keywords(
    make_stage2, stage1, make_audio, tmp_path
):
    model, samples = make_stage2(SALM_RECIPE), make_audio(1.2)
    assert isinstance(model, SALM)
    expected = stage1.transcribe(samples, decoder="ctc", verbose=False)
    assert model.transcribe(samples, decoder="ctc", verbose=False) == expected
    with torch.no_grad():
        model.posterior.correction.normal_()
    model.save_to(tmp_path / "salm.nemo")
    restored = SALM.restore_from(tmp_path / "salm.nemo")
    for options in ({}, {"keywords": ["please", "line"]}, {"instruction": "Say it."}):
        assert restored.transcribe(samples, verbose=False, **options) == model.transcribe(
            samples, verbose=False, **options
        )


def test_a_question_without_audio_is_answered_whatever_the_guards(make_stage2):
    model = make_stage2(SALM_RECIPE).eval()
    model.cfg.generation.guards = {kind: "ctc" for kind in ("silence", "loop", "chatter", "disagreement")}
    (answer,) = model.generate([Conversation("text", [Turn("user", ["Who are you?"])], {})], max_new_tokens=4)
    assert answer.ids and answer.interventions == ()


def test_a_lightning_checkpoint_holds_the_tokenizer_and_the_bank_of_its_model(make_stage2, make_audio, tmp_path):
    """And holds them, so that the recipe's own may be gone."""
    model, samples = make_stage2(SALM_RECIPE), make_audio(1.2)
    answer = model.transcribe(samples, verbose=False)
    model.save_to(tmp_path / "first.nemo")
    restored = SALM.restore_from(tmp_path / "first.nemo")
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.strategy.connect(restored)
    trainer.save_checkpoint(tmp_path / "m.ckpt")
    del model, restored
    for file in ("first.nemo", "stage1.nemo", "bank.npz"):
        (tmp_path / file).unlink()
    again = SALM.load_from_checkpoint(tmp_path / "m.ckpt")
    assert again.transcribe(samples, verbose=False) == answer
    again.save_to(tmp_path / "m.nemo")
    assert SALM.restore_from(tmp_path / "m.nemo").transcribe(samples, verbose=False) == answer
    with tarfile.open(tmp_path / "m.nemo") as archive:
        assert any(name.endswith("posteriors.npz") for name in archive.getnames())


def test_what_is_no_transcript_is_not_chosen_from_the_head_s(make_stage2, make_audio):
    model, alone = (make_stage2(SALM_RECIPE, generation={"ctc_weight": weight}) for weight in (0.5, 0.0))
    samples, own = make_audio(1.2), {"instruction": "Say it."}
    audio = Audio.from_samples(samples)
    transcript, question = (model.builder.conversation(audio, row, "test") for row in ({}, own))
    answers = model.generate([transcript, question], batch_size=2, max_new_tokens=64)
    of_the_head, generated = (answer.text for answer in answers)
    assert generated == alone.transcribe(samples, verbose=False, max_new_tokens=64, **own)[0]
    perceived = model.perceive(collate(model, transcript))
    frames = model.ctc_log_probs(perceived)[0, : int(model.ctc_states(perceived)[1])]
    heard = ctc_hypotheses(model.ctc, frames, N_HYPOTHESES)
    assert of_the_head in [item.text for item in heard]


def test_keywords_lead_the_search_of_the_head_and_their_tree_is_built_once(make_stage2, make_audio, monkeypatch):
    built: list[list[str]] = []
    spied = lambda head, keywords: built.append(keywords) or KeywordPreference(head, keywords)  # noqa: E731
    monkeypatch.setattr("nemo_speechllm.models.ctc_head_lm.KeywordPreference", spied)
    model = make_stage2(SALM_RECIPE, generation={"ctc_weight": 0.5, "max_keywords": 1})
    samples, keywords = make_audio(1.2), ["please", "hold the line", "thank you"]
    (listed,) = model.transcribe(samples, keywords=keywords, verbose=False)
    assert built == [keywords], "all of them, of which the prompt names one"
    assert model.transcribe(samples, keywords=keywords, verbose=False) == [listed]
    assert built == [keywords]
    model.transcribe(samples, verbose=False)
    assert built == [keywords, []]
    assert set(model.state_dict()) == set(make_stage2(SALM_RECIPE).state_dict()), "a tree is no part of the model"


def test_salm_with_a_head_learns_from_text_and_from_audio(make_stage2, make_audio):
    trained = ["^perception\\.encoder\\.", "^llm\\.(?!.*lora_)"]
    model = make_stage2(SALM_RECIPE, loss={"encoder_ctc_weight": 0.5}, freeze_params=trained).train()
    audio = asked(model, Audio(torch.as_tensor(make_audio(1.0))), "thank you", "audio")
    text = asked(model, SpokenText("please hold the line"), "Please hold the line.", "text")
    losses = model.loss(collate(model, text, audio))
    assert set(losses) == {"loss", "lm_loss", "encoder_ctc_loss"}
    losses["loss"].backward()
    assert model.posterior.correction.grad.any() and model.ctc_head.decoder.decoder_layers[0].weight.grad.any()


@pytest.mark.parametrize("changes", [{"ctc_head": None}, {"ctc_head": None, "ctc_posterior": None}])
def test_what_needs_a_head_is_refused_without_one(recipe, changes):
    cfg = recipe(SALM_RECIPE, "init_from_nemo_model=none", loss={"encoder_ctc_weight": 1.0})
    cfg.model.update(changes)
    with pytest.raises(ValueError, match="need a CTC head.*model.ctc_head.tokenizer"):
        SALM(cfg.model)


class TestWhispersSay:
    """``generation.whisper_weight``: Whisper's own decoder among those that choose a transcript."""

    SETTINGS = {"ctc_weight": 0.5, "max_audio_seconds": 10.0, "max_new_tokens": 64}

    @pytest.fixture
    def make(self, make_stage2, whole_whisper_folder):
        encoder = {"encoder": {"pretrained": str(whole_whisper_folder)}}
        return lambda weight: make_stage2(
            SALM_RECIPE, perception=encoder, generation=self.SETTINGS | {"whisper_weight": weight}
        )

    def test_what_it_writes_is_chosen_where_it_weighs_enough_and_vouches_for_the_answer(
        self, make, make_audio, monkeypatch
    ):
        monkeypatch.setattr(WhisperReading, "texts", lambda self: ["thank you"])
        monkeypatch.setattr(
            WhisperReading, "log_probs", lambda self, texts: [0.0 if text == "thank you" else -1e4 for text in texts]
        )
        model, audios = make(0.5), [make_audio(1.2), make_audio(0.8)]
        model.cfg.generation.guards = {"disagreement": "ctc"}
        told = [answer.text for answer in model.transcribe(audios, verbose=False, return_hypotheses=True)]
        assert told == ["thank you"] * 2 != model.transcribe(audios, decoder="ctc", verbose=False)

    def test_it_has_a_say_in_the_heads_hypotheses(self, make, make_audio):
        with_whisper, without = make(0.9), make(0.0)
        audios = [make_audio(seconds, seed=place) for place, seconds in enumerate((1.2, 0.8, 1.9))]
        told = with_whisper.transcribe(audios, batch_size=3, verbose=False)
        assert told != without.transcribe(audios, batch_size=3, verbose=False)
        assert told == [with_whisper.transcribe(audio, verbose=False)[0] for audio in audios]
        assert set(with_whisper.state_dict()) == set(without.state_dict()), "it is no part of the checkpoint"

    def test_it_speaks_for_words_that_it_heard(self, make, make_audio, monkeypatch):
        told = {}
        for log_prob in (-1e-4, -9.0):
            monkeypatch.setattr(
                WhisperReading, "word_log_probs", lambda _, text, value=log_prob: [value] * len(text.split())
            )
            (answer,) = make(0.9).transcribe(make_audio(1.2), verbose=False, confidence=True)
            told[log_prob] = answer
        sure, doubtful = told.values()
        assert sure.text == doubtful.text and sure.text
        assert all(a > b for a, b in zip(sure.word_confidence, doubtful.word_confidence, strict=True))

    def test_where_ctc_hears_nothing_it_is_not_asked(self, make, make_audio, monkeypatch):
        model = make(0.9)
        with torch.no_grad():
            model.ctc_head.decoder.decoder_layers[0].bias[model.ctc_head.blank] = 1e4
        monkeypatch.setattr(WhisperReading, "texts", lambda self: pytest.fail("Whisper was asked"))
        assert model.transcribe(make_audio(0.7), verbose=False) == [""]

    def test_without_a_weight_it_is_not_loaded(self, make, make_audio, monkeypatch):
        monkeypatch.setattr("nemo_speechllm.models.whisper_reader.WhisperBaseline", lambda _: pytest.fail("loaded"))
        make(0.0).transcribe(make_audio(0.7), verbose=False)

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

"""What holds for the answers of every model: in any batch, beside other threads, of recordings of any length, in any
precision."""

import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from nemo.collections.asr.models import ASRModel
from omegaconf import open_dict
from torch.utils.data import DataLoader

from nemo_speechllm.data.conversation import Audio, Conversation, Turn
from nemo_speechllm.data.dataset import ConversationBatch, ConversationDataset
from nemo_speechllm.models import SALM, load_model
from nemo_speechllm.models.segmentation import split_at_pauses
from nemo_speechllm.models.speech_lm import SpeechLM

MODELS = ("salm", "ctc_prompted", "instruct_las")
DURATIONS = (1.0, 0.31, 2.4, 0.7, 1.77)


@pytest.fixture
def make(request, salm) -> Callable[..., SpeechLM]:
    """``make(kind)`` → a tiny model of the kind in eval mode whose answers depend on the audio."""
    return lambda kind: salm if kind == "salm" else request.getfixturevalue(f"make_{kind}")()


@pytest.fixture
def audios(make_audio) -> list[np.ndarray]:
    return [make_audio(seconds, seed=i) for i, seconds in enumerate(DURATIONS)]


def asked(model: SpeechLM, samples: np.ndarray, **metadata) -> Conversation:
    audio = Audio(torch.from_numpy(samples))
    return model.builder.conversation(audio, {"lang": "en", **metadata}, "x")


def with_answers(model: SpeechLM, audios: list[np.ndarray]) -> ConversationBatch:
    items = [asked(model, audio, task="asr", text="thank you") for audio in audios]
    return ConversationDataset(model.builder).collate([item.with_answer("thank you") for item in items])


class TestWhatIsAsked:
    @pytest.mark.parametrize("kind", MODELS)
    def test_what_asks_nothing_is_named_before_any_audio_is_encoded(self, make, audios, kind, monkeypatch):
        model = make(kind)
        monkeypatch.setattr(model.perception, "encode", lambda *_: pytest.fail("the encoder was run"))
        good = asked(model, audios[0])
        with pytest.raises(TypeError, match="conversation new, turn 1 .*, part 1 is ndarray.*from_samples"):
            model.generate([good, Conversation("new", [Turn("user", [audios[1], "What is said?"])])])
        with pytest.raises(ValueError, match="conversation new: nothing is asked"):
            model.generate([good, Conversation("new", [])], batch_size=1)
        with pytest.raises(ValueError, match="conversation x: it has no answer"):
            model.answer_losses([good.with_answer("thank you"), good])

    def test_a_loader_of_other_batches_is_named(self, salm, audios):
        with pytest.raises(TypeError, match="conversation 1 is Tensor.*Conversation"):
            salm.transcribe(DataLoader(audios[:1]), verbose=False)


class TestMode:
    def test_a_restored_model_comes_in_evaluation_mode(self, salm, tmp_path):
        salm.train().save_to(tmp_path / "m.nemo")
        for restored in (
            SALM.restore_from(tmp_path / "m.nemo"),
            ASRModel.restore_from(str(tmp_path / "m.nemo")),
            load_model(tmp_path / "m.nemo"),
        ):
            assert not any(module.training for module in restored.modules())

    def test_training_a_restored_model_trains_what_trains(self, salm, tmp_path, make_trainer, make_manifest):
        salm.save_to(tmp_path / "m.nemo")
        trainer = make_trainer(max_steps=2, limit_val_batches=1)
        model = SALM.restore_from(tmp_path / "m.nemo", trainer=trainer)
        modes, loss = [], model.loss

        def recorded(batch, *known):
            modes.append((model.training, model.perception.adapter.training, model.perception.encoder.training))
            return loss(batch, *known)

        model.loss = recorded
        model.setup_training_data(salm.cfg.train_ds)
        model.setup_validation_data(salm.cfg.validation_ds)
        trainer.fit(model)
        assert modes == [(True, True, False)] * 2 + [(False, False, False)]

    @pytest.mark.parametrize("kind", MODELS)
    def test_a_model_in_training_mode_is_left_in_it_and_says_what_to_do(self, make, audios, kind):
        model = make(kind)
        item = asked(model, audios[0], task="asr")
        for part in (model, model.perception.projection):
            part.train()
            expected = {name: module.training for name, module in model.named_modules()}
            for ask in (
                lambda: model.transcribe(audios[:1], verbose=False),
                lambda: model.generate([item]),
                lambda: model.answer_losses([item.with_answer("thank you")]),
            ):
                with pytest.raises(ValueError, match=r"is in training mode.*call model.eval\(\) first"):
                    ask()
                assert {name: module.training for name, module in model.named_modules()} == expected
            model.eval()


class TestThreads:
    @pytest.mark.parametrize("kind", MODELS)
    def test_a_short_call_beside_a_long_one_changes_neither(self, make, audios, kind):
        """The short call begins before the long one and ends in its middle."""
        model = make(kind)
        expected = [model.transcribe(audio, verbose=False)[0] for audio in audios]
        short_began, long_began, short_ended = threading.Event(), threading.Event(), threading.Event()
        collate, texts = ConversationDataset(model.builder).collate, {}

        def waiting(began: threading.Event, until: threading.Event, after: int):
            seen = []

            def collated(conversations):
                seen.append(1)
                if len(seen) == after:
                    began.set()
                    assert until.wait(60)
                return collate(conversations)

            return collated

        def run(name: str, numbers: range, collate_fn) -> None:
            items = [asked(model, audios[number], task="asr") for number in numbers]
            texts[name] = model.transcribe(DataLoader(items, batch_size=1, collate_fn=collate_fn), verbose=False)

        short = threading.Thread(target=run, args=("short", range(1), waiting(short_began, long_began, 1)))
        long = threading.Thread(target=run, args=("long", range(5), waiting(long_began, short_ended, 2)))
        short.start()
        assert short_began.wait(60)
        long.start()
        short.join()
        short_ended.set()
        long.join()
        assert texts == {"short": expected[:1], "long": expected}

    def test_what_each_asks_is_its_own(self, salm, audios):
        salm.cfg.generation.max_keywords = 3
        words = [f"{a}{b}" for a in "abcdefgh" for b in ("an", "et", "is")]
        calls = [
            lambda: salm.transcribe(audios, batch_size=2, verbose=False),
            lambda: salm.transcribe(audios, batch_size=2, verbose=False, instruction="What is said?"),
            lambda: salm.transcribe(audios, batch_size=2, verbose=False, decoder="ctc"),
            lambda: salm.transcribe(audios, batch_size=2, verbose=False, keywords=words),
            lambda: salm.transcribe(audios, batch_size=2, verbose=False, keywords=words[::-1]),
            lambda: [a.text for a in salm.generate([asked(salm, audio) for audio in audios], 3, beam_size=2)],
        ]
        expected = [call() for call in calls]
        found, together = [None] * len(calls), threading.Barrier(len(calls))

        def run(place: int) -> None:
            together.wait(60)
            found[place] = [calls[place]() for _ in range(2)]

        threads = [threading.Thread(target=run, args=(place,)) for place in range(len(calls))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [[texts] * 2 for texts in expected]


class TestOnePass:
    @pytest.mark.parametrize("decoder", ["llm", "ctc"])
    @pytest.mark.parametrize("kind", MODELS)
    def test_keywords_all_guards_and_the_answer_share_one_run_of_the_encoder(self, make, audios, kind, decoder):
        """Every guard strikes: an answer is looked for again by a beam search, and then taken from CTC."""
        model = make(kind)
        runs = []
        model.perception.encoder.register_forward_hook(lambda *_: runs.append(1))
        model.perception.projection.register_forward_hook(lambda *_: runs.append("adapted"))
        keywords = [f"{a}{b}" for a in "abcdefgh" for b in ("an", "et", "is")]
        for action in ("ctc", "retry", "empty"):
            guards = {kind: action for kind in ("silence", "loop", "chatter", "disagreement")}
            with open_dict(model.cfg):
                model.cfg.generation.update({"max_keywords": 3, "guards": guards})
            for samples in (audios[0], np.zeros(16000, dtype=np.float32)):
                runs.clear()
                options = {"keywords": keywords, "decoder": decoder, "return_hypotheses": True, "verbose": False}
                (hypothesis,) = model.transcribe([samples], **options)
                assert runs == [1, "adapted"], action
            assert hypothesis.interventions == (f"silence: {action}",)

    def test_every_audio_of_a_validation_is_encoded_once(self, salm, audios):
        encoded = []
        salm.perception.encoder.register_forward_hook(lambda _, given, __: encoded.extend(given[1].tolist()))
        salm.validation_step(with_answers(salm, audios), 0)
        assert sorted(encoded) == sorted(map(len, audios))

    def test_the_losses_of_a_step_see_the_same_masked_states(self, make_ctc_prompted, audios):
        mask = {"freq_masks": 2, "freq_width": 27, "time_masks": 2, "time_width": 0.2}
        weights = {"lm_weight": 1.0, "ctc_weight": 0.5}
        model = make_ctc_prompted(loss=weights, perception={"stack": 3, "state_mask": mask}).train()
        drawn = []
        model.perception.state_mask.register_forward_hook(lambda *_: drawn.append(1))
        model.loss(with_answers(model, audios))
        assert drawn == [1]


class TestBatch:
    @pytest.mark.parametrize("options", [{}, {"beam_size": 3}], ids=["greedy", "beam"])
    @pytest.mark.parametrize("kind", MODELS)
    def test_a_repetition_penalty_does_not_depend_on_the_batch(self, make, audios, kind, options):
        model = make(kind)
        with open_dict(model.cfg):
            model.cfg.generation.repetition_penalty = 5.0
        conversations = [asked(model, audio) for audio in audios]
        alone = [answer.ids for answer in model.generate(conversations, batch_size=1, **options)]
        assert [answer.ids for answer in model.generate(conversations, batch_size=5, **options)] == alone
        assert [a.ids for a in model.generate(conversations[::-1], batch_size=3, **options)] == alone[::-1]
        model.cfg.generation.repetition_penalty = 1.0
        if not options:  # of a tiny model's overconfident beams nothing moves the best
            assert [answer.ids for answer in model.generate(conversations, batch_size=5)] != alone

    def test_stacking_subsampling_does_not_depend_on_the_batch(self, make_instruct_las, make_audio):
        stacking = {"subsampling": "stacking", "subsampling_factor": 8, "subsampling_conv_channels": -1}
        model = make_instruct_las(perception={"encoder": {"config": {"encoder": stacking}}})
        lengths = [16000 + 160 * frames for frames in range(9)]
        conversations = [asked(model, make_audio(length / 16000, seed=i)) for i, length in enumerate(lengths)]
        batch = ConversationDataset(model.builder).collate(conversations)
        states, counts = model.perception.encode(batch.audio, batch.audio_lengths)
        for index, length in enumerate(lengths):
            own, count = model.perception.encode(batch.audio[index, None, :length], batch.audio_lengths[index, None])
            assert count.item() == counts[index] == length // 160 // 8
            torch.testing.assert_close(own[0, :count], states[index, :count], atol=1e-4, rtol=1e-4)
        for decoder in ("llm", "ctc"):
            alone = [answer.ids for answer in model.generate(conversations, batch_size=1, decoder=decoder)]
            assert [answer.ids for answer in model.generate(conversations, 9, decoder=decoder)] == alone


class TestLongRecordings:
    @pytest.mark.parametrize("kind", MODELS)
    def test_no_more_pieces_are_read_at_once_than_the_batch_size(self, make, make_audio, kind):
        model = make(kind)
        model.cfg.generation.max_audio_seconds = 2.0
        recordings = [make_audio(seconds, seed=i) for i, seconds in enumerate((9.0, 1.0, 7.0))]
        sizes, encode = [], model.perception.encode

        def counted(audio, lengths):
            sizes.append(audio.shape)
            return encode(audio, lengths)

        model.perception.encode = counted
        for batch_size in (1, 3):
            sizes.clear()
            texts = model.transcribe(recordings, batch_size=batch_size, verbose=False)
            assert max(n for n, _ in sizes) == batch_size and max(t for _, t in sizes) <= 2 * 16000
            assert sum(n for n, _ in sizes) > 9
            generated = model.generate([asked(model, samples, task="asr") for samples in recordings], batch_size)
            assert [answer.text for answer in generated] == texts
        assert model.transcribe(recordings, batch_size=1, verbose=False) == texts
        assert model.transcribe(recordings, batch_size=2, num_workers=1, verbose=False) == texts

    def test_recordings_are_loaded_when_their_turn_comes(self, salm, make_audio):
        salm.cfg.generation.max_audio_seconds = 1.0
        events = []

        class Recording(Audio):
            def load(self):
                events.append("load")
                return super().load()

        conversations = [asked(salm, make_audio(2.0, seed=i), task="asr") for i in range(3)]
        for conversation in conversations:
            conversation.question.audios[0] = Recording(conversation.audios[0].source)
        encode = salm.perception.encode
        salm.perception.encode = lambda *batch: events.append("encode") or encode(*batch)
        salm.generate(conversations, batch_size=1)
        assert events == (["load"] + ["encode"] * 3) * 3


class TestPrecision:
    @pytest.mark.parametrize("kind", MODELS)
    def test_autocast_trains_and_transcribes(self, make, audios, kind):
        model = make(kind)
        options = {"batch_size": 2, "verbose": False, "return_hypotheses": True}
        decoders = ("llm", "ctc")
        expected = [model.transcribe(audios, decoder=decoder, **options) for decoder in decoders]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = [model.transcribe(audios, decoder=decoder, **options) for decoder in decoders]
            losses = model.train().loss(with_answers(model, audios))
        losses["loss"].backward()
        assert all(torch.isfinite(value) for value in losses.values())
        torch.testing.assert_close(
            losses["loss"], model.eval().loss(with_answers(model, audios))["loss"], rtol=0.3, atol=0
        )
        assert [h.text == "" for half in found for h in half] == [h.text == "" for full in expected for h in full]

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("kind", MODELS)
    def test_a_whole_model_in_half_precision_answers_as_many_as_it_is_asked(self, make, audios, kind, dtype):
        model = make(kind).to(dtype)
        for decoder in ("llm", "ctc"):
            answers = model.generate([asked(model, audio, task="asr") for audio in audios], 2, decoder=decoder)
            assert len(answers) == len(audios)
        pcm = (audios[0] * 32767).astype(np.int16)
        assert len(model.transcribe([pcm], verbose=False)) == 1

    @pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
    def test_mixed_precision_trains_on_the_cpu(self, tiny_salm_config, make_trainer, make_manifest, precision):
        tiny_salm_config.model.validation_ds.manifest_filepath = str(make_manifest((0.5,), "dev.jsonl"))
        trainer = make_trainer(max_steps=2, limit_val_batches=1, precision=precision)
        trainer.fit(SALM(tiny_salm_config.model, trainer))
        assert trainer.global_step == 2 and np.isfinite(trainer.callback_metrics["val_loss"].item())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device whose figures could be compared")
class TestGPU:
    @pytest.mark.parametrize("kind", MODELS)
    def test_losses_gradients_and_answers_are_those_of_the_cpu(self, make, audios, kind, monkeypatch):
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
        model = make(kind)
        loss, gradients, answers = figures_on("cpu", model, audios)
        found_loss, found_gradients, found_answers = figures_on("cuda", model, audios)
        assert found_loss == pytest.approx(loss, rel=1e-4) and found_answers == answers
        assert gradients.keys() == found_gradients.keys() and gradients
        for name, gradient in gradients.items():
            assert (found_gradients[name] - gradient).norm() <= 1e-3 * gradient.norm() + 1e-5, name


def figures_on(device: str, model: SpeechLM, audios: list[np.ndarray]) -> tuple[float, dict, list[list[str]]]:
    """The loss of a batch, its gradients by name, and what is answered by each decoder; in evaluation mode, in which
    nothing is drawn."""
    model.to(device).zero_grad()
    loss = model.loss(with_answers(model, audios).to(torch.device(device)))["loss"]
    loss.backward()
    gradients = {name: weight.grad.cpu() for name, weight in model.named_parameters() if weight.grad is not None}
    answers = [model.transcribe(audios, decoder=decoder, verbose=False) for decoder in ("llm", "ctc")]
    return loss.item(), gradients, answers


def test_a_long_recording_is_transcribed_in_pieces(salm, make_audio):
    salm.cfg.generation.max_audio_seconds = 2.0
    samples = torch.from_numpy(make_audio(5.0))
    pieces = list(split_at_pauses([samples], len(samples), 2.0))
    assert len(pieces) > 2
    alone = salm.transcribe([piece.numpy() for piece in pieces], verbose=False)
    assert salm.transcribe(samples.numpy(), verbose=False) == [" ".join(text for text in alone if text)]
    asked = salm.transcribe(samples.numpy(), instruction="What is it about?", return_hypotheses=True, verbose=False)
    assert len(asked[0].y_sequence) <= salm.cfg.generation.max_new_tokens

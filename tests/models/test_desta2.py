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
import subprocess
import sys

import lightning.pytorch as pl
import numpy as np
import pytest
import soundfile
import torch

from nemo_speechllm.data.conversation import Audio, Conversation, Turn
from nemo_speechllm.data.dataset import ConversationBatch
from nemo_speechllm.models import DeSTA2
from nemo_speechllm.models.transcriber import with_transcriptions
from nemo_speechllm.modules.segments import IGNORE_INDEX
from nemo_speechllm.prompts.segments import AudioSegment
from tests.questions import collate
from tests.tiny_desta2 import QUESTION, asked, voice

RESTORE = """
import sys, soundfile
from nemo_speechllm.models import load_model
model = load_model(sys.argv[1])
samples = [soundfile.read(path, dtype="float32")[0] for path in sys.argv[2:]]
print("ANSWERS", type(model).__name__, model.transcribe(samples, verbose=False))
"""


class TestPrompt:
    def test_it_is_audio_then_transcription_then_question(self, make_desta2, make_audio):
        model = make_desta2()
        conversation = with_transcriptions(asked(make_audio(1.0), "A calm voice."), ["hello there"])
        segments = model.prompt_segments(conversation)
        before, audio, after, answer = segments
        assert audio == AudioSegment(0) and answer.loss
        assert model.tokenizer.decode(before.ids).endswith("<|im_start|>audio\n")
        assert model.tokenizer.decode(after.ids) == (
            f"hello there<|im_end|>\n<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
        )

    def test_several_audios_have_a_message_each_in_any_turn(self, make_desta2, make_audio):
        one, two, three = (Audio(torch.from_numpy(make_audio(0.5, seed))) for seed in range(3))
        turns = [
            Turn("user", ["Listen:", one, two, "Who?"]),
            Turn("assistant", ["Ann."]),
            Turn("user", [three, "And?"]),
        ]
        asked = with_transcriptions(Conversation("x", turns), ["a", "b", "c"])
        assert [(turn.role, turn.parts) for turn in asked.turns] == [
            ("user", ["Listen:"]),
            ("audio", [one, "a"]),
            ("audio", [two, "b"]),
            ("user", ["Who?"]),
            ("assistant", ["Ann."]),
            ("audio", [three, "c"]),
            ("user", ["And?"]),
        ]
        model = make_desta2()
        conversation = Conversation("x", turns, {"transcription": ["a", "b", "c"]})
        assert len(model.generate([conversation], max_new_tokens=3)) == 1

    def test_loss_covers_the_answer_and_its_end(self, make_desta2, make_audio):
        model = make_desta2()
        batch = collate(model, [asked(make_audio(1.0), "A calm voice.")])
        inputs = model.prepare_inputs(batch, model.perceive(batch))
        learned = inputs.labels[inputs.labels != IGNORE_INDEX]
        assert model.tokenizer.decode(learned) == "A calm voice.<|im_end|>"
        assert set(model.loss(batch)) == {"loss", "lm_loss"}

    def test_the_transcription_is_read(self, make_desta2, make_audio):
        model, samples = make_desta2(), make_audio(1.0)
        losses = [
            model.loss(collate(model, [asked(samples, "A calm voice.", text)]))["loss"]
            for text in ("hello", "bye", "")
        ]
        assert len(set(map(float, losses))) == 3

    def test_as_many_transcriptions_as_audios(self, make_desta2, make_audio):
        with pytest.raises(ValueError, match="test: 2 texts in `transcription` and 1 audios"):
            make_desta2().generate([asked(make_audio(0.5), transcription=["a", "b"])])

    def test_an_encoder_or_a_template_that_does_not_fit_is_refused(self, make_desta2):
        with pytest.raises(ValueError, match="encoder.type is 'nemo'; it must be one of whisper"):
            make_desta2(perception={"encoder": {"type": "nemo"}})
        strict = "{% for m in messages %}{% if m.role == 'audio' %}{{ raise_exception('no') }}{% endif %}{% endfor %}"
        strict += "<s>{% for m in messages %}{{ m.content }}{% endfor %}"
        with pytest.raises(ValueError, match="refuses a message of the role 'audio'.*model.prompt.chat_template"):
            make_desta2(prompt={"chat_template": strict})
        deaf = "{% for m in messages %}{% if m.role != 'audio' %}<s>{{ m.content }}</s>{% endif %}{% endfor %}"
        with pytest.raises(
            ValueError, match="refuses a message of the role 'audio'.*leaves out.*model.prompt.chat_template"
        ):
            make_desta2(prompt={"chat_template": deaf})


class TestGenerate:
    @pytest.mark.parametrize("trim", [True, False])
    def test_alone_in_a_batch_and_over_padded_are_token_identical(self, make_desta2, make_audio, trim):
        model = make_desta2(perception={"encoder": {"trim": trim}})
        conversations = [
            asked(make_audio(seconds, seed=i), transcription="word " * i, question="What?" * (1 + i % 3))
            for i, seconds in enumerate((1.0, 0.31, 2.4, 0.7))
        ]
        conversations.append(asked(voice(0.9), transcription=None))
        alone = [answer.ids for answer in model.generate(conversations, batch_size=1)]
        together = [answer.ids for answer in model.generate(conversations, batch_size=8)]
        batch = collate(model, conversations)
        padded = torch.nn.functional.pad(batch.audio, (0, 40000))
        padded_batch = ConversationBatch(conversations, padded, batch.audio_lengths)
        over_padded = model.answering.answer_batch(padded_batch, max_new_tokens=8, beam_size=1)
        assert len({tuple(ids) for ids in alone}) > 3
        assert together == alone
        assert [answer.ids for answer in over_padded] == alone

    def test_the_answer_depends_on_the_audio(self, make_desta2, make_audio):
        model = make_desta2()
        answers = model.generate([asked(make_audio(1.0, seed)) for seed in range(4)])
        assert len({answer.text for answer in answers}) > 1

    @torch.no_grad()
    def test_an_audio_beyond_a_window_has_queries_for_each(self, make_desta2, make_audio):
        model, samples = make_desta2(), torch.from_numpy(make_audio(31.0))
        embeddings, (length,) = model.perception(samples[None], torch.tensor([len(samples)])).embeddings
        assert length == 16 and model.perception.frame_shift is None
        for place, piece in ((slice(8), samples[:480000]), (slice(8, 16), samples[480000:])):
            alone, _ = model.perception(piece[None], torch.tensor([len(piece)])).embeddings
            torch.testing.assert_close(embeddings[0, place], alone[0], atol=1e-2, rtol=0)  # of size 2


class TestTraining:
    def test_only_the_adapter_trains_and_text_is_answered_as_before(self, make_desta2, make_audio):
        model = make_desta2()
        text = [Conversation("text", [Turn("user", ["What is the capital of France?"])])]
        before, audio = {n: p.clone() for n, p in model.named_parameters()}, asked(make_audio(1.0))
        text_before, audio_before = model.generate(text)[0].ids, model.generate([audio])[0].ids
        batch = collate(model, [asked(make_audio(1.0), "A calm voice."), asked(make_audio(0.6, 1), "Two voices.")])
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-2)
        model.train()
        for _ in range(5):
            optimizer.zero_grad()
            model.loss(batch)["loss"].backward()
            optimizer.step()
        changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
        adapter = {name for name in before if name.startswith(("perception.adapter.", "perception.projection."))}
        assert changed == {name for name, parameter in model.named_parameters() if parameter.requires_grad} == adapter
        model.eval()
        assert model.generate(text)[0].ids == text_before
        assert model.generate([audio])[0].ids != audio_before

    def test_the_recipe_trains_with_cached_taps_and_transcriptions(self, desta2_recipe, make_manifest, tmp_path):
        desta2_recipe.model.perception.state_cache = str(tmp_path / "states")
        desta2_recipe.model.transcription.cache = str(tmp_path / "texts")
        desta2_recipe.model.train_ds.manifest_filepath = str(
            make_manifest((0.5, 0.7), "train.jsonl", answer="A voice.")
        )
        options = dict(max_steps=2, limit_val_batches=0, logger=False, enable_checkpointing=False)
        trainer = pl.Trainer(accelerator="cpu", use_distributed_sampler=False, **options)
        model = DeSTA2(desta2_recipe.model, trainer)
        trainer.fit(model)
        assert len(list(tmp_path.glob("states/*/*.safetensors"))) == 2
        assert len(list(tmp_path.glob("texts/*/*.txt"))) == 2
        assert json.loads((tmp_path / "states/encoder.json").read_text())["taps"] == [0, 1]
        model.eval().generate([asked(voice(0.5), transcription=None)])
        assert len(list(tmp_path.glob("texts/*/*.txt"))) == 2, "what a user asks about is not kept"

    @pytest.mark.parametrize("losses", [{}, {"ctc_weight": 0.5}], ids=["lm", "lm and ctc"])
    @pytest.mark.parametrize("answers", [["", "A calm voice."], ["", ""]], ids=["one of two", "all"])
    def test_a_step_learns_to_answer_silence_with_nothing(self, make_desta2, make_audio, answers, losses):
        model = make_desta2(loss=losses, perception={"adapter": {"n_queries": 24}}).train()
        items = [asked(make_audio(1.0, seed), answer, answer) for seed, answer in enumerate(answers)]
        found = model.loss(collate(model, items))
        assert found["lm_loss"] > 0 and all(torch.isfinite(loss) for loss in found.values()), found
        found["loss"].backward()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        assert gradients and all(torch.isfinite(gradient).all() for gradient in gradients)

    def test_with_ctc_the_queries_write_what_the_seed_transcript_says(self, make_desta2, make_audio):
        losses, queries = {"lm_weight": 0.0, "ctc_weight": 1.0}, {"adapter": {"n_queries": 24}}
        model = make_desta2(loss=losses, perception=queries, ctc_attributes=["gender", "emotion", "snr"])
        records = [
            {"gender": {"value": gender}, "age": {"value": 30}, "emotion": {"value": "anger"}}
            for gender in ("male", "female")
        ]
        known = [asked(make_audio(1.0, seed), "Angry.", metadata=[{"metadata": r}]) for seed, r in enumerate(records)]
        two = asked(make_audio(0.5, 3), "Two voices.", metadata=[{"metadata": r} for r in records])
        unknown = asked(make_audio(0.5, 4), "A voice.", text="hello", metadata=[{"metadata": {"age": {"value": 30}}}])
        untold = asked(make_audio(0.6, 5), "Sad.", metadata=[{"metadata": records[0]}], attributes=["age", "emotion"])
        batch = collate(model, [unknown, known[0], two, known[1], untold])
        texts = {1: "Gender:Male, Emotion: anger", 3: "Gender:Female, Emotion: anger", 4: "Emotion: anger"}
        assert model.ctc_texts(batch) == texts
        assert set(model.loss(batch)) == {"loss", "ctc_loss"}
        assert not model.ctc.transcribes, "what CTC writes here is no transcript"
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
        model.train()
        history = []
        for _ in range(30):
            optimizer.zero_grad()
            history.append(model.loss(batch)["ctc_loss"])
            history[-1].backward()
            optimizer.step()
        assert history[-1] < history[0] / 2

    def test_what_ctc_cannot_write_is_an_error(self, make_desta2, make_audio):
        losses = {"ctc_weight": 0.3}
        with pytest.raises(ValueError, match=r"ctc_attributes: nothing is written of \['mood'\]; there are"):
            make_desta2(loss=losses, ctc_attributes=["gender", "mood"])
        with pytest.raises(ValueError, match="generation.ctc_weight: DeSTA2's CTC hears attributes and no words"):
            make_desta2(loss=losses, generation={"ctc_weight": 0.3})
        without = collate(make_desta2(), [asked(make_audio(1.0), "A voice.")])
        with pytest.raises(ValueError, match="test: neither this line nor any other .*build_desta.py"):
            make_desta2(loss={"lm_weight": 0.0, "ctc_weight": 1.0}).loss(without)
        model = make_desta2(loss=losses, ctc_attributes=["snr"])
        records = {"snr": {"value": 10.0, "level": "high"}}
        batch = collate(model, [asked(make_audio(1.0), "Noisy.", metadata=[{"metadata": records}])])
        with pytest.raises(
            ValueError, match="test: CTC needs .* and there are 8; raise model.perception.adapter.n_queries"
        ):
            model.loss(batch)

    def test_a_batch_without_attributes_has_a_gradient_for_every_parameter(self, make_desta2, make_audio):
        """DDP waits for all of them."""
        model = make_desta2(loss={"ctc_weight": 0.3})
        model.loss(collate(model, [asked(make_audio(1.0), "A voice.")]))["loss"].backward()
        assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)


@pytest.mark.slow
def test_a_checkpoint_is_the_adapter_alone_and_answers_the_same_in_another_process(make_desta2, make_audio, tmp_path):
    model = make_desta2()
    assert {name.split(".")[1] for name in model.state_dict()} == {"adapter", "projection"}
    model.save_to(tmp_path / "desta2_tiny.nemo")
    samples = [make_audio(1.0), np.zeros(8000, dtype=np.float32)]
    for i, item in enumerate(samples):
        soundfile.write(tmp_path / f"{i}.wav", item, 16000, subtype="FLOAT")
    files = [str(tmp_path / f"{i}.wav") for i in range(2)]
    command = [sys.executable, "-c", RESTORE, str(tmp_path / "desta2_tiny.nemo"), *files]
    output = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert f"ANSWERS DeSTA2 {model.transcribe(samples, verbose=False)}" in output

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

"""A model, a baseline or a cascade by one name."""

from pathlib import Path

import pytest
import torch

from nemo_speechllm.checkpointing.errors import CheckpointError
from nemo_speechllm.models import SALM, load_model, load_system, loading
from nemo_speechllm.models.answers import answering_record, change_generation
from nemo_speechllm.models.loading import WHISPER_CONFIDENCE, WHISPER_WEIGHT
from nemo_speechllm.models.shipped import shipped_models
from nemo_speechllm.modules import linear
from nemo_speechllm.modules.linear import is_packed
from nemo_speechllm.modules.quantization import is_int8
from nemo_speechllm.recipes import SettingError
from tests.tiny_models import salm_of, talkative

RECORDINGS = Path(__file__).parents[1] / "recordings"


def test_systems_have_names(monkeypatch):
    made = []
    for name in ("load_model", "WhisperBaseline", "Cascade"):
        monkeypatch.setattr(loading, name, lambda *args, name=name: made.append((name, *args)) or name)
    assert load_system("x.nemo") == "load_model" and load_system("whisper:tiny") == "WhisperBaseline"
    load_system("cascade:whisper:tiny+a/b")
    load_system("cascade:x.nemo+llm")
    assert made[-3:] == [
        ("Cascade", "WhisperBaseline", "a/b"),
        ("load_model", "x.nemo"),
        ("Cascade", "load_model", "llm"),
    ]


@pytest.mark.parametrize("name", ["cascade:whisper:whisper-base", "cascade:x.nemo+", "cascade:+llm"])
def test_a_cascade_has_two_parts(name):
    with pytest.raises(ValueError, match="give a cascade as cascade:ASR.LLM"):
        load_system(name)


def test_load_model_gives_the_class_of_the_checkpoint(tiny_nemo):
    model = load_model(tiny_nemo)
    assert type(model) is SALM and not model.training


def test_load_model_of_an_unknown_name_lists_what_there_is(tmp_path, monkeypatch):
    (tmp_path / "salm_first.nemo").touch()
    monkeypatch.setattr("nemo_speechllm.models.shipped.CHECKPOINT_FOLDER", tmp_path)
    with pytest.raises(CheckpointError, match="'salm_frist' is no model.*salm_first"):
        load_model("salm_frist")
    with pytest.raises(
        CheckpointError, match="'with_wisper:salm_first' is no model.*may stand int8: or with_whisper:$"
    ):
        load_model("with_wisper:salm_first")


def test_load_model_of_a_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match="gone.nemo does not exist"):
        load_model(tmp_path / "gone.nemo")


class TestWithWhisper:
    def test_whispers_decoder_has_a_say_and_the_checkpoint_stays_as_it_is(self):
        path = shipped_models()["salm_posterior_smollm2"]
        alone, told = load_model(path), load_model(f"with_whisper:{path}")
        assert alone.cfg.generation.whisper_weight == 0 and told.cfg.generation.whisper_weight == WHISPER_WEIGHT
        assert answering_record(alone)["generation"] != answering_record(told)["generation"]
        files = [str(RECORDINGS / f"{name}.flac") for name in ("evening", "digits_theo")]
        texts = told.transcribe(files, batch_size=2, verbose=False)
        assert texts[0].endswith("time that evening, the two men shook hands.")
        assert texts == [told.transcribe(file, verbose=False)[0] for file in files] != alone.transcribe(files)

    def test_words_that_whisper_heard_are_weighed_by_what_was_fitted_with_it(self, tmp_path):
        told = load_model("with_whisper:salm_posterior_smollm2")
        assert told.cfg.generation.confidence == WHISPER_CONFIDENCE
        change_generation(told, {"confidence": {"recogniser": 2.0}})
        told.save_to(tmp_path / "fitted.nemo")
        assert load_model(f"with_whisper:{tmp_path / 'fitted.nemo'}").cfg.generation.confidence.recogniser == 2.0

    def test_a_model_without_a_head_to_choose_among_is_refused(self, tiny_nemo):
        with pytest.raises(ValueError, match="this SALM has no such head .model.ctc_head.; leave with_whisper: out"):
            load_model(f"with_whisper:{tiny_nemo}")
        with pytest.raises(SettingError, match="whisper_weight"):
            change_generation(load_model(tiny_nemo), {"whisper_weight": 1.5})


class TestInt8:
    def test_it_answers_and_is_another_model_to_a_record_of_answers(self, tiny_nemo, make_audio):
        exact, rounded = load_model(tiny_nemo), load_model(f"int8:{tiny_nemo}")
        assert is_int8(rounded) and not is_int8(exact) and not rounded.training
        audio = [make_audio(seconds) for seconds in (0.5, 1.2)]
        alone = [rounded.transcribe(item, batch_size=1, verbose=False, max_new_tokens=4)[0] for item in audio]
        assert rounded.transcribe(audio, batch_size=2, verbose=False, max_new_tokens=4) == alone
        assert answering_record(exact)["model"] != answering_record(rounded)["model"]

    @pytest.mark.parametrize("kind", ["ctc_prompted", "instruct_las", "desta2"])
    def test_every_kind_of_model_answers(self, request, make_audio, tmp_path, kind):
        path = tmp_path / "model" / "x.nemo"
        request.getfixturevalue(f"make_{kind}")().save_to(path)
        assert len(load_model(f"int8:{path}").transcribe([make_audio(0.7)], verbose=False, max_new_tokens=3)) == 1

    def test_it_is_neither_saved_nor_trained(self, tiny_nemo, tmp_path):
        model = load_model(f"int8:{tiny_nemo}")
        with pytest.raises(CheckpointError, match="8 bits are not saved.*without int8:"):
            model.save_to(tmp_path / "x.nemo")
        assert not list(tmp_path.glob("x*"))
        with pytest.raises(ValueError, match="8 bits learn nothing"):
            model.setup_optimization()

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(CheckpointError, match="gone.nemo does not exist"):
            load_model(f"int8:{tmp_path / 'gone.nemo'}")


class TestAnswersOnly:
    @pytest.fixture
    def talkative_nemo(self, tiny_salm_config, tmp_path):
        path = tmp_path / "model" / "talkative.nemo"
        talkative(salm_of(tiny_salm_config, None)).save_to(path)
        return path

    @pytest.mark.parametrize("beam_size", [1, 2])
    def test_merged_lora_answers_the_same(self, talkative_nemo, make_audio, beam_size):
        plain, merged = load_model(talkative_nemo), load_model(talkative_nemo, answers_only=True)
        lora = [name for name, _ in plain.named_parameters() if ".lora_" in name]
        assert lora and not [name for name, _ in merged.named_parameters() if ".lora_" in name]
        audio = [make_audio(seconds) for seconds in (0.5, 1.2, 0.8)]
        settings = {"batch_size": 2, "verbose": False, "max_new_tokens": 8, "beam_size": beam_size}
        answers = plain.transcribe(audio, **settings)
        assert len(set(answers)) > 1 and merged.transcribe(audio, **settings) == answers

    def test_it_is_neither_saved_nor_trained(self, talkative_nemo, tmp_path):
        model = load_model(talkative_nemo, answers_only=True)
        with pytest.raises(CheckpointError, match="merged LoRA is not saved.*without answers_only"):
            model.save_to(tmp_path / "x.nemo")
        assert not list(tmp_path.glob("x*"))
        with pytest.raises(ValueError, match="merged LoRA learns nothing.*without answers_only"):
            model.setup_optimization()

    def test_weights_are_laid_out_where_that_is_faster(self, talkative_nemo, make_audio, monkeypatch):
        monkeypatch.setattr(linear, "is_faster", lambda: True)
        plain, packed = load_model(talkative_nemo), load_model(talkative_nemo, answers_only=True)
        assert is_packed(packed) and not is_packed(plain)
        audio = [make_audio(seconds) for seconds in (0.5, 1.2, 0.8)]
        for settings in ({"beam_size": 1}, {"beam_size": 2}, {"decoder": "ctc"}):
            settings |= {"batch_size": 2, "verbose": False, "max_new_tokens": 8}
            assert packed.transcribe(audio, **settings) == plain.transcribe(audio, **settings)

    def test_a_model_without_lora_is_not_trained_either(self, monkeypatch):
        monkeypatch.setattr(linear, "is_faster", lambda: True)
        model = load_model("instruct_las_digits", answers_only=True)
        assert model.transcribe(str(RECORDINGS / "digits_theo.flac"), verbose=False) == ["three one four one five"]
        with pytest.raises(ValueError, match="packed weights learn nothing.*without answers_only"):
            model.setup_optimization()

    @pytest.mark.parametrize("said", ["with_whisper:", ""])
    def test_what_is_said_before_the_name_changes_nothing_of_it(self, said, monkeypatch):
        monkeypatch.setattr(linear, "is_faster", lambda: True)
        assert is_packed(load_model(f"{said}salm_posterior_smollm2", answers_only=True))

    def test_a_type_that_would_round_what_is_merged_is_left_alone(self, tiny_salm_config, tmp_path):
        path = tmp_path / "model" / "rounded.nemo"
        salm_of(tiny_salm_config, None, llm={"dtype": "bfloat16"}).save_to(path)
        plain, asked = load_model(path).state_dict(), load_model(path, answers_only=True).state_dict()
        assert plain.keys() == asked.keys() and all(torch.equal(plain[name], asked[name]) for name in plain)

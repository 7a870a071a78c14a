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

"""The checkpoints that come with the package: small, free of the training machine's paths, and what they answer."""

import re
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from nemo_speechllm.checkpointing.errors import CheckpointError
from nemo_speechllm.models import SALM, CTCPromptedLLM, DeSTA2, InstructLAS, load_model
from nemo_speechllm.models.shipped import shipped_models
from nemo_speechllm.models.speech_lm import SpeechLM

RECORDINGS = Path(__file__).parents[1] / "recordings"
# (options of `transcribe`, what is answered by recording) of each checkpoint; every way of decoding is there once
ANSWERS = {
    "instruct_las_digits": [
        ({}, {"digits_theo": "three one four one five", "digits_jackson": "nine zero two seven"}),
        ({"beam_size": 4}, {"digits_theo": "three one four one five", "digits_jackson": "nine zero two seven"}),
        ({"decoder": "ctc"}, {"digits_theo": "three one four one five", "digits_jackson": "nine zero two seven"}),
        (
            {"instruction": "Say it backwards."},
            {"digits_theo": "five one four one three", "digits_jackson": "seven two zero nine"},
        ),
    ],
    "salm_whisper_smollm2": [
        (
            {},
            {
                "digits_theo": "three one four one five",
                "evening": "For the twenty time that evening the two men shined hands.",
            },
        ),
        ({"decoder": "ctc"}, {"evening": "For the twenty time that evening the two men sh hands."}),
        ({"beam_size": 2}, {"evening": "For the twentieth time that evening the two men shined hands."}),
        (
            {"keywords": ["evening", "Philip Steels"]},
            {
                "author": "Over of the dalit trail, Philip Steels, or.",
                "evening": "For the twenty-fourth time that evening the two men shined.",
            },
        ),
    ],
    "salm_posterior_smollm2": [
        ({}, {"author": "Author of the danger trail, Philip Stevens, c.", "digits_jackson": "nine zero two seven"}),
        ({"decoder": "ctc"}, {"author": "Athor of the danger trail, Philip Steels,c."}),
        (
            {"keywords": ["iced coffee", "Boston", "Philip Steels", "shook hands", "Kubernetes"]},
            {
                "author": "Athor of the danger trail, Philip Steels,c.",
                "evening": "For the twentieth time that evening the two men shook hands.",
            },
        ),
    ],
    "ctc_prompted_smollm2": [
        (
            {},
            {
                "author": "Author of the danger trail, Philip Steels, etc.",
                "evening": "For the twentieth time that evening the two men shok hands.",
                "digits_jackson": "Nine zero two seven.",
            },
        ),
        (
            {"decoder": "ctc"},
            {
                "author": "Author of the danger trail, Philip Steels, etc.",
                "evening": "For the twentieth time that evening the two men shok hands.",
            },
        ),
    ],
    "desta2_whisper_base_qwen": [
        (
            {"instruction": "Tell me the sex of the talker. The options are male, female."},
            {"author": "The sex of the talker is female.", "digits_theo": "The sex of the talker is Male."},
        ),
    ],
}


@pytest.mark.parametrize(
    ("model_class", "names"),
    [
        (SALM, ["salm_posterior_smollm2", "salm_whisper_smollm2"]),
        (InstructLAS, ["instruct_las_digits"]),
        (CTCPromptedLLM, ["ctc_prompted_smollm2"]),
        (DeSTA2, ["desta2_whisper_base_qwen"]),
    ],
)
def test_a_class_lists_its_own(model_class, names):
    assert [info.pretrained_model_name for info in model_class.list_available_models()] == names


@pytest.fixture(scope="module", params=sorted(ANSWERS))
def shipped(request):
    """Name and model of each shipped checkpoint, restored once."""
    return request.param, load_model(request.param)


def test_every_shipped_checkpoint_is_tested():
    assert sorted(shipped_models()) == sorted(ANSWERS)


@pytest.mark.slow
def test_a_shipped_checkpoint_is_small_portable_and_answers(shipped, make_audio):
    name, model = shipped
    assert shipped_models()[name].stat().st_size <= 25 * 2**20
    saved = OmegaConf.to_yaml(SpeechLM.restore_from(shipped_models()[name], return_config=True))
    assert not re.findall(r"[:-] '?/\w+.*", saved), "an absolute path of the machine it was made on"
    assert all(section.by_reference for section in model.references.values())
    answers = model.transcribe([make_audio(1.0), make_audio(0.5, seed=1)], max_new_tokens=8, verbose=False)
    assert [type(answer) for answer in answers] == [str, str]


@pytest.mark.slow
def test_a_shipped_checkpoint_answers_real_recordings_as_it_did(shipped):
    """Other versions of the libraries, and changes here, must not change an answer without a word."""
    name, model = shipped
    for options, expected in ANSWERS[name]:
        paths = [str(RECORDINGS / f"{recording}.flac") for recording in expected]
        answers = model.transcribe(paths, batch_size=len(paths), verbose=False, **options)
        assert dict(zip(expected, answers, strict=True)) == expected, options


class TestAnotherFolder:
    @pytest.fixture
    def folder(self, salm, tmp_path, monkeypatch):
        monkeypatch.setattr("nemo_speechllm.models.shipped.CHECKPOINT_FOLDER", tmp_path / "shipped")
        salm.save_to(tmp_path / "shipped/salm_x.nemo")
        (tmp_path / "shipped/desta2_y.nemo").touch()

    def test_list_and_load(self, folder, salm, make_audio):
        assert [info.pretrained_model_name for info in SALM.list_available_models()] == ["salm_x"]
        assert list(shipped_models()) == ["desta2_y", "salm_x"], "those of the base class are all there are"
        restored = SALM.from_pretrained("salm_x")
        samples = make_audio(1.0)
        assert restored.transcribe(samples, verbose=False) == salm.transcribe(samples, verbose=False)

    def test_an_unknown_name_is_an_error_that_lists_the_known(self, folder):
        with pytest.raises(CheckpointError, match=r"salm_z.*salm_x"):
            SALM.from_pretrained("salm_z")

    def test_training_starts_from_one(self, folder, salm, make_salm):
        model = make_salm()
        assert not _equal(model, salm)
        model.maybe_init_from_pretrained_checkpoint(OmegaConf.create({"init_from_pretrained_model": "salm_x"}))
        assert _equal(model, salm)


def _equal(one: SALM, other: SALM) -> bool:
    states = one.state_dict(), other.state_dict()
    return states[0].keys() == states[1].keys() and all(torch.equal(v, states[1][k]) for k, v in states[0].items())

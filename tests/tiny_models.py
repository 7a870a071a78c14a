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

"""Fixtures of whole models: a tiny SALM, both stages of a tiny CTC-prompted LLM, and a tiny InstructLAS."""

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from nemo.collections.asr.models import EncDecCTCModelBPE
from nemo.collections.common.tokenizers.sentencepiece_tokenizer import create_spt_model
from omegaconf import DictConfig, OmegaConf

from nemo_speechllm.data.conversation import Audio, Conversation
from nemo_speechllm.models import SALM, CTCPromptedLLM, InstructLAS
from nemo_speechllm.models.speech_lm import SpeechLM

ROOT = Path(__file__).parents[1]
SENTENCES = (
    "Press one for support.",
    "Please hold the line.",
    "Thank you.",
    "Your call is important to us.",
    "Нажмите решетку.",
    "Merci de patienter.",
)
DURATIONS = (1.0, 0.21, 2.4, 0.7, 1.77)  # of what is transcribed word by word
TINY_ENCODER = {"n_layers": 1, "d_model": 32, "n_heads": 4, "subsampling_conv_channels": 8, "ff_expansion_factor": 2}


class SaveAt(pl.Callback):
    """Writes a checkpoint at the end of a step."""

    def __init__(self, step: int, path: Path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


@pytest.fixture
def save_at() -> type[SaveAt]:
    """``save_at(step, path)`` → a callback that writes a checkpoint at the end of a step."""
    return SaveAt


@pytest.fixture
def make_trainer() -> Callable[..., pl.Trainer]:
    """``make_trainer(**options)`` → a quiet trainer on the CPU that writes nothing by itself."""

    def make(**options) -> pl.Trainer:
        defaults = dict(
            accelerator="cpu", max_steps=2, enable_checkpointing=False, logger=False, num_sanity_val_steps=0
        )
        return pl.Trainer(**defaults | {"enable_progress_bar": False, "use_distributed_sampler": False} | options)

    return make


@pytest.fixture
def make_salm(tiny_salm_config: DictConfig) -> Callable[..., SALM]:
    """``make_salm(**changes)`` → a SALM in eval mode whose config has ``changes`` merged into it; the same seed each
    time."""

    def make(**changes) -> SALM:
        torch.manual_seed(0)
        return SALM(OmegaConf.merge(tiny_salm_config.model, changes)).eval()

    return make


@pytest.fixture
def salm(make_salm: Callable[..., SALM]) -> SALM:
    """The tiny recipe's model, its LoRA as if trained: what it answers depends on the audio."""
    return talkative(make_salm())


@pytest.fixture
def tiny_nemo(tiny_salm_config: DictConfig, tmp_path: Path) -> str:
    """Path of a tiny SALM with random weights."""
    torch.manual_seed(0)
    path = tmp_path / "model" / "tiny.nemo"
    SALM(tiny_salm_config.model).save_to(path)
    return str(path)


def salm_of(cfg, trainer, **changes) -> SALM:
    """The model as ``examples/train.py`` makes it, with its data."""
    torch.manual_seed(0)
    return SALM(OmegaConf.merge(cfg.model, changes), trainer)


def talkative(model: SALM) -> SALM:
    """Gives what trains in a model random weights of such a size that its answers differ from audio to audio."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.llm.named_parameters():
            if ".lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
        model.perception.projection.scale.fill_(2.0)
        if model.alignment is not None:
            model.alignment.seen[:40] = True  # CTC hears only tokens that it met in training
    return model


def knowing_words(salm: SALM) -> SALM:
    """A SALM whose CTC has met a few words, and nothing else."""
    words = "press one for support please hold the line thank you".split()
    salm.alignment.seen[:] = False
    salm.alignment.seen[
        [token for row in salm.alignment.ids([*words, *(f" {w}" for w in words)]) for token in row]
    ] = True
    return salm


def asked(model: SpeechLM, samples: np.ndarray) -> Conversation:
    return model.builder.conversation(Audio(torch.from_numpy(samples)), {"lang": "en"}, "recording 7")


def with_blanks(model: SpeechLM, samples: np.ndarray) -> SpeechLM:
    """Makes the CTC head of a model read blanks in six of ten frames, as a trained one does and random weights do not.

    So what it reads can be read back: its text has fewer tokens than frames.
    """
    with torch.no_grad():
        perceived = model.perception(torch.from_numpy(samples)[None], torch.tensor([len(samples)]))
        (log_probs,) = model.ctc_head.log_probs(model.ctc_states(perceived)[0])
        margins = log_probs.amax(-1) - log_probs[:, model.ctc_head.blank]
        model.ctc_head.decoder.decoder_layers[0].bias[model.ctc_head.blank] += margins.quantile(0.6)
    return model


@pytest.fixture(scope="session")
def ctc_tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A case-folding SentencePiece tokenizer of a few sentences, as ``examples/data/train_tokenizer.py`` writes it."""
    folder = tmp_path_factory.mktemp("ctc_tokenizer")
    (folder / "text.txt").write_text("\n".join(SENTENCES * 5) + "\n", encoding="utf-8")
    create_spt_model(str(folder / "text.txt"), 48, -1, do_lower_case=True, output_dir=str(folder / "out"))
    return folder / "out"


@pytest.fixture(scope="session")
def stage1_nemo(tmp_path_factory: pytest.TempPathFactory, ctc_tokenizer_folder: Path) -> Path:
    """A ``.nemo`` of the recipe ``stage1_ctc`` at tiny size with random weights; its head says something."""
    recipe = OmegaConf.load(ROOT / "conf/ctc_prompted_llm/stage1_ctc.yaml")
    tiny = {"tokenizer": {"dir": str(ctc_tokenizer_folder)}, "encoder": TINY_ENCODER}
    recipe.model = OmegaConf.merge(recipe.model, tiny, {"train_ds": None, "validation_ds": None, "optim": None})
    OmegaConf.resolve(recipe)
    torch.manual_seed(0)
    model = EncDecCTCModelBPE(recipe.model).eval()
    with torch.no_grad():  # states of random weights are much alike: without this all frames would say the same
        features = model.preprocessor(input_signal=torch.randn(1, 32000), length=torch.tensor([32000]))
        states = model.encoder(audio_signal=features[0], length=features[1])[0]
        layer = model.decoder.decoder_layers[0]
        layer.weight.mul_(20.0)
        layer.bias.copy_(-(layer.weight[..., 0] @ states.mean((0, 2))))
    path = tmp_path_factory.mktemp("stage1") / "stage1.nemo"
    model.save_to(str(path))
    return path


@pytest.fixture
def ctc_prompted_config(tiny_llm_folder: Path, stage1_nemo: Path, tmp_path: Path) -> DictConfig:
    """The model section of ``conf/ctc_prompted_llm/stage2_llm.yaml`` at tiny size, without data; stage 1's file is the
    test's."""
    cfg = OmegaConf.load(ROOT / "conf/ctc_prompted_llm/stage2_llm.yaml").model
    stage1 = shutil.copy(stage1_nemo, tmp_path / "stage1.nemo")
    tiny = {
        "llm": {"pretrained": str(tiny_llm_folder)},
        "perception": {"encoder": {"pretrained": str(stage1)}},
        "generation": {"max_new_tokens": 8},
        "train_ds": None,
        "validation_ds": None,
    }
    return OmegaConf.merge(cfg, tiny)


@pytest.fixture
def make_ctc_prompted(ctc_prompted_config: DictConfig) -> Callable[..., CTCPromptedLLM]:
    """``make_ctc_prompted(**changes)`` → a CTCPromptedLLM in eval mode whose answers depend on the audio."""

    def make(**changes) -> CTCPromptedLLM:
        torch.manual_seed(0)
        return talkative(CTCPromptedLLM(OmegaConf.merge(ctc_prompted_config, changes)).eval())

    return make


@pytest.fixture(scope="session")
def tokenizer_script() -> ModuleType:
    """``examples/data/train_tokenizer.py``."""
    spec = importlib.util.spec_from_file_location("train_tokenizer", ROOT / "examples/data/train_tokenizer.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


@pytest.fixture(scope="session")
def instruction_tokenizer_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer_script: ModuleType) -> Path:
    """A SentencePiece tokenizer with ``[EOT]``, as ``examples/data/train_tokenizer.py --instructions`` writes it."""
    folder = tmp_path_factory.mktemp("instruction_tokenizer") / "tokenizer"
    tokenizer_script.train(
        [*SENTENCES, "Transcribe the speech.", "Repeat the last word."], folder, 96, instructions=True
    )
    return folder


@pytest.fixture
def instruct_las_recipe(instruction_tokenizer_folder: Path) -> DictConfig:
    """``conf/instruct_las/small.yaml`` at tiny size; data is to be given."""
    cfg = OmegaConf.load(ROOT / "conf/instruct_las/small.yaml")
    tiny = {
        "tokenizer": {"dir": str(instruction_tokenizer_folder)},
        "perception": {"encoder": {"config": {"encoder": TINY_ENCODER}}},
        "decoder": {"n_layers": 2, "d_model": 48, "n_heads": 4},
        "generation": {"max_new_tokens": 12},
    }
    cfg.model = OmegaConf.merge(cfg.model, tiny)
    return cfg


@pytest.fixture
def make_instruct_las(instruct_las_recipe: DictConfig) -> Callable[..., InstructLAS]:
    """``make_instruct_las(**changes)`` → an InstructLAS in eval mode whose answers depend on audio and instruction."""
    no_data = {"train_ds": None, "validation_ds": None}

    def make(**changes) -> InstructLAS:
        torch.manual_seed(0)
        config = OmegaConf.create({"model": OmegaConf.merge(instruct_las_recipe.model, no_data, changes)})
        model = InstructLAS(config.model, None).eval()
        with torch.no_grad():
            for parameter in model.text_decoder.parameters():
                parameter.mul_(1.7)
        return model

    return make

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

"""One call that restores any model of this package, whatever its class, and one for what they are compared with."""

from pathlib import Path
from typing import Any

import torch
from nemo.core.classes.common import PretrainedModelInfo
from nemo.utils.model_utils import resolve_subclass_pretrained_model_info
from torch import nn

from nemo_speechllm.checkpointing.errors import CheckpointError
from nemo_speechllm.errors import InputError
from nemo_speechllm.models.answers import change_generation
from nemo_speechllm.models.baseline import Baseline
from nemo_speechllm.models.cascade import Cascade
from nemo_speechllm.models.ctc_head_lm import CTCHeadSpeechLM
from nemo_speechllm.models.shipped import shipped_models
from nemo_speechllm.models.speech_lm import SpeechLM
from nemo_speechllm.models.whisper_baseline import WhisperBaseline
from nemo_speechllm.modules.linear import pack_weights
from nemo_speechllm.modules.llm import merge_lora
from nemo_speechllm.modules.quantization import to_int8
from nemo_speechllm.recipes.generation import WINDOW_SECONDS

WHISPER, CASCADE, INT8, WITH_WHISPER = "whisper:", "cascade:", "int8:", "with_whisper:"
WHISPER_WEIGHT = 0.7  # of dev prompts and spoken orders: see docs/results/salm_posterior_smollm2.md
# what speaks for a word where Whisper has heard it: fitted on dev prompts, see docs/results/confidence.md
WHISPER_CONFIDENCE = {"bias": 1.0, "decoder": 0.2, "ctc": 0.7, "hypotheses": 0.9, "letters": 0.6, "recogniser": 0.4}


def list_shipped_models() -> list[PretrainedModelInfo]:
    """Return what NeMo's ``list_available_models`` says of each of them, its class with it."""
    return resolve_subclass_pretrained_model_info(SpeechLM)


def load_model(reference: str | Path, answers_only: bool = False) -> SpeechLM:
    """Restore a model in evaluation mode; its class is the one its config names.

    Args:
        reference: name of a shipped checkpoint, path of a ``.nemo`` file, or hub id ``org/name``; for a
            CPU one of these after ``int8:``, see `nemo_speechllm.modules.quantization.to_int8`; any of these after
            ``with_whisper:``, and Whisper's own decoder has a say in transcripts, see
            `nemo_speechllm.models.whisper_reader`.
        answers_only: merge LoRA into an LLM of float32, which then answers sooner. Such a model is neither trained nor
            saved. Other types would round what is merged, and stay as they are.

    Raises:
        CheckpointError: nothing is found under the reference, or the checkpoint cannot be restored; see
            `SpeechLM.restore_from`.
        ValueError: ``with_whisper:`` stands before a model whose transcripts Whisper has no say in.
    """
    name, path = str(reference), Path(reference).expanduser()
    if name.startswith(INT8):
        model = load_model(name.removeprefix(INT8))
        to_int8(model)
        return model
    if name.startswith(WITH_WHISPER):
        model = load_model(name.removeprefix(WITH_WHISPER), answers_only)
        _read_with_whisper(model, name)
        return model
    if name in shipped_models():
        model = SpeechLM.restore_from(shipped_models()[name])
    elif path.suffix == ".nemo" or path.is_file():
        model = SpeechLM.restore_from(path)
    elif name.count("/") == 1:
        model = SpeechLM.from_pretrained(name)
    else:
        raise CheckpointError(f"{name!r} is no model. {_remedy()}")
    if answers_only:
        only_answer(model)
    return model.eval()


def _read_with_whisper(model: SpeechLM, name: str) -> None:
    if not isinstance(model, CTCHeadSpeechLM) or model.ctc_head is None:
        raise InputError(
            f"{name}: Whisper has a say where the LLM chooses among the hypotheses of a CTC head, and this "
            f"{type(model).__name__} has no such head (model.ctc_head); leave {WITH_WHISPER} out"
        )
    generation = model.cfg.generation
    seconds = min(generation.max_audio_seconds or WINDOW_SECONDS, WINDOW_SECONDS)
    changes: dict[str, Any] = {"whisper_weight": WHISPER_WEIGHT, "max_audio_seconds": seconds}
    if generation.whisper_weight == 0:  # else its evidence has been weighed with Whisper's already
        changes["confidence"] = WHISPER_CONFIDENCE
    change_generation(model, changes)
    model.whisper_reader.require()


def split_reference(reference: str) -> tuple[str, str]:
    """Return what is said of a model before its name (``int8:``, ``with_whisper:``), and the name, or the path."""
    place = reference
    while place.startswith((INT8, WITH_WHISPER)):
        place = place.partition(":")[2]
    return reference[: len(reference) - len(place)], place


def only_answer(model: nn.Module) -> None:
    """Make of a model one that only answers, in place; see ``answers_only`` of `load_model`.

    Where it is written down which weights have answered, that comes first: merged ones are other ones.
    """
    merge_lora(model, torch.float32)
    pack_weights(model)


def load_system(name: str) -> SpeechLM | Baseline:
    """Return a model or a baseline, in evaluation mode.

    Args:
        name: what `load_model` takes; ``whisper:NAME``, Whisper with its own decoder; or ``cascade:ASR+LLM``, an LLM
            that reads the transcription of ASR, which is one of the former.

    Raises:
        CheckpointError: see `load_model`.
        nemo_speechllm.assets.AssetError: a baseline's Whisper or LLM cannot be found.
        ValueError: a cascade has no two parts.
    """
    if name.startswith(WHISPER):
        return WhisperBaseline(name.removeprefix(WHISPER))
    if not name.startswith(CASCADE):
        return load_model(name)
    recognizer, _, llm = name.removeprefix(CASCADE).rpartition("+")
    if not recognizer or not llm:
        raise ValueError(
            f"{name}: give a cascade as {CASCADE}ASR+LLM, e.g. {CASCADE}{WHISPER}whisper-base+smollm2-135m-instruct"
        )
    return Cascade(load_system(recognizer), llm)


def _remedy() -> str:
    return (
        "Give a .nemo file, a hub id (org/name), or the name of a shipped checkpoint: "
        f"{', '.join(shipped_models()) or 'there are none in this installation'}. Before one of these may stand "
        f"{INT8} or {WITH_WHISPER}"
    )

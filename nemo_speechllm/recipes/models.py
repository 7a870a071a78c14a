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

"""The ``model`` section of each model, as a whole."""

from dataclasses import dataclass
from typing import Any, ClassVar

from nemo_speechllm.recipes import sections
from nemo_speechllm.recipes.data import Data
from nemo_speechllm.recipes.generation import CTCHeadGeneration, Generation
from nemo_speechllm.recipes.nemo import Built, Optimizer, SpectrogramAugmentation
from nemo_speechllm.recipes.settings import setting, written


@dataclass
class TrainedRecipe:
    """What every model that is trained here has."""

    non_finite: str = setting("stop", one_of=("stop", "skip"))  # what to do about a loss that is no number


@dataclass
class SpeechLMRecipe(TrainedRecipe):
    """What every speech LM has.

    Attributes:
        nsys_profile, memory_profile, chakra_profile, dump_debug_info, dump_debug_info_to_file, optim_param_groups:
            NeMo's.
    """

    target: str | None = written()  # full name of the model's class
    save_full: bool = setting(False)  # put frozen pretrained parts into the checkpoint as well
    perception: sections.Perception = setting(sections.Perception)
    prompt: sections.Prompt = setting(sections.Prompt)
    generation: Generation = setting(Generation)
    # the decoder reads one embedding for each token that CTC hears, instead of one for each frame
    ctc_compression: bool = setting(False)
    freeze_params: list[str] | None = setting(None)  # regular expressions on parameter names
    instruction_sampling: sections.InstructionSampling | None = setting(None)
    keyword_context: sections.KeywordContext | None = setting(None)
    # of word and character error rates; auto: by each line's lang
    normalizer: str = setting("auto", one_of=("auto", "english", "basic", "none"))
    train_ds: Data | None = setting(None)
    validation_ds: Data | None = setting(None)
    test_ds: Data | None = setting(None)
    optim: Optimizer | None = setting(None)
    optim_param_groups: dict[str, Any] | None = written()
    nemo_version: str | None = written()
    nsys_profile: dict[str, Any] | None = written()
    memory_profile: dict[str, Any] | None = written()
    chakra_profile: dict[str, Any] | None = written()
    dump_debug_info: bool | None = written()
    dump_debug_info_to_file: bool | None = written()


@dataclass
class DecoderOnlyRecipe(SpeechLMRecipe):
    """What all models have whose LLM reads audio as embeddings."""

    llm: sections.LLM = setting(sections.LLM)
    lora: sections.LoRA | None = setting(None)
    loss: sections.Loss = setting(sections.Loss)
    prompt: sections.ChatPrompt = setting(sections.ChatPrompt)
    artifacts: dict[str, Any] | None = written()  # the LLM's config and tokenizer, in a checkpoint


@dataclass
class CTCHeadRecipe(DecoderOnlyRecipe):
    """SALM, and what its kind has: a CTC head may stand beside the LLM."""

    loss: sections.CTCHeadLoss = setting(sections.CTCHeadLoss)
    generation: CTCHeadGeneration = setting(CTCHeadGeneration)
    ctc_head: sections.CTCHead | None = setting(None)
    ctc_posterior: sections.CTCPosterior | None = setting(None)


@dataclass
class CTCPromptedRecipe(CTCHeadRecipe):
    """CTCPromptedLLM."""

    ctc_head: sections.CTCHead = setting(sections.CTCHead)
    text_mask: sections.TextMask | None = setting(None)


@dataclass
class DeSTA2Recipe(DecoderOnlyRecipe):
    """DeSTA2."""

    perception: sections.WhisperPerception = setting(sections.WhisperPerception)
    transcription: sections.Transcription = setting(sections.Transcription)
    ctc_attributes: list[str] = setting([])  # of a seed transcript, which the queries write where CTC has a weight


@dataclass
class InstructLASRecipe(SpeechLMRecipe):
    """InstructLAS."""

    tokenizer: sections.Tokenizer = setting(sections.Tokenizer)
    decoder: sections.TextDecoder = setting(sections.TextDecoder)
    text_encoder: sections.TextEncoder | None = setting(
        None
    )  # null: the decoder knows instructions by its own sub-words
    instruction_dropout: float = setting(0.0, at_least=0, below=1)  # share of those that training reads as unknown
    loss: sections.InstructLASLoss = setting(sections.InstructLASLoss)


# of NeMo's EncDecCTCModelBPE; of what is below them NeMo tells what it does not know
CTC_KEYS = (
    *("target", "nemo_version", "sample_rate", "log_prediction", "use_cer", "ctc_reduction", "skip_nan_grad"),
    *("compute_eval_loss", "batch_dim_index", "labels", "tokenizer", "decoding", "init_strict", "variational_noise"),
    *("interctc", "aux_ctc", "model_defaults", "adapters", "freeze_updates", "optim_param_groups"),
    *("nsys_profile", "memory_profile", "chakra_profile", "dump_debug_info", "dump_debug_info_to_file"),
)


def _ctc_keys(given: dict[str, Any]) -> tuple[str, ...]:
    return CTC_KEYS


@dataclass
class CTCRecipe(TrainedRecipe):
    """Stage 1 of the CTC-prompted LLM: NeMo's ``EncDecCTCModelBPE``."""

    beside: ClassVar = _ctc_keys

    preprocessor: Built = setting(Built)
    spec_augment: SpectrogramAugmentation | None = setting(None)
    encoder: Built = setting(Built)
    decoder: Built = setting(Built)
    train_ds: Data | None = setting(None)
    validation_ds: Data | None = setting(None)
    test_ds: Data | None = setting(None)
    optim: Optimizer | None = setting(None)


@dataclass
class Teacher:
    """A frozen encoder whose states a student learns to predict."""

    encoder: dict[str, Any] = setting(types=sections.ENCODERS, other=sections.OtherEncoder)
    weight: float = setting(40.0, at_least=0)  # of the mean squared error, beside the CTC loss per token
    state_cache: str | None = setting(None)  # folder for its states: it is run once for each utterance


@dataclass
class TaughtCTCRecipe(CTCRecipe):
    """And a teacher."""

    teacher: Teacher = setting(Teacher)

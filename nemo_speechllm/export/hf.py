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

"""A SALM as a folder of Hugging Face: ``AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)``.

No class of transformers is a SALM (Whisper at a clip's own length, stacked, a Conformer, one embedding for each token
that CTC hears), and one written out would repeat this package's modules. So the folder's code is one file,
`nemo_speechllm.export.modeling_speech_lm`, which builds of these modules, and who loads it needs this package.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from omegaconf import OmegaConf
from transformers import GenerationConfig, PreTrainedTokenizerBase

from nemo_speechllm.export.chat import AUDIO, exported_tokenizer
from nemo_speechllm.export.modeling_speech_lm import (
    SpeechLMConfig,
    SpeechLMForConditionalGeneration,
    SpeechLMProcessor,
)
from nemo_speechllm.export.weights import merged
from nemo_speechllm.files import whole_folder
from nemo_speechllm.models.salm import SALM
from nemo_speechllm.models.speech_lm import SpeechLM
from nemo_speechllm.modules.quantization import is_int8
from nemo_speechllm.recipes.sections import ADAPTERS, ENCODERS

AUTO_CLASS = "AutoModelForCausalLM"
OTHER_AUTO_CLASSES = ("AutoModel", "AutoModelForMultimodalLM", "AutoModelForSpeechSeq2Seq")


def export_hf(model: SpeechLM, output: Path, dtype: torch.dtype | None = None) -> None:
    """Write a folder with weights, code, processor, chat template and generation config; see the top of this file.

    The model is changed: its LoRA is merged.

    Args:
        output: a new folder.
        dtype: what the weights are rounded to; None: they stay as they are.

    Raises:
        ExportError: the folder has no place for a part of it; the message names its settings.
        FileExistsError: the folder is there already.
    """
    salm = merged(model, "hf", obstacles(model), dtype)
    with whole_folder(output) as folder:
        tokenizer = exported_tokenizer(salm)
        exported = hf_model(salm, tokenizer)
        processor = SpeechLMProcessor(tokenizer, chat_template=tokenizer.chat_template, audio_token=AUDIO)
        SpeechLMConfig.register_for_auto_class()
        SpeechLMForConditionalGeneration.register_for_auto_class(AUTO_CLASS)
        SpeechLMProcessor.register_for_auto_class()
        exported.save_pretrained(folder)
        processor.save_pretrained(folder)


def obstacles(model: SpeechLM) -> Iterator[str]:
    """Yield the settings for which the folder has no place, each with the reason."""
    if not isinstance(model, SALM):
        yield f"model.target is {type(model).__name__}, and the folder's code is a SALM's"
        return
    if is_int8(model):
        yield "its weights are of 8 bits; give the model without int8:"
    perception = model.cfg.perception
    if perception.encoder.type not in ENCODERS:
        yield f"model.perception.encoder.type={perception.encoder.type} is a plug-in's, which the folder cannot build"
    if perception.adapter and perception.adapter.type not in ADAPTERS:
        yield f"model.perception.adapter.type={perception.adapter.type} is a plug-in's, which the folder cannot build"
    if model.posterior is not None:
        yield "model.ctc_posterior, by which the LLM reads what a CTC head hears, and the folder has no head"


def hf_model(model: SALM, tokenizer: PreTrainedTokenizerBase) -> SpeechLMForConditionalGeneration:
    """Return the Hugging Face model of a SALM whose LoRA is merged, with its weights."""
    compresses = bool(model.cfg.ctc_compression)
    code = (
        f"{SpeechLMForConditionalGeneration.__module__.rpartition('.')[2]}.{SpeechLMForConditionalGeneration.__name__}"
    )
    llm = model.llm.config.to_dict()
    config = SpeechLMConfig(
        text_config={key: value for key, value in llm.items() if key != "_name_or_path"},  # a place of this machine
        perception=_perception_section(model),
        ctc_compression=compresses,
        audio_token=AUDIO,
        audio_token_id=cast(int, tokenizer.convert_tokens_to_ids(AUDIO)),
        auto_map=dict.fromkeys(OTHER_AUTO_CLASSES, code),
    )
    exported = SpeechLMForConditionalGeneration(config).eval()
    parts = {"llm": model.llm, "perception": model.perception, "alignment": model.alignment if compresses else None}
    for name, part in parts.items():
        if part is not None:
            buffers = {key: value for key, value in part.named_buffers()}
            exported.get_submodule(name).load_state_dict(
                part.state_dict() | buffers, strict=name != "llm", assign=True
            )
    exported.generation_config = _generation_config(model, tokenizer)
    return exported


def _perception_section(model: SALM) -> dict[str, Any]:
    """Return the recipe's section as the folder builds it: of its config, with no file of this machine."""
    section = cast(dict[str, Any], OmegaConf.to_container(model.cfg.perception, resolve=True))
    section["encoder"] |= {"pretrained": None, "fingerprint": None, "spec_augment": None}
    return section | {"state_cache": None, "state_mask": None}


def _generation_config(model: SALM, tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    settings = model.cfg.generation
    return GenerationConfig(
        max_new_tokens=settings.max_new_tokens,
        num_beams=settings.beam_size,
        repetition_penalty=float(settings.repetition_penalty),
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )

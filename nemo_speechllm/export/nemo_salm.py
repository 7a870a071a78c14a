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

"""A SALM as a folder of NeMo's own ``nemo.collections.speechlm2.models.SALM``.

NeMo's perception is preprocessor → encoder → modality adapter → linear. This package's projection also brings every
frame to the size of the LLM's embeddings (`LLMProjection`). Without an adapter that is written in NeMo's own modules:
a layer norm over a vector beside its negative divides it by its root mean square, as its mean is 0. So such a folder
needs nothing but NeMo. With a Conformer adapter the folder names a class of this package in its place.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from nemo.collections.asr.parts.submodules.subsampling import StackingSubsampling
from nemo.utils import logging
from omegaconf import OmegaConf
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from nemo_speechllm.export.chat import AUDIO, expected_ids, exported_tokenizer
from nemo_speechllm.export.weights import merged
from nemo_speechllm.files import whole_folder
from nemo_speechllm.models.salm import SALM
from nemo_speechllm.models.speech_lm import SpeechLM
from nemo_speechllm.modules.quantization import is_int8

LLM_FOLDER = "llm_backbone"  # where NeMo looks for the LLM's config
PROMPT_FORMATS = ("qwen3", "qwen", "llama3", "llama2", "mistral", "gemma", "plain")  # NeMo's for chats
NO_PROMPT_FORMAT = "none: give token ids of the tokenizer's chat template"
LAYER_NORM_EPS = 1e-5  # of NeMo's TransformerEncoder
VLLM_FRAME_SHIFT = 0.08  # seconds per state, by which NeMo's vLLM plugin counts positions


def export_nemo_salm(model: SpeechLM, output: Path, dtype: torch.dtype | None = None) -> None:
    """Write a folder that NeMo's ``SALM.from_pretrained`` reads and whose ``generate`` gives the LLM's own answers.

    The model is changed: its LoRA is merged.

    Args:
        output: a new folder.
        dtype: what the weights are rounded to; None: they stay as they are.

    Raises:
        ExportError: NeMo has no equal for a part of it; the message names its settings.
        FileExistsError: the folder is there already.
    """
    salm = merged(model, "nemo_salm", obstacles(model), dtype)
    with whole_folder(output) as folder:
        tokenizer = exported_tokenizer(salm)
        tokenizer.save_pretrained(folder)
        salm.llm.config.save_pretrained(folder / LLM_FOLDER)
        config = nemo_config(salm, tokenizer)
        _save(config | {"pretrained_llm": str(folder / LLM_FOLDER)}, salm, folder, config | _placed(salm, output))
    _tell(salm, config, output)


def obstacles(model: SpeechLM) -> Iterator[str]:
    """Yield the settings for which NeMo's SALM has no place, each with the reason."""
    if not isinstance(model, SALM):
        yield f"model.target is {type(model).__name__}, and NeMo's is a SALM"
        return
    if is_int8(model):
        yield "its weights are of 8 bits; give the model without int8:"
    perception = model.cfg.perception
    if perception.encoder.type != "nemo":
        yield f"model.perception.encoder.type={perception.encoder.type}, and NeMo's SALM has its own encoders alone"
    elif isinstance(model.get_submodule("perception.encoder.encoder.pre_encode"), StackingSubsampling):
        yield "model.perception.encoder stacks frames, where NeMo's SALM reads padding that this package leaves out"
    if perception.adapter and perception.adapter.type != "conformer":
        yield f"model.perception.adapter.type={perception.adapter.type}, for which NeMo has no equal"
    if model.posterior is not None:
        yield "model.ctc_posterior, by which the LLM reads what CTC hears, and NeMo's reads frames"
    if model.cfg.ctc_compression:
        yield "model.ctc_compression=true, by which the LLM reads one embedding for each token, and NeMo's reads all"
    decoder = getattr(model.llm, "model", None)
    if not hasattr(decoder, "embed_tokens") or not hasattr(model.llm, "lm_head"):
        yield f"model.llm.pretrained is a {type(model.llm).__name__}, which has no model.embed_tokens that NeMo takes"


def nemo_config(model: SALM, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return the config of NeMo's SALM, but for ``pretrained_llm``."""
    encoder = model.cfg.perception.encoder
    parts = cast(dict[str, Any], OmegaConf.to_container(encoder.config, resolve=True))
    d_llm = model.perception.projection.linear.out_features
    return {
        "pretrained_asr": Path(encoder.pretrained).name if encoder.pretrained else "in model.safetensors",
        "pretrained_weights": False,
        "audio_locator_tag": AUDIO,
        "prompt_format": prompt_format(model, tokenizer),
        "perception": {
            "preprocessor": parts["preprocessor"] | {"pad_to": 0},  # as `NeMoEncoder` reads
            "encoder": parts["encoder"],
            "modality_adapter": _adapter_config(model, d_llm),
            "output_dim": d_llm,
        },
    }


def prompt_format(model: SALM, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return which of NeMo's prompt formats asks as the model was asked; where none does, a name that NeMo refuses."""
    from nemo.collections.common.prompts import PromptFormatter

    instruction = next(map(str, model.cfg.prompt.instructions.values()), "")
    expected = expected_ids(model, tokenizer, instruction)
    for name in PROMPT_FORMATS:
        formatter = PromptFormatter.resolve(name)
        turns = [{"role": "user", "content": AUDIO + instruction}]
        if model.prompt.system_prompt and "system" in formatter.get_roles():
            turns.insert(0, {"role": "system", "content": model.prompt.system_prompt})
        asked = formatter(_NeMoTokenizer(tokenizer)).encode_dialog(turns)["input_ids"]
        if asked.tolist() == expected:
            return name
    return NO_PROMPT_FORMAT


class _NeMoTokenizer:
    """What prompt formats ask of a tokenizer; NeMo's own reads a folder again for each."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        self.bos, self.eos = tokenizer.bos_token_id, tokenizer.eos_token_id

    def text_to_ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False).input_ids


def is_nemo_alone(model: SALM) -> bool:
    """Whether NeMo's own modules can say all that follows the encoder."""
    return model.perception.adapter is None and model.perception.stacking.n == 1


def _adapter_config(model: SALM, d_llm: int) -> dict[str, Any]:
    d_in = model.perception.encoder.d_model
    if is_nemo_alone(model):  # linear → layer norm; see the top of this file
        return {
            "_target_": "nemo.collections.asr.modules.transformer_encoder.TransformerEncoder",
            **{"feat_in": d_in, "d_model": 2 * d_llm, "n_heads": 1, "n_layers": 0, "drop_rate": 0.0},
            **{"subsampling": None, "subsampling_factor": 1},
            **{"self_attention_model": "no_pos", "pre_block_norm": False},
        }
    adapter = model.cfg.perception.adapter
    options = cast(dict[str, Any], OmegaConf.to_container(adapter, resolve=True)) if adapter else None
    return {
        "_target_": "nemo_speechllm.export.nemo_adapter.ProjectedConformer",
        "d_in": d_in,
        "d_llm": d_llm,
        "stack": model.perception.stacking.n,
        "conformer": {key: value for key, value in options.items() if key != "type"} if options else None,
    }


def nemo_state(model: SALM) -> dict[str, Tensor]:
    """Return the weights by the names that they have in NeMo's SALM."""
    perception = model.perception
    llm = {f"llm.{name}": value for name, value in model.llm.state_dict().items()}
    state = {"embed_tokens.weight": llm.pop("llm.model.embed_tokens.weight"), **llm}
    for part in ("preprocessor", "encoder"):
        values = getattr(perception.encoder, part).state_dict()
        state |= {f"perception.{part}.{name}": value for name, value in values.items()}
    if is_nemo_alone(model):
        return state | _norm_in_nemo(perception.projection.linear, perception.projection.scale)
    tail = {"adapter": perception.adapter, "projection": perception.projection}
    return state | {
        f"perception.modality_adapter.{part}.{name}": value
        for part, module in tail.items()
        if module is not None
        for name, value in module.state_dict().items()
    }


@torch.no_grad()
def _norm_in_nemo(linear: torch.nn.Linear, scale: Tensor) -> dict[str, Tensor]:
    """Return a projection y → y / rms(y) · scale as NeMo's linear → layer norm → linear.

    The first gives y beside -y, by which the mean is 0 and the variance the mean square; larger by a factor at which
    the layer norm's epsilon is as small as that of `torch.nn.functional.rms_norm`.
    """
    factor = math.sqrt(LAYER_NORM_EPS / torch.finfo(torch.float32).eps)
    width = len(linear.bias)
    first = torch.eye(width, 2 * width).to(linear.weight)
    values = {
        "modality_adapter.pre_encode.weight": factor * torch.cat([linear.weight, -linear.weight]),
        "modality_adapter.pre_encode.bias": factor * torch.cat([linear.bias, -linear.bias]),
        "modality_adapter.final_norm.weight": torch.ones(2 * width).to(linear.weight),
        "modality_adapter.final_norm.bias": torch.zeros(2 * width).to(linear.weight),
        "proj.weight": scale * first,
        "proj.bias": torch.zeros(width).to(linear.weight),
    }
    return {f"perception.{name}": value for name, value in values.items()}


def _save(config: dict[str, Any], model: SALM, folder: Path, saved_config: dict[str, Any]) -> None:
    """Build NeMo's model, which must take every weight and lack none, and let it save itself."""
    from nemo.collections.speechlm2.models import SALM as NeMoSALM

    salm = NeMoSALM(config | {"tokenizer_path": str(folder)})
    salm.load_state_dict(nemo_state(model), strict=True, assign=True)
    salm.save_pretrained(folder, config=saved_config)


def _placed(model: SALM, output: Path) -> dict[str, str]:
    """Return where the LLM's config is found: NeMo reads the folder's own wherever it lies, vLLM what is named."""
    place = str(model.cfg.llm.pretrained)
    is_hub_id = place.count("/") == 1 and not Path(place).expanduser().exists()
    return {"pretrained_llm": place if is_hub_id else str((output / LLM_FOLDER).resolve())}


def _tell(model: SALM, config: dict[str, Any], output: Path) -> None:
    """Say what who uses the folder has to know."""
    reasons: list[str] = []
    frame_shift = model.perception.encoder.frame_shift
    if not is_nemo_alone(model):
        logging.warning(
            "model.perception.adapter: NeMo has no equal, so who loads the folder needs this package beside NeMo, "
            "and `import nemo_speechllm` before"
        )
        reasons.append("model.perception.adapter or stack")
    if not math.isclose(frame_shift, VLLM_FRAME_SHIFT):
        reasons.append(
            f"an encoder of {1000 * frame_shift:.0f} ms per state, and it counts {1000 * VLLM_FRAME_SHIFT:.0f}"
        )
    if reasons:
        logging.warning(f"NeMo's vLLM plugin cannot serve {output}: {'; '.join(reasons)}")
    if config["prompt_format"] == NO_PROMPT_FORMAT:
        logging.warning(
            "no prompt format of NeMo asks as this model was asked: give generate() ids of "
            "tokenizer.apply_chat_template, see docs/export.md"
        )

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

"""Loads a Hugging Face causal LLM, adds LoRA to it, freezes parameters by pattern."""

import time
from pathlib import Path
from typing import Any

import regex
import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from nemo_speechllm.modules.packing import allow_packing
from nemo_speechllm.recipes.sections import LoRA

PATTERN_SECONDS = 5  # for all parameters; a sane pattern takes milliseconds


def load_llm(folder: Path, dtype: str = "float32", with_weights: bool = True) -> PreTrainedModel:
    """Load a causal LLM of an architecture that transformers itself has; code in the folder is not run.

    It reads packed rows where it can; see `allow_packing`.

    Args:
        folder: a Hugging Face model folder (``config.json`` is enough when ``with_weights`` is false).
        dtype: name of the torch dtype the weights are held in.
        with_weights: false builds the architecture with random weights.

    Raises:
        ValueError: ``dtype`` is not a torch dtype.
    """
    torch_dtype = getattr(torch, dtype, None)
    if not isinstance(torch_dtype, torch.dtype):
        raise ValueError(f"model.llm.dtype is {dtype!r}, which is no torch dtype; use float32 or bfloat16")
    if with_weights:
        llm = AutoModelForCausalLM.from_pretrained(folder, dtype=torch_dtype, trust_remote_code=False)
    else:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        llm = AutoModelForCausalLM.from_config(config, dtype=torch_dtype, trust_remote_code=False)
    allow_packing(llm)
    return llm


def add_lora(llm: PreTrainedModel, cfg: LoRA) -> None:
    """Inject LoRA layers into the LLM in place; parameter names elsewhere stay as they are.

    Args:
        llm: the model.
        cfg: the recipe's ``model.lora`` section.

    Raises:
        ValueError: a target module name matches nothing in the LLM.
    """
    targets = list(cfg.target_modules)
    present = {name.rsplit(".", 1)[-1] for name, module in llm.named_modules() if isinstance(module, nn.Linear)}
    unknown = [target for target in targets if target not in present]
    if unknown:
        raise ValueError(
            f"model.lora.target_modules names {unknown}, which {type(llm).__name__} does not have; its linear layers "
            f"are {sorted(present)}"
        )
    alpha: Any = cfg.r if cfg.alpha is None else cfg.alpha  # PEFT takes any number
    lora = LoraConfig(r=cfg.r, lora_alpha=alpha, lora_dropout=cfg.dropout, target_modules=targets)
    trainable = {name: parameter.requires_grad for name, parameter in llm.named_parameters()}
    inject_adapter_in_model(lora, llm)
    for name, parameter in llm.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.float()
        else:
            parameter.requires_grad_(trainable[name.replace(".base_layer.", ".")])


def merge_lora(module: nn.Module, of_type: torch.dtype | None = None) -> None:
    """Replace layers with LoRA by ordinary ones that compute the same, in place and added up in float32.

    Args:
        module: whose layers are replaced.
        of_type: of the weights of those that are; None: all.
    """
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, BaseTunerLayer):
                layer = child.get_base_layer()
                dtype = next(layer.parameters()).dtype
                if dtype != (of_type or dtype):
                    continue
                layer.float()
                child.merge()
                setattr(parent, name, layer.to(dtype))


def has_merged_lora(module: nn.Module, cfg: LoRA | None) -> bool:
    """Whether the LoRA of a recipe's ``model.lora`` section is no longer there: `merge_lora` has merged it."""
    return bool(cfg and cfg.r > 0) and not any(isinstance(part, BaseTunerLayer) for part in module.modules())


def checkpoint_activations(llm: PreTrainedModel) -> None:
    """Let each layer of an LLM in training mode keep what it reads alone, and compute the rest anew for its gradient.

    Raises:
        ValueError: its architecture cannot.
    """
    if not llm.supports_gradient_checkpointing:
        raise ValueError(
            f"model.llm.activation_checkpointing: {type(llm).__name__} does not have it in transformers; set it to "
            "false"
        )
    llm.activation_checkpointing_enable({"use_reentrant": False})


def freeze_by_pattern(module: nn.Module, patterns: list[str]) -> None:
    """Stop the gradient of every parameter whose name a pattern matches from its start.

    Args:
        module: whose ``named_parameters`` are matched.
        patterns: regular expressions.

    Raises:
        ValueError: a pattern matches no parameter: most often a typo that would leave a "frozen" part training. Or it
            is no regular expression, or one that takes for ever.
    """
    for pattern in patterns:
        matched = _matching(module, pattern)
        if not matched:
            roots = sorted({".".join(name.split(".")[:2]) for name, _ in module.named_parameters()})
            raise ValueError(
                f"model.freeze_params: the pattern {pattern!r} matches no parameter; names start with {roots}"
            )
        for parameter in matched:
            parameter.requires_grad_(False)


def _matching(module: nn.Module, pattern: str) -> list[nn.Parameter]:
    deadline = time.monotonic() + PATTERN_SECONDS
    try:
        compiled = regex.compile(pattern)
        return [
            parameter
            for name, parameter in module.named_parameters()
            if compiled.match(name, timeout=max(deadline - time.monotonic(), 0.01))
        ]
    except TimeoutError as error:
        raise ValueError(
            f"model.freeze_params: the pattern {pattern!r} takes more than {PATTERN_SECONDS} s to match; write one "
            "without repetitions inside repetitions"
        ) from error
    except regex.error as error:
        raise ValueError(f"model.freeze_params: {pattern!r} is no regular expression: {error}") from error

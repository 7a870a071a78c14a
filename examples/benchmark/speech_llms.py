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

"""What the benchmarks of speed share: a SALM and NeMo's with the same weights and batch, and what is measured.

Both read audio by a frozen FastConformer, a Conformer that trains and a projection, and have LoRA in a frozen LLM.
They differ in one thing: NeMo's projection is linear, that of this package brings what it gives to the LLM's scale.
"""

import argparse
import ctypes
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from nemo.collections.speechlm2.models import SALM as NeMoSALM
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nemo_speechllm import assets
from nemo_speechllm.data.conversation import SAMPLE_RATE, Audio, Conversation, Turn
from nemo_speechllm.data.dataset import ConversationBatch, ConversationDataset
from nemo_speechllm.models import SALM
from nemo_speechllm.modules.linear import use_onednn
from nemo_speechllm.prompts.segments import AudioSegment, Segment, TextSegment

RECIPE = Path(__file__).parents[2] / "conf" / "salm" / "whisper_smollm2.yaml"
FEATURES = {
    "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
    **{"sample_rate": SAMPLE_RATE, "normalize": "per_feature", "window_size": 0.025, "window_stride": 0.01},
    **{"features": 80, "n_fft": 512, "dither": 0.0},
}
AUDIO_TAG = "<|audio|>"
MIB = 2**20


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """Add the sizes of what is around the LLM, and of the batch, to a script's arguments."""
    parser.add_argument("--lora-rank", type=int, default=8, help="on q_proj and v_proj")
    parser.add_argument("--encoder-layers", type=int, default=4)
    parser.add_argument("--encoder-width", type=int, default=176)
    parser.add_argument("--adapter-layers", type=int, default=2)
    parser.add_argument("--seconds", type=float, nargs="+", default=[8.0, 8.0, 8.0, 8.0], help="of each recording")
    parser.add_argument("--text-tokens", type=int, default=24, help="of the question, and of the answer")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32", help="bfloat16 on a GPU")
    parser.add_argument("--output", type=Path, required=True)


def build_ours(sizes: argparse.Namespace) -> SALM:
    """Return a SALM of this package with random weights around the LLM."""
    conformer = {"n_layers": sizes.adapter_layers, "d_model": sizes.encoder_width}
    encoder = {"_target_": "nemo.collections.asr.modules.ConformerEncoder", "feat_in": 80, "n_heads": 4}
    encoder |= {"n_layers": sizes.encoder_layers, "d_model": sizes.encoder_width, "subsampling": "dw_striding"}
    encoder |= {"subsampling_factor": 8, "subsampling_conv_channels": 256, "conv_kernel_size": 9}
    changes = {
        "llm": {"pretrained": sizes.llm, "pretrained_weights": not sizes.random, "dtype": sizes.dtype},
        "lora": {"r": sizes.lora_rank, "alpha": 2 * sizes.lora_rank or None, "target_modules": ["q_proj", "v_proj"]},
        "perception": {"stack": 1, "adapter": conformer, "state_mask": None},
        "loss": {"ctc_weight": 0.0},
        "ctc_compression": False,
        "generation": {"ctc_weight": 0.0, "guards": None},
    }
    cfg = OmegaConf.merge(OmegaConf.load(RECIPE).model, changes, {"train_ds": None, "validation_ds": None})
    cfg.perception.encoder = {"type": "nemo", "config": {"preprocessor": FEATURES, "encoder": encoder}}
    torch.manual_seed(0)
    return SALM(cfg).to(sizes.device)


def build_nemos(ours: SALM, sizes: argparse.Namespace) -> NeMoSALM:
    """Return NeMo's SALM with the weights of one of this package, of which it trains the same."""
    perception = ours.cfg.perception
    adapter = {name: value for name, value in perception.adapter.items() if name != "type"}
    adapter |= {"_target_": "nemo.collections.asr.modules.ConformerEncoder", "feat_in": sizes.encoder_width}
    lora = {"r": sizes.lora_rank, "lora_alpha": 2 * sizes.lora_rank, "target_modules": ["q_proj", "v_proj"]}
    cfg = {
        "pretrained_llm": str(assets.resolve(sizes.llm)),
        "pretrained_weights": False,
        "audio_locator_tag": AUDIO_TAG,
        "prompt_format": "llama2",
        "lora": lora | {"task_type": "CAUSAL_LM"},
        "prevent_freeze_params": [],
        "perception": {
            "preprocessor": OmegaConf.to_container(perception.encoder.config.preprocessor),
            "encoder": OmegaConf.to_container(perception.encoder.config.encoder),
            "modality_adapter": OmegaConf.to_container(OmegaConf.create(adapter)),
            "output_dim": ours.llm.config.hidden_size,
        },
    }
    theirs = NeMoSALM(cfg)
    llm = ours.llm.state_dict()
    embeddings = {"weight": llm.pop("model.embed_tokens.weight")}
    theirs.embed_tokens.load_state_dict(embeddings)
    theirs.llm.base_model.model.load_state_dict(llm)
    theirs.perception.encoder.load_state_dict(ours.perception.encoder.encoder.state_dict())
    theirs.perception.modality_adapter.load_state_dict(ours.perception.adapter.conformer.state_dict())
    theirs.perception.proj.load_state_dict(ours.perception.projection.linear.state_dict())
    theirs.llm.to(getattr(torch, sizes.dtype))
    theirs.embed_tokens.to(getattr(torch, sizes.dtype))
    for part in (theirs.llm, theirs.embed_tokens, theirs.perception.encoder):
        part.requires_grad_(False)
    for name, parameter in theirs.llm.named_parameters():
        parameter.requires_grad_("lora_" in name)
    return theirs.to(sizes.device)


def conversations(ours: SALM, sizes: argparse.Namespace) -> list[Conversation]:
    """Return one question and its answer for each recording of noise; both have the tokens that are asked for."""
    generator = torch.Generator().manual_seed(0)
    prompt = ours.prompt.segments(_asked(torch.zeros(1), "", "one"))
    around = sum(len(segment.ids) for segment in prompt if isinstance(segment, TextSegment) and not segment.loss)
    instruction = " ".join(["one"] * max(1, sizes.text_tokens - around))
    answer = " ".join(["two"] * (sizes.text_tokens - 1))  # and its end
    samples = [torch.randn(int(seconds * SAMPLE_RATE), generator=generator) * 0.1 for seconds in sizes.seconds]
    return [_asked(item, instruction, answer) for item in samples]


def _asked(samples: Tensor, instruction: str, answer: str) -> Conversation:
    turns = [Turn("user", [Audio(samples), instruction]), Turn("assistant", [answer])]
    return Conversation("benchmark", turns, {"text": answer, "task": "asr"})


def batch_of(ours: SALM, asked: list[Conversation]) -> ConversationBatch:
    """Return the conversations as a batch of this package."""
    return ConversationDataset(ours.builder).collate(asked).to(ours.device)


def nemos_batch(ours: SALM, batch: ConversationBatch, theirs: NeMoSALM) -> dict[str, Tensor]:
    """Return a batch as NeMo's SALM reads it: the same tokens, its tag where an audio is, padded on the left."""
    tag, pad = theirs.audio_locator_tag_id, theirs.text_pad_id
    rows = [ours.prompt.segments(conversation) for conversation in batch.conversations]
    ids = [_flat(row, lambda s: s.ids, tag) for row in rows]
    learned = [_flat(row, lambda s: [s.loss] * len(s.ids), False) for row in rows]
    size = max(map(len, ids))
    return {
        "audios": batch.audio,
        "audio_lens": batch.audio_lengths,
        "input_ids": torch.tensor([[pad] * (size - len(row)) + row for row in ids], device=ours.device),
        "loss_mask": torch.tensor([[False] * (size - len(row)) + row for row in learned], device=ours.device),
    }


def _flat(row: list[Segment], of_text: Callable[[TextSegment], list], of_audio: object) -> list:
    return [item for s in row for item in ([of_audio] if isinstance(s, AudioSegment) else of_text(s))]


def trained(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that have a gradient."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


@dataclass
class Cost:
    """What a piece of work took.

    Attributes:
        seconds: of wall clock.
        mib: peak memory over what there was before.
    """

    seconds: float
    mib: float


def cost(work: Callable[[], object], device: str) -> Cost:
    """Run a piece of work and return its cost."""
    gc.collect()
    before = memory(device, reset=True)
    started = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    return Cost(seconds, (memory(device, reset=False) - before) / MIB)


def memory(device: str, reset: bool) -> int:
    """Return bytes: what is held once the peak is reset, else the peak since then."""
    if device.startswith("cuda"):
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated()
    if reset:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # what earlier work gave back counts as free
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def flops(work: Callable[[], object]) -> int:
    """Run a piece of work and return its floating-point operations in matrix products, convolutions and attention.

    It is run without oneDNN, whose products the counter does not know.
    """
    with torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def peak_flops(device: str, dtype: str, size: int = 2048) -> float:
    """Return floating-point operations a second of a large matrix product, the best of ten by either library."""
    a = torch.randn(size, size, device=device, dtype=getattr(torch, dtype))
    layer = torch.nn.Linear(size, size, bias=False, device=device, dtype=a.dtype).requires_grad_(False)
    use_onednn(layer)
    products = [lambda: a @ a, lambda: layer(a)]
    return max(2 * size**3 / cost(product, device).seconds for product in products for _ in range(10))

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

"""Twenty kills of a tiny training at random moments; each is resumed to its end, which must be that of a run without
any.

    python -m tests.soak kills:kills=3

A moment is one of the processor time that the run without a kill took, so that it is in the same part of the work on
a loaded machine, and the kills are spread over all of it.
"""

import json
import os
import random
import resource
import runpy
import signal
import sys
import tempfile
import time
import traceback
import wave
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tqdm import tqdm
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from nemo_speechllm import assets
from nemo_speechllm.models import SALM
from nemo_speechllm.modules.fingerprint import state_digest
from tests.soak.workers import tried

ROOT = Path(__file__).resolve().parents[2]
STEPS = 12  # two epochs, a validation and a checkpoint every three
TEXTS = ("press one for support", "please hold the line", "thank you", "your call is important to us", "wait", "go on")
EVENTS = "events.out.*"  # of TensorBoard
TIMES_SLOWER = 20  # than the run without a kill: then it hangs


@dataclass(frozen=True)
class Whole:
    """The run without a kill.

    Attributes:
        settings: those of the command.
        losses: by step.
        weights: their digest.
        cpu_seconds: of processor time that it took.
        seconds: on the clock.
    """

    settings: dict[str, Any]
    losses: dict[int, float]
    weights: str
    cpu_seconds: float
    seconds: float


def run(kills: int = 20, seed: int = 0) -> dict[str, Any]:
    """Return ``name``, ``tried`` kills and how many of them ended in a model that is ``lost``, losses that are
    ``wrong``, or a training that ``hung``; ``failures`` tell what they were."""
    counts, failures = {"tried": kills, "lost": 0, "wrong": 0, "hung": 0}, {}
    with tempfile.TemporaryDirectory(prefix="kills_") as folder:
        whole = _whole_run(Path(folder))
        chance = random.Random(seed)
        moments = [whole.cpu_seconds * (number + chance.random()) / kills for number in range(kills)]
        for moment, (outcome, told) in tried(partial(_killed, whole, Path(folder)), moments, "kills"):
            place = f"{moment:.2f} of {whole.cpu_seconds:.2f} s"
            tqdm.write(f"killed at {place}: {outcome or 'resumed'}: {told}", sys.stderr)
            if outcome:
                counts[outcome] += 1
                failures[f"at {place}"] = f"{outcome}: {told}"
    return {"name": "kills of a training", **counts, "failures": failures}


def _whole_run(root: Path) -> Whole:
    settings = _make_data(root)
    clock, cpu = time.monotonic(), _cpu_of_children()
    _train(settings, root / "whole", limit=3600.0)
    seconds, cpu_seconds = time.monotonic() - clock, _cpu_of_children() - cpu
    losses, weights = _losses((root / "whole").rglob(EVENTS)), _weights(root / "whole")
    if len(losses) != STEPS or weights is None:
        raise RuntimeError(f"the run without a kill failed: {_tail(root / 'whole')}")
    return Whole(settings, losses, weights, cpu_seconds, seconds)


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _killed(whole: Whole, root: Path, moment: float) -> tuple[str, str]:
    """Kill a training when it has taken ``moment`` seconds of processor time, and resume it.

    Returns:
        "" or how it went wrong: ``lost``, ``wrong`` or ``hung``; and how much was kept, or the log's end.
    """
    folder, limit = root / f"{moment:.6f}", TIMES_SLOWER * whole.seconds
    # nothing handles this timer's signal: it ends the process there and then, as SIGKILL does
    killed = _train(whole.settings, folder, limit, lambda: signal.setitimer(signal.ITIMER_PROF, moment))
    if killed == 0:  # it had ended before: no two runs take the same time
        return _killed(whole, root, 0.9 * moment)
    if killed not in (None, -signal.SIGPROF):
        return "wrong", _tail(folder)
    events = set(folder.rglob(EVENTS))
    resumed = _train(whole.settings, folder, limit)
    outcome = "hung" if None in (killed, resumed) else _compared(folder, whole.losses, whole.weights)
    if outcome is not None:
        return outcome, _tail(folder)
    first = min(_losses(set(folder.rglob(EVENTS)) - events), default=STEPS)
    return "", f"{first} of {STEPS} steps were not done again"


def _compared(folder: Path, losses: dict[int, float], weights: str) -> str | None:
    """What is wrong with a training that was killed and resumed, beside one that was not."""
    found = _weights(folder)
    if found is None:
        return "lost"
    # the last losses before a kill may not have reached TensorBoard's file
    same = all(losses[step] == loss for step, loss in _losses(folder.rglob(EVENTS)).items())
    return None if same and found == weights else "wrong"


def _train(
    settings: dict[str, Any], folder: Path, limit: float, before: Callable[[], Any] = lambda: None
) -> int | None:
    """Run examples/train.py with the folder as its place; see `run_forked`."""
    given = [f"{name}={value}" for name, value in (settings | {"exp_manager.exp_dir": folder}).items()]
    folder.mkdir(parents=True, exist_ok=True)
    command = [str(ROOT / "examples/train.py"), "--config-name=salm/whisper_smollm2", *given]
    return run_forked(command, folder / "log.txt", limit, before)


def run_forked(arguments: list[str], log: Path, limit: float, before: Callable[[], Any] = lambda: None) -> int | None:
    """Run a script in a child of this process, forked after the slow imports.

    Args:
        arguments: the script and its arguments.
        log: what it prints is appended here.
        limit: seconds after which it is killed.
        before: called in the child first.

    Returns:
        its status, minus the signal that ended it, or None if it was killed at the limit.
    """
    if (child := os.fork()) == 0:
        try:
            sys.stdout = sys.stderr = open(log, "a", buffering=1)
            for descriptor in (1, 2):
                os.dup2(sys.stdout.fileno(), descriptor)
            before()
            sys.argv = list(arguments)
            runpy.run_path(arguments[0], run_name="__main__")
        except SystemExit as end:
            os._exit(end.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(99)
    ends = time.monotonic() + limit
    while time.monotonic() < ends:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _losses(events: Iterable[Path]) -> dict[int, float]:
    """What TensorBoard's files say of the training loss, by step; a later one wins."""
    values: dict[int, float] = {}
    for file in sorted(events, key=lambda path: path.stat().st_mtime):
        events = EventAccumulator(str(file)).Reload()
        if "train_loss" in events.Tags()["scalars"]:
            values |= {event.step: event.value for event in events.Scalars("train_loss")}
    return values


def _weights(folder: Path) -> str | None:
    """A digest of the weights of the one model that a training leaves."""
    nemos = list(folder.rglob("*.nemo"))
    return state_digest(SALM.restore_from(nemos[0])) if len(nemos) == 1 else None


def _tail(folder: Path) -> str:
    return " | ".join((folder / "log.txt").read_text(errors="replace").splitlines()[-3:])


def _make_data(root: Path) -> dict[str, Any]:
    """Six recordings and a model of two layers on either side; what the command needs to train on them."""
    chance = np.random.default_rng(0)
    for name, texts in (("train", TEXTS), ("dev", TEXTS[:2])):
        with open(root / f"{name}.jsonl", "w", encoding="utf-8") as manifest:
            for number, text in enumerate(texts):
                samples = (chance.standard_normal(8000 + 1600 * number) * 3000).astype(np.int16)
                path = root / f"{name}-{number}.wav"
                with wave.open(str(path), "wb") as file:
                    file.setparams((1, 2, 16000, 0, "NONE", ""))
                    file.writeframes(samples.tobytes())
                row = {"audio_filepath": str(path), "duration": len(samples) / 16000, "text": text, "lang": "en"}
                manifest.write(json.dumps(row) + "\n")
    _make_llm(root / "llm")
    _make_whisper(root / "whisper")
    return {
        "model.llm.pretrained": root / "llm",
        "model.perception.encoder.pretrained": root / "whisper",
        "model.perception.adapter.n_layers": 1,
        "model.perception.adapter.d_model": 32,
        "model.lora.dropout": 0.1,
        "model.generation.max_new_tokens": 2,
        "model.train_ds.manifest_filepath": root / "train.jsonl",
        "model.train_ds.batch_size": 1,
        "model.train_ds.num_workers": 1,
        "model.train_ds.num_buckets": 2,
        "model.validation_ds.manifest_filepath": root / "dev.jsonl",
        "trainer.accelerator": "cpu",
        "trainer.max_steps": STEPS,
        "trainer.val_check_interval": 3,
        "trainer.log_every_n_steps": 1,
        "name": "run",
    }


def _make_llm(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(assets.resolve("smollm2-135m-instruct"))
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), tie_word_embeddings=True, **sizes, **ids)).save_pretrained(
        folder
    )
    tokenizer.save_pretrained(folder)


def _make_whisper(folder: Path) -> None:
    sizes = {
        f"{side}_{size}": value
        for side in ("encoder", "decoder")
        for size, value in (("layers", 2), ("attention_heads", 2), ("ffn_dim", 128))
    }
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3}
    WhisperModel(WhisperConfig(d_model=64, vocab_size=128, **sizes, **tokens)).save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)

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

"""Keeps the states of a frozen encoder on disk, so that later epochs skip the encoder."""

import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from nemo_speechllm.files import whole_file
from nemo_speechllm.modules.encoders import Encoder
from nemo_speechllm.modules.fingerprint import matches_fingerprint, weight_fingerprint

CACHE_RECORD = "encoder.json"
DIGEST = "sha256"


class StateCacheError(RuntimeError):
    """The cache folder belongs to another encoder, or one of its files cannot be read, or states cannot be kept."""


class CachedEncoder(Encoder):
    """A frozen encoder behind a cache of its states, keyed by the audio's content.

    States are stored in float16, one safetensors file per item, written under a temporary name and then renamed, so
    several processes may share a folder and a killed run leaves no half-written entry. An entry holds a digest of
    itself and its name; one without, as older versions wrote, is computed again.

    Args:
        encoder: ``(audio, audio_lengths) -> (states, state_lengths)``, frozen.
        folder: where the states lie; made if missing. It belongs to one encoder and one setting of it.

    Raises:
        StateCacheError: the folder holds the states of another encoder.
    """

    def __init__(self, encoder: Encoder, folder: str | Path):
        super().__init__()
        self.encoder = encoder
        self.folder = Path(folder)
        self.d_model = encoder.d_model
        self.frame_shift = encoder.frame_shift
        self._claimed = False

    def forward(self, audio: Tensor, audio_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return states (B, T', d_model) and lengths (B,) of samples (B, T), from disk where they are known."""
        self._claim_folder()
        paths = [self._path(samples[:length]) for samples, length in zip(audio, audio_lengths.tolist(), strict=True)]
        places = dict(zip(paths, range(len(paths)), strict=True))  # what comes several times is read once
        states = {path: self._load(path, audio.device) for path in places}
        missing = [path for path, item in states.items() if item is None]
        if missing:
            rows = [places[path] for path in missing]
            self._encode_and_store(audio[rows], audio_lengths[rows], missing)
            states |= {path: self._load(path, audio.device) for path in missing}
        items = [cast(Tensor, states[path]) for path in paths]
        lengths = torch.tensor([len(item) for item in items], device=audio.device)
        return pad_sequence(items, batch_first=True), lengths

    def _claim_folder(self) -> None:
        """Write whose states these are, or refuse a folder that holds another encoder's. Once per process."""
        if self._claimed:
            return
        weights = weight_fingerprint(self.encoder)
        record = {
            "encoder": type(self.encoder).__name__,
            "weights": weights,
            "trim": getattr(self.encoder, "trim", None),
        }
        if getattr(self.encoder, "taps", None):
            record["taps"] = self.encoder.taps
        path = self.folder / CACHE_RECORD
        if path.exists():
            recorded = _read_record(path)
            if matches_fingerprint(self.encoder, str(recorded.get("weights")), weights):
                record["weights"] = recorded["weights"]  # which may be an older version's
            if recorded != record:
                raise StateCacheError(
                    f"the state cache {self.folder} was made by another encoder: {recorded} there, {record} here. "
                    "Give model.perception.state_cache an empty folder, or delete this one."
                )
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            _write_atomically(path, lambda name: Path(name).write_text(json.dumps(record)))
        self._claimed = True

    def _path(self, samples: Tensor) -> Path:
        key = hashlib.sha256(samples.detach().float().cpu().numpy().tobytes()).hexdigest()[:40]
        return self.folder / key[:2] / f"{key}.safetensors"

    def _encode_and_store(self, audio: Tensor, audio_lengths: Tensor, paths: list[Path]) -> None:
        with torch.no_grad():
            states, state_lengths = self.encoder(audio, audio_lengths)
        for item, length, path in zip(states, state_lengths.tolist(), paths, strict=True):
            path.parent.mkdir(exist_ok=True)
            stored = item[:length].to(device="cpu", dtype=torch.float16).contiguous()
            if not stored.isfinite().all():
                raise StateCacheError(
                    f"the encoder's states of an audio of {len(item)} states are not finite in float16, "
                    "so they cannot be kept: set model.perception.state_cache to null, and look for the audio with "
                    "examples/data/check_manifest.py"
                )
            write = partial(save_file, {"states": stored}, metadata={DIGEST: _digest(path, stored)})
            _write_atomically(path, write)

    def _load(self, path: Path, device: torch.device) -> Tensor | None:
        """Return what an entry holds; None where there is none, or one of an older version."""
        if not path.exists():
            return None
        try:
            with safe_open(path, "pt") as entry:
                digest, states = (entry.metadata() or {}).get(DIGEST), entry.get_tensor("states")
        except (SafetensorError, KeyError, OSError) as error:
            raise StateCacheError(f"cached states {path} cannot be read ({error}); delete the file") from error
        if digest is None:
            return None
        if digest != _digest(path, states):
            raise StateCacheError(
                f"cached states {path} are not those that were written (their digest differs); delete the file"
            )
        return states.to(device=device, dtype=torch.float32)


def _digest(path: Path, states: Tensor) -> str:
    """Return a hash of states and of the audio that they belong to."""
    digest = hashlib.sha256(f"{path.stem} {tuple(states.shape)} {states.dtype}".encode())
    digest.update(states.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _read_record(path: Path) -> dict:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        record = error
    if not isinstance(record, dict):
        raise StateCacheError(f"{path} is damaged ({record}); delete the folder {path.parent}")
    return record


def _write_atomically(path: Path, write: Callable[[str], object]) -> None:
    with whole_file(path) as unfinished:
        unfinished.touch()
        mode = unfinished.stat().st_mode  # safetensors puts a file in its place that nobody else may read
        write(str(unfinished))
        unfinished.chmod(mode)

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
import os
import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from nemo_speechllm.modules.fingerprint import weight_fingerprint

CACHE_RECORD = "encoder.json"


class StateCacheError(RuntimeError):
    """The cache folder belongs to another encoder, or one of its files cannot be read."""


class CachedEncoder(nn.Module):
    """A frozen encoder behind a cache of its states, keyed by the audio's content.

    States are stored in float16, one safetensors file per item, written under a temporary name and then renamed, so
    several processes may share a folder and a killed run leaves no half-written entry.

    Args:
        encoder: ``(audio, audio_lengths) -> (states, state_lengths)``, frozen.
        folder: where the states lie; made if missing. It belongs to one encoder and one setting of it.

    Raises:
        StateCacheError: the folder holds the states of another encoder.
    """

    def __init__(self, encoder: nn.Module, folder: str | Path):
        super().__init__()
        self.encoder = encoder
        self.folder = Path(folder)
        self.d_model = encoder.d_model
        self.frame_shift = encoder.frame_shift
        self._claimed = False

    def forward(self, audio: Tensor, audio_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T) samples → states (B, T', d_model) and their lengths (B,), from disk where they are known."""
        self._claim_folder()
        paths = [self._path(samples[:length]) for samples, length in zip(audio, audio_lengths.tolist())]
        missing = [i for i, path in enumerate(paths) if not path.exists()]
        if missing:
            self._encode_and_store(audio[missing], audio_lengths[missing], [paths[i] for i in missing])
        items = [self._load(path, audio.device) for path in paths]
        lengths = torch.tensor([len(item) for item in items], device=audio.device)
        return pad_sequence(items, batch_first=True), lengths

    def _claim_folder(self) -> None:
        """Writes whose states these are, or refuses a folder that holds another encoder's. Once per process."""
        if self._claimed:
            return
        record = {
            "encoder": type(self.encoder).__name__,
            "weights": weight_fingerprint(self.encoder),
            "trim": getattr(self.encoder, "trim", None),
        }
        if getattr(self.encoder, "taps", None):
            record["taps"] = self.encoder.taps
        path = self.folder / CACHE_RECORD
        if path.exists():
            found = json.loads(path.read_text())
            if found != record:
                raise StateCacheError(
                    f"the state cache {self.folder} was made by another encoder: {found} there, {record} here. "
                    "Give model.perception.state_cache an empty folder, or delete this one."
                )
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            _write_atomically(path, lambda partial: Path(partial).write_text(json.dumps(record)))
        self._claimed = True

    def _path(self, samples: Tensor) -> Path:
        key = hashlib.sha256(samples.detach().float().cpu().numpy().tobytes()).hexdigest()[:40]
        return self.folder / key[:2] / f"{key}.safetensors"

    def _encode_and_store(self, audio: Tensor, audio_lengths: Tensor, paths: list[Path]) -> None:
        with torch.no_grad():
            states, state_lengths = self.encoder(audio, audio_lengths)
        for item, length, path in zip(states, state_lengths.tolist(), paths):
            path.parent.mkdir(exist_ok=True)
            stored = {"states": item[:length].to(device="cpu", dtype=torch.float16).contiguous()}
            _write_atomically(path, lambda partial: save_file(stored, partial))

    def _load(self, path: Path, device: torch.device) -> Tensor:
        try:
            return load_file(path)["states"].to(device=device, dtype=torch.float32)
        except (SafetensorError, KeyError) as error:
            raise StateCacheError(f"cached states {path} cannot be read ({error}); delete the file") from error


def _write_atomically(path: Path, write) -> None:
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=".partial-")
    os.close(handle)
    try:
        write(partial)
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise

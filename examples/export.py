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

"""Makes a ``.nemo`` file small and fit to be given away.

    python examples/export.py model=runs/salm/salm.nemo output=salm_mine.nemo dtype=float16

The weights that the checkpoint holds are rounded to ``dtype`` (a restored model computes in float32 as before); the
frozen LLM and encoder stay references, or are put into the file with ``save_full=true``. Data, optimizer and cache
settings of the machine it was trained on are dropped, of a folder that it refers to the name alone stays, and the
archive is gzipped, which NeMo reads as well.
"""

import os
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from nemo.core.config import hydra_runner
from nemo.utils import logging
from omegaconf import MISSING, open_dict

from nemo_speechllm.checkpointing.errors import CheckpointError
from nemo_speechllm.command_line import check_output_file, check_settings, run_command
from nemo_speechllm.models import load_model
from nemo_speechllm.models.speech_lm import SpeechLM

TRAINING_SECTIONS = ("train_ds", "validation_ds", "test_ds", "optim")


@dataclass
class ExportArguments:
    """Which model is exported, to which file and in which form."""

    model: str = MISSING
    output: str = MISSING
    dtype: str = "float16"  # float16, bfloat16 or float32
    save_full: bool = False


def round_saved_weights(model: SpeechLM, dtype: torch.dtype) -> None:
    """Round those parameters that the checkpoint will hold; what is saved by reference keeps its fingerprint."""
    saved = model.state_dict().keys()
    for name, parameter in model.named_parameters():
        if name in saved and parameter.is_floating_point():
            rounded = parameter.data.to(dtype)
            if not torch.isfinite(rounded).all():
                raise ValueError(f"{name} has values that {dtype} cannot hold; use dtype=bfloat16")
            parameter.data = rounded


def drop_training_settings(model: SpeechLM) -> None:
    """Remove what only training reads: a restored model has no data and no caches of the machine it was trained on."""
    with open_dict(model.cfg):
        for section in TRAINING_SECTIONS:
            model.cfg.pop(section, None)


def hide_local_references(model: SpeechLM) -> None:
    """Keep only the name of a frozen part that is a folder or file of this machine: another one will not find it."""
    model.state_dict()  # decides what goes by reference
    for part, section in {"llm": model.cfg.get("llm"), "perception.encoder": model.cfg.perception.encoder}.items():
        if not section or section.get("pretrained") is None:
            continue
        place = Path(section.pretrained)
        if not section.by_reference:  # its weights are in the file: nothing to look for
            section.pretrained = None
        elif place.exists():
            section.pretrained = place.name
            logging.warning(
                f"model.{part}.pretrained was {place}, a path of this machine, and is {place.name} in the checkpoint: "
                "who gets it needs the same weights and an override, or export with save_full=true"
            )


def save_compressed(model: SpeechLM, output: Path) -> None:
    """Write a gzipped ``.nemo``, whole or not at all, without the name of who made it."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".partial-") as folder:
        plain, compressed = Path(folder) / output.name, Path(folder) / "compressed"
        model.save_to(plain)
        with tarfile.open(plain) as source, tarfile.open(compressed, "w:gz") as target:
            for member in source:
                member.uid, member.gid, member.uname, member.gname = 0, 0, "", ""
                target.addfile(member, source.extractfile(member) if member.isreg() else None)
        os.replace(compressed, output)


@hydra_runner(config_name="ExportArguments", schema=ExportArguments)
def main(cfg: ExportArguments) -> None:
    """Write the checkpoint."""
    check_settings(cfg)
    dtype = getattr(torch, cfg.dtype, None)
    if dtype not in (torch.float16, torch.bfloat16, torch.float32):
        raise ValueError(f"dtype={cfg.dtype}: use float16, bfloat16 or float32")
    output = Path(cfg.output).expanduser()
    if output.suffix != ".nemo":
        raise CheckpointError(f"output={cfg.output} must end in .nemo; give {output.name}.nemo, say")
    check_output_file(output, [cfg.model])
    model = load_model(cfg.model)
    if model.cfg.get("save_full") and not cfg.save_full:
        raise ValueError(f"{cfg.model} holds all weights and cannot be split again; export it with save_full=true")
    model.cfg.save_full = cfg.save_full
    drop_training_settings(model)
    hide_local_references(model)
    round_saved_weights(model, dtype)
    save_compressed(model, output)
    logging.info(f"{cfg.output}: {output.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    run_command(main)

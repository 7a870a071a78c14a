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

"""Makes of a model a small ``.nemo`` to give away, or a folder for Hugging Face or NeMo's own SALM.

    python examples/export.py model=runs/salm/salm.nemo output=salm_mine.nemo dtype=float16
    python examples/export.py format=hf model=salm_whisper_smollm2 output=hf_salm
    python examples/export.py format=nemo_salm model=runs/salm/salm.nemo output=nemo_salm

``format=nemo``: the weights that the checkpoint holds are rounded to ``dtype``, float16 where none is given (a
restored model computes in float32 as before); the frozen LLM and encoder stay references, or are put into the file
with ``save_full=true``. Data, optimizer and cache settings of the machine it was trained on are dropped, of a folder
that it refers to the name alone stays, and the archive is gzipped, which NeMo reads as well.

``format=hf``: a folder that ``AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)`` reads.
``format=nemo_salm``: one that ``nemo.collections.speechlm2.models.SALM.from_pretrained`` reads. LoRA is merged and all
weights are in it, rounded to ``dtype`` where one is given. What has no place in it is refused or, where the LLM's
answers do without it, named as left behind.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from nemo.core.config import hydra_runner
from nemo.utils import logging
from omegaconf import MISSING

from nemo_speechllm.checkpointing.errors import CheckpointError
from nemo_speechllm.command_line import check_output_file, check_settings, check_writable, run_command
from nemo_speechllm.export.hf import export_hf
from nemo_speechllm.export.limits import left_behind
from nemo_speechllm.export.nemo_file import export_nemo_file
from nemo_speechllm.export.nemo_salm import export_nemo_salm
from nemo_speechllm.files import check_new_folder
from nemo_speechllm.models import load_model

FOLDERS = {"hf": export_hf, "nemo_salm": export_nemo_salm}


@dataclass
class ExportArguments:
    """Which model is exported, to which file or folder and in which form."""

    model: str = MISSING
    output: str = MISSING
    format: str = "nemo"  # nemo: a .nemo file; hf, nemo_salm: a folder for Hugging Face, for NeMo's own SALM
    dtype: str | None = None  # float16, bfloat16 or float32; null: float16 in a .nemo, in a folder as they are
    save_full: bool = False  # of a .nemo; a folder always holds all weights


@hydra_runner(config_name="ExportArguments", schema=ExportArguments)
def main(cfg: ExportArguments) -> None:
    """Write the file or folder."""
    check_settings(cfg)
    dtype = getattr(torch, cfg.dtype, None) if cfg.dtype is not None else None
    if cfg.dtype is not None and dtype not in (torch.float16, torch.bfloat16, torch.float32):
        raise ValueError(f"dtype={cfg.dtype}: use float16, bfloat16 or float32")
    output = Path(cfg.output).expanduser()
    check_output(cfg, output)
    model = load_model(cfg.model)
    if cfg.format == "nemo":
        export_nemo_file(model, output, dtype or torch.float16, cfg.save_full)
    else:
        FOLDERS[cfg.format](model, output, dtype)
        for what in left_behind(model):
            logging.warning(f"left behind, for there is no place for it in a {cfg.format} folder: {what}")
    files = [output] if output.is_file() else [path for path in output.rglob("*") if path.is_file()]
    logging.info(f"{cfg.output}: {sum(path.stat().st_size for path in files) / 2**20:.1f} MiB")


def check_output(cfg: ExportArguments, output: Path) -> None:
    """Refuse a format that there is not, and an output that does not fit it, before any work.

    Raises:
        ValueError, CheckpointError, OSError: see the message.
    """
    if cfg.format not in ("nemo", *FOLDERS):
        raise ValueError(f"format={cfg.format}: use {', '.join(('nemo', *FOLDERS))}")
    if cfg.format != "nemo":
        if cfg.save_full:
            raise ValueError(f"save_full=true is of format=nemo; format={cfg.format} always holds all weights")
        check_new_folder(output)
        check_writable(output.parent)
        return
    if output.suffix != ".nemo":
        raise CheckpointError(f"output={cfg.output} must end in .nemo; give {output.name}.nemo, say")
    check_output_file(output, [cfg.model])


if __name__ == "__main__":
    run_command(main)

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

"""A ``.nemo`` that is small and says nothing of the machine it was made on."""

import os
import tarfile
import tempfile
from pathlib import Path

import torch
from nemo.utils import logging
from omegaconf import open_dict

from nemo_speechllm.export.weights import round_weights
from nemo_speechllm.models.speech_lm import SpeechLM

TRAINING_SECTIONS = ("train_ds", "validation_ds", "test_ds", "optim")


def export_nemo_file(model: SpeechLM, output: Path, dtype: torch.dtype, save_full: bool = False) -> None:
    """Write a gzipped ``.nemo``. The model is changed.

    Args:
        dtype: what the weights that the file holds are rounded to.
        save_full: put the frozen LLM and encoder into it as well.

    Raises:
        ValueError: the model was saved whole, which cannot be split again; or a weight is too large for ``dtype``.
    """
    if model.cfg.get("save_full") and not save_full:
        raise ValueError("the model holds all weights and cannot be split again; export it with save_full=true")
    model.cfg.save_full = save_full
    drop_training_settings(model)
    hide_local_references(model)
    saved = model.state_dict().keys()  # what is saved by reference keeps its fingerprint
    round_weights(((name, value) for name, value in model.named_parameters() if name in saved), dtype)
    save_compressed(model, output)


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

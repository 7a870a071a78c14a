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

"""Measures what a CTC head makes of known speech, for training on text alone.

    python examples/data/measure_posteriors.py model=stage1.nemo 'manifests=[dev_en.jsonl]' output=posteriors.npz

The posteriors of every piece that was heard are kept with the piece that was said; ``model.ctc_posterior.bank`` of a
CTCPromptedLLM or a SALM makes up posteriors of texts out of them. Use speech that the head was not trained on: of its
training speech it makes no errors.
"""

from dataclasses import dataclass

import torch
from nemo.core.config import hydra_runner
from omegaconf import MISSING
from tqdm import tqdm

from nemo_speechllm.command_line import check_settings, emit, run_command
from nemo_speechllm.data.conversation import Audio
from nemo_speechllm.data.dataset import ConversationDataset, in_batches
from nemo_speechllm.manifests.manifest import read_manifest
from nemo_speechllm.models import load_model
from nemo_speechllm.models.ctc_head_lm import CTCHeadSpeechLM
from nemo_speechllm.modules.ctc_posterior import PosteriorBank


@dataclass
class MeasurePosteriorsArguments:
    """The script's settings."""

    model: str = MISSING
    manifests: list[str] = MISSING
    output: str = MISSING
    batch_size: int = 16


@torch.inference_mode()
def measure(model: CTCHeadSpeechLM, rows: list[dict], batch_size: int) -> PosteriorBank:
    """Return what the model's CTC head makes of the rows' audio."""
    collate = ConversationDataset(model.builder).collate
    posteriors, texts = [], []
    with tqdm(total=len(rows), unit="utt") as progress:
        for batch in in_batches(rows, batch_size):
            asked = [model.builder.conversation(Audio.from_row(row), row, row["audio_filepath"]) for row in batch]
            heard = collate(asked).to(model.device)
            posteriors += [item.float().cpu() for item in model.posteriors(heard, model.perceive(heard))]
            texts += model.ctc.ids([row["text"] for row in batch])
            progress.update(len(batch))
    return PosteriorBank.measure(posteriors, texts, model.ctc.blank)


@hydra_runner(config_name="MeasurePosteriorsArguments", schema=MeasurePosteriorsArguments)
def main(cfg: MeasurePosteriorsArguments) -> None:
    """Measure what the model hears of the manifests' audio."""
    check_settings(cfg)
    rows = [row for path in cfg.manifests for row in read_manifest(path, locate_audio=True)]
    model = load_model(cfg.model)
    if not isinstance(model, CTCHeadSpeechLM) or model.ctc_head is None:
        raise ValueError(
            f"model={cfg.model} is a {type(model).__name__} without a CTC head, of which posteriors are measured"
        )
    bank = measure(model, [row for row in rows if row.get("text", "").strip()], cfg.batch_size)
    bank.save(cfg.output)
    emit(f"{cfg.output}: {len(bank.reference)} pieces heard, {bank.length} said, {100 * bank.error_rate:.1f} % errors")


if __name__ == "__main__":
    run_command(main)

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

"""Trains a model as a recipe says, one of ``conf/`` or your own.

    python examples/train.py --config-name=salm/whisper_smollm2 \\
        model.train_ds.manifest_filepath=train.jsonl model.validation_ds.manifest_filepath=dev.jsonl

Start from a checkpoint with ``+init_from_nemo_model=x.nemo`` or ``+init_from_pretrained_model=salm_whisper_smollm2``;
a run that was killed continues when the same command is given again. ``--config-dir=FOLDER --config-name=NAME`` takes
a recipe of your own; its ``defaults`` may name one of ``conf/``. On several devices add ``trainer=ddp``; see
docs/multi_gpu.md.
"""

from nemo.core.config import hydra_runner
from omegaconf import DictConfig

from nemo_speechllm.command_line import run_command
from nemo_speechllm.recipes.kinds import check_kinds, written_recipe
from nemo_speechllm.training.train import train


@hydra_runner(config_path="../conf", config_name="salm/whisper_smollm2")
def main(cfg: DictConfig) -> None:
    """Train the model that the recipe describes."""
    check_kinds(written_recipe(), cfg)
    train(cfg)


if __name__ == "__main__":
    run_command(main)

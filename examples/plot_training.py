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

"""The curves of a training, drawn: losses with the right audio and with another's, listening, alignment, error rates.

    python examples/plot_training.py runs/salm_whisper_smollm2

The folder is that of a run; ``training.png`` is written into it. How to read it: docs/analysis.md.
"""

import argparse
from pathlib import Path

from nemo_speechllm.command_line import emit, run_command
from nemo_speechllm.evaluation.plot import plot_training
from nemo_speechllm.evaluation.training_curves import read_curves


def main() -> None:
    """Write ``training.png``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of a run: exp_manager.exp_dir/name")
    folder = parser.parse_args().folder
    target = folder / "training.png"
    plot_training(target, read_curves(folder))
    emit(target)


if __name__ == "__main__":
    run_command(main)
